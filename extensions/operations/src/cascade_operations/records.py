"""What operations return: frozen records, and the one way in which a record becomes JSON."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from cascade.catalog import LogEntry

__all__ = [
    "AssetResult",
    "CheckResult",
    "LoadedRows",
    "MainMove",
    "Move",
    "QuarantineDrop",
    "QuarantineReplay",
    "QuarantineTable",
    "QuarantinedRow",
    "RunReport",
    "SchemaPlan",
    "SchemaStep",
    "TableDiff",
    "to_document",
]


@dataclass(frozen=True)
class LoadedRows:
    """Where the rows of a load went: extracted = loaded + quarantined + duplicates.

    Attributes:
        extracted: Rows that the function returned.
        loaded: Rows that were written to the table.
        quarantined: Rows that were set aside.
        duplicates: Rows left out because a later one has the same key.
        replaced: Rows of the table that the load replaced.
        quarantine: The table with the rows that were set aside; empty when there were none.
    """

    extracted: int
    loaded: int
    quarantined: int
    duplicates: int
    replaced: int
    quarantine: str = ""


@dataclass(frozen=True)
class AssetResult:
    """One materialized asset.

    Attributes:
        asset: Its key, `namespace/table`.
        rows: Rows in its table now; `None` where that is unknown.
        load: Where its rows went, for an ingestion.
    """

    asset: str
    rows: int | None
    load: LoadedRows | None


@dataclass(frozen=True)
class CheckResult:
    """One evaluated check.

    Attributes:
        asset: Key of the asset that it checks.
        check: Its name.
        passed: Whether it passed.
        blocking: Whether its failure keeps the branch from being promoted.
        description: What it says, in words.
    """

    asset: str
    check: str
    passed: bool
    blocking: bool
    description: str


@dataclass(frozen=True)
class Move:
    """One move of a branch: an entry of its log.

    Attributes:
        id: Number of the entry, growing.
        at: When, in UTC.
        kind: `promote` or `restore`.
        source: The promoted branch, or the restored entry's number.
        tables: The tables that moved, all at once, as `namespace.table`.
        by: Whose process moved it; empty where that is not known.
    """

    id: int
    at: dt.datetime
    kind: Literal["promote", "restore"]
    source: str
    tables: tuple[str, ...]
    by: str = ""

    @classmethod
    def of(cls, entry: LogEntry) -> Move:
        """Return the move that an entry of the catalog's log tells of."""
        return cls(
            entry.id, entry.at, entry.kind, entry.source, tuple(change.table for change in entry.changes), entry.by
        )


@dataclass(frozen=True)
class RunReport:
    """What a run did.

    Attributes:
        branch: The branch that it wrote.
        branch_kept: Whether that branch is still there: it ends with its promotion, or when nothing is on it.
            `None`: the catalog does not answer.
        run_ids: Ids of the Dagster runs; one, unless assets with different partitions take part.
        success: Whether everything succeeded.
        interrupted: Whether it was stopped by Ctrl+C.
        assets: What was materialized, in order.
        checks: What was checked, in order.
        failures: Why steps failed, in words.
        partitions: First and last partition of the run, `first..last`, by asset.
        up_to_date: Ingestion assets whose partitions are all loaded.
        left_out: Models that were not computed, since nothing has changed for them, and when each was made.
        always: Models that every run computes, since they may depend on more than the tables they read, and why.
        published: Marts that were published although `main` did not move, and their rows.
        promotion: The move of `main`; `None` when it did not move.
        marts: Where the marts were published, without a password; `None` without a promotion.
        followed: What was done after the promotion, or why it could not be, by what did it, such as `maintain`.
        seconds: Duration by step, in seconds.
    """

    branch: str
    branch_kept: bool | None
    run_ids: tuple[str, ...]
    success: bool
    interrupted: bool
    assets: tuple[AssetResult, ...]
    checks: tuple[CheckResult, ...]
    failures: tuple[str, ...]
    partitions: Mapping[str, str]
    up_to_date: tuple[str, ...]
    left_out: Mapping[str, dt.datetime]
    always: Mapping[str, str]
    published: Mapping[str, int]
    promotion: Move | None
    marts: str | None
    followed: Mapping[str, str]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class MainMove:
    """What a promotion or a restore did.

    Attributes:
        move: The move of `main`; `None` when it was in that state already.
        published: The marts that were written, as `namespace.table`, with their rows.
        followed: What was done after a promotion, or why it could not be, by what did it, such as `maintain`.
    """

    move: Move | None
    published: Mapping[str, int]
    followed: Mapping[str, str]


@dataclass(frozen=True)
class TableDiff:
    """A table that differs between two states; rows and snapshots are `None` where the table does not exist.

    Attributes:
        table: `namespace.table`.
        kind: `created`, `changed` or `dropped`; `identical`: it was written, and holds the same rows and columns.
        rows_before: Rows on the first side; `None` too where the snapshot does not say it.
        rows_after: Rows on the second side.
        snapshot_before: Id of the snapshot on the first side.
        snapshot_after: Id of the snapshot on the second side.
        added: Rows that only the second side has; with a key, those whose key only it has.
        removed: Rows that only the first side has, likewise.
        changed: Rows whose key both sides have, with other values; `None` where no key is known.
        columns: Columns that were added (`+name`), dropped (`-name`) or have another type (`~name`).
    """

    table: str
    kind: Literal["created", "changed", "dropped", "identical"]
    rows_before: int | None
    rows_after: int | None
    snapshot_before: int | None
    snapshot_after: int | None
    added: int | None
    removed: int | None
    changed: int | None
    columns: tuple[str, ...]


@dataclass(frozen=True)
class QuarantineTable:
    """Rows that loads of a table have set aside.

    Attributes:
        table: The table that they were meant for; `None` if the reference does not have it.
        quarantine: The table that holds them, in the namespace `quarantine`.
        rows: How many there are; `None` where the snapshot does not say it.
    """

    table: str | None
    quarantine: str
    rows: int | None


@dataclass(frozen=True)
class QuarantinedRow:
    """A row that was set aside.

    Attributes:
        id: Names the row in a file of mended rows, as `_cascade_id`.
        partition: Its partition, or those of the run, `first..last`.
        row: The row as JSON text.
        reasons: Why it was set aside.
        key: Values of its unique key as a JSON list; `None` where one is missing.
        run: Id of the Dagster run.
        source: The function that fetched it, or the file that it was replayed from.
        at: When the run set it aside, in UTC.
    """

    id: str
    partition: str
    row: str
    reasons: tuple[str, ...]
    key: str | None
    run: str | None
    source: str | None
    at: dt.datetime


@dataclass(frozen=True)
class QuarantineReplay:
    """What became of rows that were loaded again from quarantine: rows = loaded + outdated + failed.

    Attributes:
        table: The table, as `namespace.table`.
        rows: Rows that were chosen.
        loaded: Rows that are in the table now, or would be, without those that another one of them replaced.
        outdated: Rows left out, since a row with their key was loaded later, or comes later among them.
        failed: Rows that break the contract as it is now; they stay in quarantine, with these reasons.
        left: Rows of the table that stay in quarantine, the failed ones included.
        unknown: Rows of the file that belong to no row in quarantine, such as those of an earlier replay; left out.
        stale: Assets with partitions that depend on the table; they were not computed again.
        report: What the run did; `None` for a dry run.
    """

    table: str
    rows: int
    loaded: int
    outdated: int
    failed: tuple[QuarantinedRow, ...]
    left: int
    unknown: int
    stale: tuple[str, ...]
    report: RunReport | None


@dataclass(frozen=True)
class QuarantineDrop:
    """What was dropped from quarantine.

    Attributes:
        table: The table that the rows were meant for, or the quarantine table where that is gone.
        rows: Rows that were dropped.
        left: Rows that stay in quarantine.
        move: The move of `main`.
    """

    table: str
    rows: int
    left: int
    move: Move | None


@dataclass(frozen=True)
class SchemaStep:
    """What happens to one column, so that a table has the columns of its contract.

    Attributes:
        action: `add`, `widen`, `rename`, `drop`, `narrow` or `retype` (of a model): what is done. `decide`: what a
            person has to say first. `keep`: a column that only the table has, and that may stay.
        column: The column, as the table has it; the new one where it is added.
        before: Its type in the table; `None` where it is added.
        after: Its type in the contract; `None` where the contract does not have it.
        note: What it becomes, or what is to be said.
        reaches: The columns of other tables that come from it, `namespace.table.column`, through whatever tables, if
            the table on `main` loses its name, type or values.
    """

    action: Literal["add", "widen", "rename", "drop", "narrow", "retype", "decide", "keep"]
    column: str
    before: str | None
    after: str | None
    note: str
    reaches: tuple[str, ...] = ()


@dataclass(frozen=True)
class SchemaPlan:
    """How the columns of a table become those of its contract.

    Attributes:
        table: `namespace.table`.
        steps: What happens to each column that differs.
        undecided: How many of them a person has to decide.
        report: What the run did that changed the table; `None` when nothing was changed.
    """

    table: str
    steps: tuple[SchemaStep, ...]
    undecided: int
    report: RunReport | None = None


def to_document(value: object) -> Any:
    """Return a record, or several, as JSON has them.

    Times are ISO 8601 texts, bytes hexadecimal text; decimals are numbers, or text where a double would lose digits;
    NaN and infinity, which JSON does not have, are null. A table of PyArrow is an array of objects. Fields that
    `repr` leaves out are left out.

    Args:
        value: A record, or whatever its fields hold.
    """
    arrow = sys.modules.get("pyarrow")
    if arrow and isinstance(value, arrow.Table):
        value = value.to_pylist()
    found: Any = value
    if isinstance(value, float | decimal.Decimal):
        found = float(value) if math.isfinite(value) else None
        if found is not None and isinstance(value, decimal.Decimal) and decimal.Decimal(repr(found)) != value:
            found = int(value) if value == value.to_integral_value() else str(value)
    elif isinstance(value, Mapping):
        found = {str(key): to_document(inner) for key, inner in value.items()}
    elif isinstance(value, list | tuple):
        found = [to_document(inner) for inner in value]
    elif is_dataclass(value):
        found = {field.name: to_document(getattr(value, field.name)) for field in fields(value) if field.repr}
    elif isinstance(value, dt.date | dt.time):
        found = value.isoformat()
    elif isinstance(value, bytes):
        found = value.hex()
    elif not isinstance(value, str | int | None):
        found = str(value)
    return found
