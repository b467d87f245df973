"""What operations on tables return: frozen records."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cascade_operations.records import Move, RunReport

__all__ = ["AffectedTable", "CheckState", "TableAction", "TableColumn", "TableDetail", "TableSnapshot", "TableState"]


@dataclass(frozen=True)
class TableState:
    """A table as a reference has it.

    Attributes:
        table: `namespace.table`.
        owner: What makes it: `workflow`, `model`, `seed`, `snapshot` or `quarantine`; `orphan`: nothing of the project
            does; `unknown`: a file of the project cannot be used, and might.
        rows: How many rows it has; `None` where the snapshot does not say it.
        bytes: Size of its files; `None` where the snapshot does not say it.
        snapshots: How many snapshots it has had.
        snapshot: Id of its current snapshot; `None` for a table that was never written.
        updated_at: When its rows were last changed, in UTC.
        checks: How many checks are on it.
    """

    table: str
    owner: str
    rows: int | None
    bytes: int | None
    snapshots: int
    snapshot: int | None
    updated_at: dt.datetime
    checks: int


@dataclass(frozen=True)
class TableColumn:
    """A column of a table.

    Attributes:
        name: Its name.
        type: Its Iceberg type.
        required: Whether each row has a value.
        description: What it means; `None` where nobody has said it.
    """

    name: str
    type: str
    required: bool
    description: str | None


@dataclass(frozen=True)
class CheckState:
    """The last result of a check on a table: the one on its current rows, if there is one.

    Attributes:
        check: Its name.
        blocking: Whether it keeps a branch from being promoted; else it only warns.
        state: `passed`, `failed`, `warned`, `never ran`, or `unknown`: Dagster's records cannot be read. A blocking
            check may warn, too, as a contract does that sets rows aside.
        at: When it ran, in UTC; `None` without a result.
        branch: The branch that it ran on; `None` where that is not recorded.
        current: Whether it ran on the rows that the table has now.
    """

    check: str
    blocking: bool
    state: Literal["passed", "failed", "warned", "never ran", "unknown"] = "never ran"
    at: dt.datetime | None = None
    branch: str | None = None
    current: bool = False


@dataclass(frozen=True)
class TableDetail:
    """All that is known of one table of a reference.

    Attributes:
        state: What `list_tables` says of it.
        columns: Its columns.
        key: Columns that name a row, where rows are merged.
        partitions: Ranges of the partitions that are loaded, `first..last`, empty ones included.
        cursor: What its source keeps from load to load, as text; `None` without it.
        quarantined: Rows of its loads that were set aside.
        files: How many data files it has; `None` where the snapshot does not say it.
        location: Its folder.
        checks: Its checks and their last results; those that block a promotion first.
        readers: Assets that read it, `namespace/table`.
    """

    state: TableState
    columns: tuple[TableColumn, ...]
    key: tuple[str, ...]
    partitions: tuple[str, ...]
    cursor: str | None
    quarantined: int
    files: int | None
    location: str
    checks: tuple[CheckState, ...]
    readers: tuple[str, ...]


@dataclass(frozen=True)
class TableSnapshot:
    """A state that a table was in.

    Attributes:
        snapshot: Its id; `cascade query --at` reads it.
        at: When it was committed, in UTC.
        operation: `append`, `overwrite` or `delete`, as Iceberg calls it; `reset`; `compact`: other files, same rows.
        rows: Rows of the table then; `None` where the snapshot does not say it.
        added: Rows in the files that it added, copied ones included.
        removed: Rows in the files that it removed, copied ones included.
        run: Id of the Dagster run; `None` when it was none.
        branch: The branch that was written; `None` where it is not known.
    """

    snapshot: int
    at: dt.datetime
    operation: str
    rows: int | None
    added: int
    removed: int
    run: str | None
    branch: str | None


@dataclass(frozen=True)
class AffectedTable:
    """A table that is dropped, renamed or reset.

    Attributes:
        table: `namespace.table`.
        owner: What makes it, as `TableState` says it.
        rows: How many rows it has; `None` where the snapshot does not say it.
        becomes: Its new name; `None` unless it is renamed.
        readers: Assets that read it, `namespace/table`.
    """

    table: str
    owner: str
    rows: int | None
    becomes: str | None
    readers: tuple[str, ...]


@dataclass(frozen=True)
class TableAction:
    """What became of tables, or would become of them in a dry run.

    Attributes:
        action: `drop`, `rename`, `reset` or `refresh`.
        tables: The tables, with those of the rows that were set aside.
        conflicts: Open branches that have changed one of them: they cannot be promoted afterwards.
        branch: The branch that was written; `None` for a dry run.
        branch_kept: Whether it is still there: it ends with its promotion.
        move: The move of `main`; `None` when it did not move.
        published: Marts that were written, or whose database was, and their rows.
        report: What the run did, where checks had to run.
    """

    action: Literal["drop", "rename", "reset", "refresh"]
    tables: tuple[AffectedTable, ...]
    conflicts: tuple[str, ...]
    branch: str | None = None
    branch_kept: bool = False
    move: Move | None = None
    published: Mapping[str, int] = field(default_factory=dict)
    report: RunReport | None = None
