"""How long a server that does not answer is waited for: once for all who ask, and not again until it has answered."""

from __future__ import annotations

import math
import time

__all__ = ["Patience"]


class Patience:
    """The patience with one server.

    A server that was there once is restarting; one that never was has a wrong address. The time runs from the first
    question without an answer, so that a run of a hundred steps waits once for a server that is gone, not a hundred
    times.

    Args:
        seconds: How long a restart may take.
        first: How long a server may take that has never answered, in seconds.
    """

    def __init__(self, seconds: float, first: float) -> None:
        self.seconds = seconds
        self.first = first
        self._there = False
        self._since: float | None = None

    def answered(self) -> None:
        """Take note that the server is there."""
        self._there, self._since = True, None

    def lasts(self, pause: float, *, there: bool = False) -> bool:
        """Say whether to ask again after a pause.

        Args:
            pause: In seconds.
            there: Whether somebody answers, who is not ready yet.
        """
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now + pause < self._since + (self.seconds if self._there or there else self.first):
            return True
        self._since = -math.inf  # given up
        return False
