"""Take turns: locks that end with the process that holds them."""

from __future__ import annotations

import abc
from contextlib import AbstractContextManager

__all__ = ["Locks"]


class Locks(abc.ABC):
    """Named locks between processes. A thread may take one that it holds already."""

    @abc.abstractmethod
    def hold(self, name: str) -> AbstractContextManager[object]:
        """Wait for a lock and hold it."""

    @abc.abstractmethod
    def lease(self, target: str, holder: str) -> AbstractContextManager[None]:
        """Hold the right to work towards a branch, or refuse at once; see `BranchingCatalog.lease`."""
