"""Tables of one reference: list them, query them, and read the rows that were set aside."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from cascade.catalog import MAIN, BranchingCatalog, open_catalog
from cascade.config import Settings
from cascade.errors import UsageError
from cascade.names import INGESTED_AT_COLUMN, QUARANTINE
from cascade_operations.records import QuarantinedRow, QuarantineTable, TableState

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["list_quarantine", "list_tables", "query", "read_quarantine"]

_QUARANTINE = f"{QUARANTINE}."


def list_tables(settings: Settings, *, branch: str = MAIN) -> tuple[TableState, ...]:
    """Return the tables of a branch or tag, by name.

    Args:
        settings: The project's settings.
        branch: The branch or tag.

    Raises:
        BranchNotFoundError: It does not exist.
    """
    catalog = open_catalog(settings)
    return tuple(_state(catalog, name, at) for name, at in sorted(catalog.pointers(branch).items()))


def query(settings: Settings, sql: str, *, branch: str = MAIN, at: str | None = None) -> pa.Table:
    """Run one SELECT and return its rows.

    Args:
        settings: The project's settings.
        sql: The statement, in the engine's SQL; tables are named `namespace.table`.
        branch: The branch or tag to read.
        at: Read the past: a snapshot's id, or an ISO time, which is UTC without a zone.

    Raises:
        QueryError: It writes, is invalid SQL, or names something that does not exist.
        BranchNotFoundError: The branch does not exist.
        ServiceError: The engine is a server that cannot be used.
    """
    from cascade.engine import parse_at
    from cascade.engine import query as ask

    return ask(open_catalog(settings), branch, sql, at=parse_at(at) if at else None)


def list_quarantine(settings: Settings, *, branch: str = MAIN) -> tuple[QuarantineTable, ...]:
    """Return the quarantine tables of a branch or tag, by name.

    Args:
        settings: The project's settings.
        branch: The branch or tag.

    Raises:
        BranchNotFoundError: It does not exist.
    """
    from cascade.ingestion.quarantine import quarantine_table

    catalog = open_catalog(settings)
    pointers = catalog.pointers(branch)
    table_of = {quarantine_table(table): table for table in pointers if not table.startswith(_QUARANTINE)}
    states = [_state(catalog, name, at) for name, at in sorted(pointers.items()) if name.startswith(_QUARANTINE)]
    return tuple(QuarantineTable(table_of.get(state.table), state.table, state.rows) for state in states)


def read_quarantine(
    settings: Settings, table: str, *, branch: str = MAIN, limit: int = 100
) -> tuple[QuarantinedRow, ...]:
    """Return rows of a table that were set aside, newest first.

    Args:
        settings: The project's settings.
        table: `namespace.table` that the rows were meant for, or the quarantine table itself.
        branch: The branch or tag.
        limit: At most so many rows.

    Raises:
        UsageError: No rows of this table are set aside on the branch.
        BranchNotFoundError: The branch does not exist.
    """
    known = list_quarantine(settings, branch=branch)
    wanted = table.replace("/", ".")
    name = next((q.quarantine for q in known if wanted in (q.table, q.quarantine)), None)
    if name is None:
        names = ", ".join(q.table or q.quarantine for q in known) or "none"
        raise UsageError(
            f"No rows of {table!r} are in quarantine on {branch}; the tables with such rows are: {names}.",
            fix="name one of them, or another branch with --branch.",
        )
    sql = f"SELECT * FROM {name} ORDER BY {INGESTED_AT_COLUMN} DESC LIMIT {limit:d}"
    found = query(settings, sql, branch=branch)
    return tuple(
        QuarantinedRow(
            partition=row["partition"],
            row=row["row"],
            reasons=tuple(row["reasons"] or ()),
            key=row.get("key"),
            run=row.get("run"),
            at=row[INGESTED_AT_COLUMN],
        )
        for row in found.to_pylist()
    )


def _state(catalog: BranchingCatalog, name: str, location: str) -> TableState:
    from cascade.iceberg.read import row_count

    table = catalog.load(name, location)
    head = table.current_snapshot()
    return TableState(
        table=name,
        rows=row_count(head) if head else None,
        snapshot=head.snapshot_id if head else None,
        updated_at=dt.datetime.fromtimestamp(table.metadata.last_updated_ms / 1000, dt.UTC),
    )
