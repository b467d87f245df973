"""References, states of tables and moves of branches, as records."""

from __future__ import annotations

import datetime as dt
import getpass
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cascade.names import ROWS_OF_PROPERTY

if TYPE_CHECKING:
    from pyiceberg.table import Table

__all__ = ["Branch", "LogEntry", "TableChange", "compare", "rows_of", "same_rows", "user_name"]


@dataclass(frozen=True)
class Branch:
    """A reference: a branch, or a tag, which is a branch that nobody writes.

    Attributes:
        name: Its name.
        kind: `branch` or `tag`.
        source: The reference it was created from; empty for `main`.
        created_at: When, in UTC.
        changed: How many tables it changed since it was created or last promoted.
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
        by: Whose process moved it; empty where that is not known.
    """

    id: int
    at: dt.datetime
    kind: Literal["promote", "restore"]
    source: str
    target: str
    changes: tuple[TableChange, ...]
    by: str = ""


def user_name() -> str:
    """Return the system's name of whoever runs this process; empty where it has none, as in some containers."""
    with suppress(ImportError, KeyError, OSError):
        return getpass.getuser()
    return ""


def compare(before: Mapping[str, str], after: Mapping[str, str]) -> list[TableChange]:
    """Return the tables whose metadata location differs, by name."""
    return [
        TableChange(table, before.get(table), after.get(table))
        for table in sorted(before.keys() | after.keys())
        if before.get(table) != after.get(table)
    ]


def rows_of(table: Table) -> int | None:
    """Return the snapshot that first held a table's rows as they are: compaction makes another one of them."""
    head = table.current_snapshot()
    if head is None or head.summary is None:
        return head.snapshot_id if head else None
    return int(head.summary.additional_properties.get(ROWS_OF_PROPERTY, head.snapshot_id))


def same_rows(one: Table, other: Table) -> bool:
    """Say whether two states of a table differ in nothing but its files and its history."""
    a, b = (
        (m.table_uuid, m.schema(), m.spec(), m.sort_order_by_id(m.default_sort_order_id), m.properties, rows_of(table))
        for table in (one, other)
        for m in (table.metadata,)
    )
    return a == b
