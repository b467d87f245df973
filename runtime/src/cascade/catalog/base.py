"""Open the catalog; create, merge and drop branches. One interface, PyIceberg at the edges."""

from __future__ import annotations

import abc
import contextlib
import datetime as dt
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from cascade.config import REFERENCE_NAME, REFERENCE_NAME_RULE, Settings
from cascade.errors import BranchNotFoundError, CatalogError
from cascade.names import MAIN
from cascade.plugins import load

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

__all__ = [
    "MAIN",
    "Branch",
    "BranchingCatalog",
    "CatalogOpener",
    "Locations",
    "LogEntry",
    "TableChange",
    "check_reference_name",
    "check_table_name",
    "compare",
    "open_catalog",
]

# What every implementation takes: Nessie wants a letter first, and no dot at the end or beside another.
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


@dataclass(frozen=True)
class Branch:
    """A reference: a branch, or a tag, which is a branch that nobody writes.

    Attributes:
        name: Its name.
        kind: `branch` or `tag`.
        source: The reference it was made from; empty for `main`.
        created_at: When, in UTC.
        changed: How many tables differ from the state it was made from.
    """

    name: str
    kind: Literal["branch", "tag"]
    source: str
    created_at: dt.datetime
    changed: int


@dataclass(frozen=True)
class TableChange:
    """One table that differs between two states.

    Attributes:
        table: `namespace.table`.
        before: Metadata location on the first side; `None` where the table does not exist.
        after: Metadata location on the second side; `None` where the table does not exist.
    """

    table: str
    before: str | None
    after: str | None

    @property
    def kind(self) -> Literal["created", "changed", "dropped"]:
        """What happened to the table."""
        if self.before is None:
            return "created"
        return "dropped" if self.after is None else "changed"


@dataclass(frozen=True)
class LogEntry:
    """One move of a branch: a promotion, or a restore.

    Attributes:
        id: Number of the entry, growing.
        at: When, in UTC.
        kind: `promote` or `restore`.
        source: The promoted branch, or the restored entry's number.
        target: The branch that moved.
        changes: The tables that moved, all at once.
    """

    id: int
    at: dt.datetime
    kind: Literal["promote", "restore"]
    source: str
    target: str
    changes: tuple[TableChange, ...]


@dataclass(frozen=True)
class Locations:
    """The metadata locations that a catalog still needs; all files that no such state holds are garbage.

    Attributes:
        standing: Those that a reference stands at, and those that it was made from.
        history: Those that only the log names: to restore them, or to read `main` as it stood.
    """

    standing: frozenset[str]
    history: frozenset[str]


class BranchingCatalog(abc.ABC):
    """A catalog with branches: every state of all tables has a name.

    A table is named `namespace.table`, a state of a table by the location of its Iceberg metadata file.

    Attributes:
        settings: Those that it was opened with.
    """

    settings: Settings

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

    @abc.abstractmethod
    def create(self, name: str, source: str = MAIN) -> None:
        """Make a branch that starts as another reference stands now; no data is copied.

        Raises:
            CatalogError: The name is taken, or is no name.
            BranchNotFoundError: The source does not exist.
        """

    @abc.abstractmethod
    def ensure(self, name: str) -> bool:
        """Make the branch from `main` unless it exists; say whether it was made."""

    @abc.abstractmethod
    def tag(self, name: str, ref: str = MAIN) -> None:
        """Make a tag: a branch frozen as a reference stands now. Raises as `create` does."""

    @abc.abstractmethod
    def delete(self, name: str) -> None:
        """Drop a branch or tag. Its data files stay for garbage collection.

        Raises:
            CatalogError: It is `main`.
            BranchNotFoundError: There is no such reference.
        """

    @abc.abstractmethod
    def pointers(self, ref: str, *, at: dt.datetime | None = None) -> dict[str, str]:
        """Return where every table of a reference stands, read in one statement.

        Args:
            ref: Branch or tag.
            at: Only for `main`: as it stood then, by the log of promotions. Time zone aware.

        Returns:
            `namespace.table` to metadata location.

        Raises:
            BranchNotFoundError: There is no such reference.
        """

    @abc.abstractmethod
    def load(self, table: str, location: str) -> Table:
        """Open a table in the state that a metadata location names, for reading."""

    @abc.abstractmethod
    def diff(self, before: str, after: str) -> list[TableChange]:
        """Return the tables that differ between two references, by name."""

    @abc.abstractmethod
    def changes(self, name: str) -> list[TableChange]:
        """Return what a branch holds unpromoted: its tables against the state it was made from."""

    @abc.abstractmethod
    def merge(
        self, source: str, target: str = MAIN, *, expected: Iterable[TableChange] | None = None
    ) -> LogEntry | None:
        """Move every table that changed on the source to the target, all or none.

        Args:
            source: The branch to apply.
            target: The branch that moves.
            expected: The changes that the caller has checked; when the source holds others by now,
                nothing moves.

        Returns:
            The entry of the log; `None` when there was nothing to move.

        Raises:
            PromotionConflictError: Tables of the target moved since the source was made; all are named.
        """

    @abc.abstractmethod
    def log(self, target: str = MAIN, *, limit: int | None = None) -> list[LogEntry]:
        """Return the moves of a branch, newest first."""

    @abc.abstractmethod
    def restore(self, entry: int, target: str = MAIN) -> LogEntry | None:
        """Put a branch back to where it stood right after an entry of its log; 0 means before the first.

        Returns:
            The new entry of the log; `None` when nothing has changed since.

        Raises:
            CatalogError: The log has no such entry, or garbage collection has removed what stood there then.
        """

    def locations(self, since: dt.datetime) -> Locations:
        """Return the metadata locations that are still needed.

        Args:
            since: States that branches left before then are not needed any more. Time zone aware.
        """
        standing: set[str] = set()
        history: set[str] = set()
        # `main` comes last: what a promotion moves meanwhile is seen on the one side or on the other.
        for reference in reversed(self.branches()):
            with contextlib.suppress(BranchNotFoundError):  # dropped meanwhile
                standing.update(self.pointers(reference.name).values())
                _add_sides(standing, self.changes(reference.name))
                for entry in self.log(reference.name) if reference.kind == "branch" else ():
                    if entry.at >= since:
                        _add_sides(history, entry.changes)
        return Locations(frozenset(standing), frozenset(history - standing))

    def history_lock(self) -> AbstractContextManager[object]:
        """Hold the log: garbage collection forgets no old state while a branch is restored to it."""
        return self.table_lock("cascade.history")

    @abc.abstractmethod
    def lease(self, target: str, holder: str) -> AbstractContextManager[None]:
        """Hold the right to run a pipeline against a branch; ends with the process, however it ends.

        Args:
            target: The branch.
            holder: Who asks, in words that help whoever is refused.

        Raises:
            LeaseHeldError: Somebody else holds it; the message names them.
        """

    @abc.abstractmethod
    def table_lock(self, table: str) -> AbstractContextManager[object]:
        """Hold a table while a commit is planned and made, so that concurrent writers take turns."""


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
    return load("cascade.engines", settings.engine, CatalogOpener, setting="engine").open_catalog(settings)


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


def _add_sides(found: set[str], changes: Iterable[TableChange]) -> None:
    found.update(side for change in changes for side in (change.before, change.after) if side is not None)


def compare(before: Mapping[str, str], after: Mapping[str, str]) -> list[TableChange]:
    """Return the tables whose metadata location differs, by name."""
    return [
        TableChange(table, before.get(table), after.get(table))
        for table in sorted(before.keys() | after.keys())
        if before.get(table) != after.get(table)
    ]
