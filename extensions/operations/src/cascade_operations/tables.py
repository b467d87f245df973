"""Tables of one reference: list them, show one of them, tell its history, and query them."""

from __future__ import annotations

import datetime as dt
import json
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from cascade.catalog import MAIN, open_catalog
from cascade.config import Settings
from cascade.errors import QueryError, UsageError
from cascade.names import (
    BRANCH_PROPERTY,
    KEY_PROPERTY,
    LOADED_PROPERTY,
    RESET_PROPERTY,
    ROWS_OF_PROPERTY,
    RUN_PROPERTY,
    SOURCE_STATE_PROPERTY,
)
from cascade_operations.check_states import check_states
from cascade_operations.events import Listener, ignore
from cascade_operations.owners import Owner, find_owners, owner_of
from cascade_operations.table_records import TableColumn, TableDetail, TableSnapshot, TableState

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

__all__ = ["dotted", "known_table", "list_tables", "parse_at", "query", "rows_in", "show_table", "table_history"]


def list_tables(settings: Settings, *, branch: str = MAIN, tell: Listener = ignore) -> tuple[TableState, ...]:
    """Return the tables of a branch or tag, by name.

    Args:
        settings: The project's settings.
        branch: The branch or tag.
        tell: Told when workflows and models have to be loaded, since they have changed.

    Raises:
        BranchNotFoundError: It does not exist.
    """
    catalog = open_catalog(settings)
    pointers = catalog.pointers(branch)
    owners = find_owners(settings, tell=tell) if pointers else {}
    return tuple(_state(catalog.load(name, at), name, owner_of(owners, name)) for name, at in sorted(pointers.items()))


def show_table(settings: Settings, table: str, *, branch: str = MAIN, tell: Listener = ignore) -> TableDetail:
    """Return all that is known of one table.

    Args:
        settings: The project's settings.
        table: `namespace.table`.
        branch: The branch or tag.
        tell: As for `list_tables`.

    Raises:
        UsageError: The branch does not have it.
        BranchNotFoundError: The branch does not exist.
    """
    from cascade.iceberg.properties import long_values
    from cascade.ingestion.quarantine import quarantine_table

    catalog = open_catalog(settings)
    pointers = catalog.pointers(branch)
    name = known_table(pointers, table, branch)
    found = catalog.load(name, pointers[name])
    owner, values = owner_of(find_owners(settings, tell=tell), name), long_values(found.metadata, found.io)
    aside = quarantine_table(name)
    spans = json.loads(values.get(LOADED_PROPERTY, "[]"))
    return TableDetail(
        state=_state(found, name, owner),
        columns=tuple(TableColumn(f.name, str(f.field_type), f.required, f.doc or None) for f in found.schema().fields),
        key=tuple(json.loads(values.get(KEY_PROPERTY, "[]"))),
        partitions=tuple(first if first == last else f"{first}..{last}" for first, last in spans),
        cursor=values.get(SOURCE_STATE_PROPERTY) or None,
        quarantined=(rows_in(catalog.load(aside, pointers[aside])) or 0) if aside in pointers else 0,
        files=_number(found.current_snapshot(), "total-data-files"),
        location=found.location(),
        checks=check_states(settings, found, name, owner, tell=tell),
        readers=owner.readers,
    )


def table_history(
    settings: Settings, table: str, *, branch: str = MAIN, limit: int | None = None
) -> tuple[TableSnapshot, ...]:
    """Return the states that a table was in, newest first, as far as they are kept.

    Args:
        settings: The project's settings.
        table: `namespace.table`.
        branch: The branch or tag.
        limit: At most so many; all by default.

    Raises:
        UsageError: The branch does not have it.
        BranchNotFoundError: The branch does not exist.
    """
    from cascade.iceberg.head import past

    catalog = open_catalog(settings)
    pointers = catalog.pointers(branch)
    name = known_table(pointers, table, branch)
    found: dict[int, TableSnapshot] = {}
    for state in past(catalog, name, catalog.load(name, pointers[name])):
        for snapshot in sorted(state.snapshots(), key=lambda one: one.sequence_number or 0, reverse=True):
            found.setdefault(snapshot.snapshot_id, _snapshot(snapshot))
        if limit is not None and len(found) >= limit:
            break
    return tuple(found.values())[:limit]


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


def dotted(table: str) -> str:
    """Return `namespace.table`, given that or `namespace/table`; a path is returned as it is, for messages."""
    return table.replace("/", ".") if table.count("/") == 1 and "." not in table else table


def known_table(pointers: dict[str, str], table: str, branch: str) -> str:
    """Return the name of a table of a branch, `namespace.table`, given that or `namespace/table`.

    Raises:
        UsageError: There is none; the message says which may be meant.
    """
    name = dotted(table)
    if name in pointers:
        return name
    same = [one for one in sorted(pointers) if name in one.split(".")]
    near = same or get_close_matches(name, pointers)
    known = ", ".join(sorted(pointers)) or "none"
    what = f"{branch} has no table {name}."
    if name == MAIN:
        what = f"`{name}` is a branch, not a table."
    elif "." not in name:
        what = f"{name!r} is not the name of a table: it has no namespace."
    elif not all(part.isidentifier() for part in name.split(".")):
        what = f"{name!r} is not the name of a table: that is namespace.table, of letters, digits and underscores."
    fix = f"did you mean {' or '.join(near)}?" if near else f"name one of its tables: {known}."
    raise UsageError(what, where=f"branch {branch}, {len(pointers)} tables", fix=fix)


def rows_in(table: Table) -> int | None:
    """Return how many rows a table has; 0 for one that was never written, `None` where its snapshot does not say it."""
    from cascade.iceberg.read import row_count

    head = table.current_snapshot()
    return row_count(head) if head else 0


def _state(table: Table, name: str, owner: Owner) -> TableState:
    from cascade.catalog import rows_of

    head = table.current_snapshot()
    wrote = table.metadata.snapshot_by_id(rows_of(table) or 0) or head
    return TableState(
        table=name,
        owner=owner.kind,
        rows=rows_in(table),
        bytes=_number(head, "total-files-size"),
        snapshots=max((one.sequence_number or 0 for one in table.metadata.snapshots), default=0),
        snapshot=head.snapshot_id if head else None,
        updated_at=_time(wrote.timestamp_ms if wrote else table.metadata.last_updated_ms),
        checks=len(owner.checks) + len(owner.warnings),
    )


def _snapshot(snapshot: Snapshot) -> TableSnapshot:
    from cascade.iceberg.read import row_count

    told: dict[str, Any] = snapshot.summary.additional_properties if snapshot.summary else {}
    operation = snapshot.summary.operation.value if snapshot.summary else "append"
    operation = "reset" if RESET_PROPERTY in told else "compact" if ROWS_OF_PROPERTY in told else operation
    return TableSnapshot(
        snapshot=snapshot.snapshot_id,
        at=_time(snapshot.timestamp_ms),
        operation=operation,
        rows=row_count(snapshot),
        added=int(told.get("added-records", 0)),
        removed=int(told.get("deleted-records", 0)),
        run=told.get(RUN_PROPERTY),
        branch=told.get(BRANCH_PROPERTY),
    )


def _number(snapshot: Snapshot | None, name: str) -> int | None:
    """Return an entry of a snapshot's summary; 0 without a snapshot."""
    if snapshot is None:
        return 0
    told = snapshot.summary.additional_properties.get(name) if snapshot.summary else None
    return None if told is None else int(told)


def _time(milliseconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
