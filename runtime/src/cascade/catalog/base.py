"""Open the catalog; create, merge and drop branches. One interface, PyIceberg at the edges."""

from __future__ import annotations

import abc
import contextlib
import datetime as dt
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, Protocol

from cascade.catalog import merge
from cascade.catalog.changes import Branch, LogEntry, TableChange, same_rows
from cascade.catalog.locks import Locks
from cascade.config import REFERENCE_NAME, REFERENCE_NAME_RULE, Settings
from cascade.errors import CatalogError
from cascade.names import MAIN
from cascade.plugins import load

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

__all__ = ["MAIN", "BranchingCatalog", "CatalogOpener", "check_reference_name", "check_table_name", "open_catalog"]

# What every implementation takes: Nessie wants a letter first, and no dot at the end or beside another.
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class BranchingCatalog(abc.ABC):
    """A catalog with branches: every state of all tables has a name.

    A table is named `namespace.table`, a state of a table by the location of its Iceberg metadata file.

    Attributes:
        settings: Those that it was opened with.
    """

    settings: Settings
    _locks: Locks

    @abc.abstractmethod
    def open(self, ref: str) -> Catalog:
        """Return the PyIceberg catalog of one reference. Tables of `main` and of tags refuse commits.

        Raises:
            BranchNotFoundError: There is no such reference.
        """

    @abc.abstractmethod
    def branches(self) -> list[Branch]:
        """Return all references, `main` first, then by name."""

    @abc.abstractmethod
    def exists(self, name: str) -> bool:
        """Say whether there is a reference of this name."""

    def create(self, name: str, source: str = MAIN, *, at: dt.datetime | None = None) -> None:
        """Create a branch that begins with the tables of another reference; no data is copied.

        Args:
            name: Its name.
            source: The reference.
            at: Only for `main`: its tables as they were then, as for `pointers`.

        Raises:
            CatalogError: The name is taken, or is invalid; or files of that time are gone.
            BranchNotFoundError: The source does not exist.
        """
        self._start(name, source, "branch", at)

    def tag(self, name: str, ref: str = MAIN, *, at: dt.datetime | None = None) -> None:
        """Create a tag: a branch that nobody writes. Arguments and errors are those of `create`."""
        self._start(name, ref, "tag", at)

    def create_if_missing(self, name: str) -> bool:
        """Create the branch from `main` unless it exists; say whether it was created."""
        return not self.exists(name) and self._create(check_reference_name(name), MAIN, "branch", None)

    def delete(self, name: str) -> None:
        """Delete a branch or tag. Its data files stay for garbage collection.

        Raises:
            CatalogError: It is `main`.
            BranchNotFoundError: There is no such reference.
        """
        if name == MAIN:
            raise CatalogError(
                "`main` cannot be deleted.", fix="name another branch; `cascade branch list` shows them."
            )
        self._delete(name)

    @abc.abstractmethod
    def pointers(self, ref: str, *, at: dt.datetime | None = None) -> dict[str, str]:
        """Return the current metadata location of every table of a reference, all read at one moment.

        Args:
            ref: Branch or tag.
            at: Only for `main`: as it was then, by the log of promotions. Time zone aware.

        Returns:
            `namespace.table` to metadata location.

        Raises:
            BranchNotFoundError: There is no such reference.
        """

    @abc.abstractmethod
    def load(self, table: str, location: str) -> Table:
        """Open a table in the state that a metadata location names, for reading."""

    def same_rows(self, table: str, one: str, other: str) -> bool:
        """Say whether two states of a table, by location, differ in nothing but their files and their history."""
        return same_rows(self.load(table, one), self.load(table, other))

    @abc.abstractmethod
    def diff(self, before: str, after: str) -> list[TableChange]:
        """Return the tables that differ between two references, by name."""

    @abc.abstractmethod
    def changes(self, name: str) -> list[TableChange]:
        """Return which tables a branch changed since it was created or last promoted."""

    def put_back(self, name: str, tables: Mapping[str, str | None]) -> None:
        """Let tables of a branch be as they were.

        Args:
            name: The branch.
            tables: Their metadata locations then; `None` for a table that was not there.
        """
        reference, now = self.open(name), self.pointers(name)
        for table, location in tables.items():
            if now.get(table) != location:
                if table in now:
                    reference.drop_table(table)
                if location is not None:
                    reference.register_table(table, location)

    @abc.abstractmethod
    def merge(
        self, source: str, target: str = MAIN, *, expected: Iterable[TableChange] | None = None
    ) -> LogEntry | None:
        """Move every table that changed on the source to the target, all or none.

        Args:
            source: The branch to apply.
            target: The branch that moves.
            expected: The changes that the caller has checked; if the source has others by now, nothing moves.

        Returns:
            The entry of the log; `None` when there was nothing to move.

        Raises:
            PromotionConflictError: The target changed the same tables since the source was created; all are named.
        """

    @abc.abstractmethod
    def log(self, target: str = MAIN, *, limit: int | None = None) -> list[LogEntry]:
        """Return the moves of a branch, newest first."""

    def restore(self, entry: int, target: str = MAIN) -> LogEntry | None:
        """Bring a branch back to its state right after an entry of its log; 0 means before the first.

        Returns:
            The new entry of the log; `None` when nothing has changed since.

        Raises:
            CatalogError: The log has no such entry, or garbage collection has removed files of that state.
        """
        with self.history_lock():
            return self._restore(entry, target)

    def history_lock(self) -> AbstractContextManager[object]:
        """Lock the log: garbage collection forgets no old state while a branch is restored to it."""
        return self.table_lock("cascade.history")

    def lease(self, target: str, holder: str) -> AbstractContextManager[None]:
        """Hold the right to run a pipeline against a branch; ends with the process, however it ends.

        Args:
            target: The branch.
            holder: Who asks; the error for the next one names it.

        Raises:
            LeaseHeldError: Another process holds it; the message names it.
        """
        return self._locks.lease(check_reference_name(target), holder)

    def table_lock(self, table: str) -> AbstractContextManager[object]:
        """Lock a table while a commit is planned and made, so that concurrent writers wait for each other."""
        return self._locks.hold(f"table-{check_table_name(table)}")

    def _start(self, name: str, source: str, kind: Literal["branch", "tag"], at: dt.datetime | None) -> None:
        # What was promoted then must not be removed as garbage in between.
        with self.history_lock() if at else contextlib.nullcontext():
            if not self._create(check_reference_name(name), source, kind, at):
                raise merge.taken_error(name)

    @abc.abstractmethod
    def _create(self, name: str, source: str, kind: Literal["branch", "tag"], at: dt.datetime | None) -> bool:
        """Create a reference unless one has this name; say whether it was created."""

    @abc.abstractmethod
    def _delete(self, name: str) -> None:
        """Delete a reference that is not `main`."""

    @abc.abstractmethod
    def _restore(self, entry: int, target: str) -> LogEntry | None:
        """Restore a branch; the log is locked."""


class CatalogOpener(Protocol):
    """What an engine does for catalogs; the rest of it is `cascade.engine.Engine`."""

    def open_catalog(self, settings: Settings) -> BranchingCatalog:
        """Open the catalog of a project, which this engine reads; it is created when it does not exist yet.

        Args:
            settings: The project's settings.
        """


def open_catalog(settings: Settings) -> BranchingCatalog:
    """Open the catalog of a project by its engine; it is created when it does not exist yet.

    Args:
        settings: The project's settings.

    Raises:
        CatalogError: The data folder was moved, or cannot be written.
        ServiceError: A server that keeps the catalog cannot be used.
    """
    return load("cascade.engines", settings.engine, CatalogOpener, where="setting `engine`").open_catalog(settings)


def check_reference_name(name: str) -> str:
    """Return the name of a branch or tag if it is one.

    Raises:
        CatalogError: It is not.
    """
    if not REFERENCE_NAME.fullmatch(name):
        raise CatalogError(f"{name!r} is not a name for a branch or tag.", fix=REFERENCE_NAME_RULE)
    return name


def check_table_name(table: str) -> str:
    """Return `namespace.table` if it is one.

    A name becomes a folder of the warehouse, so it must not be able to leave it.

    Raises:
        CatalogError: It is not.
    """
    parts = table.split(".")
    if len(parts) != 2 or not all(_IDENTIFIER.fullmatch(part) for part in parts):
        raise CatalogError(
            f"{table!r} is not the name of a table.",
            fix="use namespace.table of letters, digits and underscores; for example raw.weather_observations.",
        )
    return table
