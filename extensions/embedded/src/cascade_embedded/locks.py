"""Locks between the processes of one machine, in files; and what any lease says of its holder."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from cascade.catalog.locks import Locks
from cascade.errors import LeaseHeldError

__all__ = ["WAIT_SECONDS", "FileLocks", "describe_holder", "lease_held"]

#: Seconds that a writer waits for its turn.
WAIT_SECONDS = 600


class FileLocks(Locks):
    """Operating system locks in a folder: they end with the process, also when that is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def hold(self, name: str) -> FileLock:
        """Wait for a lock and hold it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # One object per file and process: a second one would wait for the first for ever.
        return FileLock(str(self._folder / f"{name}.lock"), timeout=WAIT_SECONDS, is_singleton=True)

    @contextlib.contextmanager
    def lease(self, target: str, holder: str) -> Iterator[None]:
        """Hold the right to work towards a branch."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(self._folder / f"lease-{target}.lock"), timeout=0)
        note = self._folder / f"lease-{target}.holder"
        try:
            lock.acquire()
        except Timeout:
            raise lease_held(
                target, note.read_text("utf-8") if note.exists() else "", str(self._folder.parent)
            ) from None
        try:
            note.write_text(describe_holder(holder), "utf-8")
            yield
        finally:
            note.unlink(missing_ok=True)
            lock.release()


def describe_holder(holder: str) -> str:
    """Say who holds a lease: in their words, with process, machine and time."""
    return f"{holder}, process {os.getpid()} on {socket.gethostname()}, since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def lease_held(target: str, who: str, where: str) -> LeaseHeldError:
    """Return the error for a caller that is refused a lease; `who` holds it, `where` it is kept."""
    return LeaseHeldError(
        f"Another pipeline run is working towards `{target}`: {who or 'another process'}.",
        where=where,
        fix="wait for it to end, or stop it, then run again.",
    )
