"""Tables of one reference: list them, and query them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from cascade.catalog import MAIN, BranchingCatalog, open_catalog
from cascade.config import Settings
from cascade.errors import QueryError
from cascade_operations.records import TableState

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["list_tables", "parse_at", "query", "state_of"]


def list_tables(settings: Settings, *, branch: str = MAIN) -> tuple[TableState, ...]:
    """Return the tables of a branch or tag, by name.

    Args:
        settings: The project's settings.
        branch: The branch or tag.

    Raises:
        BranchNotFoundError: It does not exist.
    """
    catalog = open_catalog(settings)
    return tuple(state_of(catalog, name, at) for name, at in sorted(catalog.pointers(branch).items()))


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
    from cascade.engine import query as ask

    return ask(open_catalog(settings), branch, sql, at=parse_at(at) if at else None)


def parse_at(value: str) -> int | dt.datetime:
    """Read `--at`: digits are a snapshot's id, all else is an ISO date or time; without a zone it is UTC.

    Raises:
        QueryError: It is neither.
    """
    if value.isdigit() and len(value) > 8:
        return int(value)
    try:
        moment = dt.datetime.fromisoformat(value)
    except ValueError:
        raise QueryError(
            f"{value!r} is neither a snapshot's id nor a time.",
            fix="give an id such as 5464506120183620500, or a time such as 2026-07-01T12:00.",
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def state_of(catalog: BranchingCatalog, name: str, location: str) -> TableState:
    """Return a table of a reference, from where its metadata is."""
    from cascade.iceberg.read import row_count

    table = catalog.load(name, location)
    head = table.current_snapshot()
    return TableState(
        table=name,
        rows=row_count(head) if head else None,
        snapshot=head.snapshot_id if head else None,
        updated_at=dt.datetime.fromtimestamp(table.metadata.last_updated_ms / 1000, dt.UTC),
    )
