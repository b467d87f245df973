"""One SELECT on a branch by Trino, each table at the snapshot it had when the query began."""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from cascade.catalog import MAIN, BranchingCatalog
from cascade.engine.snapshots import State, explain_missing, states
from cascade.errors import QueryError
from cascade.names import run_branch
from cascade_servers.trino.catalogs import catalog_name, drop_catalog, ensure_catalog
from cascade_servers.trino.server import Answer, Refused, server_of
from cascade_servers.trino.statements import Statement, parse

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["query"]

# A promotion in the middle of a query may replace a table, and its snapshots with it: the query starts again.
_ATTEMPTS = 3
_MOVED = ("INVALID_ARGUMENTS", "TABLE_NOT_FOUND", "ICEBERG_INVALID_METADATA", "ICEBERG_MISSING_METADATA")
_NO_CATALOG = "CATALOG_NOT_FOUND"


def query(
    catalog: BranchingCatalog, ref: str, sql: str, at: int | dt.datetime | None, parameters: list[object] | None
) -> pa.Table:
    """Run one SELECT; see `cascade.engine.query`."""
    statement = _parse(catalog, ref, sql)
    for attempt in range(_ATTEMPTS):
        tables = states(catalog, ref, at, statement.mentioned)
        try:
            text = statement.at(tables)
        except LookupError as error:
            raise QueryError(
                f"Table {error.args[0]} does not exist.", where=f"branch {ref}", fix=explain_missing(catalog, ref, at)
            ) from None
        try:
            with _catalog_with(catalog, ref, at, tables) as catalog_ref:
                answer = _run(catalog, catalog_ref, text, parameters)
        except Refused as error:
            if error.name in _MOVED and attempt < _ATTEMPTS - 1 and _moved(catalog, ref, at, tables):
                continue
            raise _explain(error, catalog, ref) from None
        return answer.table(_as_written([column["name"] for column in answer.columns], tables))
    raise AssertionError("unreachable")


def _parse(catalog: BranchingCatalog, ref: str, sql: str) -> Statement:
    try:
        return parse(sql)
    except SyntaxError as error:
        # Trino knows best what is wrong with it. To validate a statement is not to run it.
        try:
            _run(catalog, ref, f"EXPLAIN (TYPE VALIDATE) {sql}", None)
        except Refused as refused:
            raise _explain(refused, catalog, ref) from None
        raise QueryError(
            f"Cascade cannot find the tables of this statement: {error}",
            where="the statement",
            fix="write it in simpler words; a dbt model may use all of Trino's SQL.",
        ) from None


def _run(catalog: BranchingCatalog, ref: str, sql: str, parameters: list[object] | None) -> Answer:
    """Run a statement in the catalog of a reference, which is created when it is missing."""
    server, name = server_of(catalog.settings), catalog_name(ref)
    try:
        return server.read(sql, catalog=name, parameters=parameters)
    except Refused as error:
        # A statement that names no table is answered without it.
        if error.name != _NO_CATALOG or f"'{name}'" not in str(error):
            raise
    return server.read(sql, catalog=ensure_catalog(catalog.settings, ref), parameters=parameters)


@contextlib.contextmanager
def _catalog_with(
    catalog: BranchingCatalog, ref: str, at: int | dt.datetime | None, tables: Mapping[str, State]
) -> Iterator[str]:
    """Find a reference through which Trino sees the states of tables: usually the one that is asked for."""
    if at is None:
        yield ref
        return
    now = catalog.pointers(ref)
    lost = {
        name: state.table.metadata_location for name, state in tables.items() if not _holds(catalog, name, state, now)
    }
    if not lost:
        yield ref
        return
    # Dropped since, restored to an earlier state, or with so many newer snapshots that it lists this one no more: shown
    # on a branch of its own for as long as the query takes. The janitor takes it for one of a run, should this process
    # be killed.
    past = run_branch(secrets.token_hex(4))
    catalog.create(past, ref)
    try:
        reference = catalog.open(past)
        for name, location in lost.items():
            if name in now:
                reference.drop_table(name)
            reference.register_table(name, location)
        yield past
    finally:
        catalog.delete(past)
        drop_catalog(catalog.settings, past)


def _holds(catalog: BranchingCatalog, name: str, state: State, now: Mapping[str, str]) -> bool:
    """Say whether a table in its current state still has the snapshot that is to be read."""
    if name not in now:
        return False
    wanted = state.snapshot_id or state.table.metadata.current_snapshot_id
    if now[name] == state.table.metadata_location or wanted is None:
        return True
    return catalog.load(name, now[name]).metadata.snapshot_by_id(wanted) is not None


def _moved(catalog: BranchingCatalog, ref: str, at: int | dt.datetime | None, tables: Mapping[str, State]) -> bool:
    now = catalog.pointers(ref, at=at if ref == MAIN and isinstance(at, dt.datetime) else None)
    return any(now.get(name) != state.table.metadata_location for name, state in tables.items())


def _as_written(names: list[str], tables: Mapping[str, State]) -> list[str]:
    """Give columns the capitals that their table has: Trino knows names in lower case only."""
    capitals: dict[str, set[str]] = {}
    for state in tables.values():
        for field in state.schema.fields:
            capitals.setdefault(field.name.lower(), set()).add(field.name)
    return [next(iter(found)) if len(found := capitals.get(name, {name})) == 1 else name for name in names]


def _explain(error: Refused, catalog: BranchingCatalog, ref: str) -> QueryError:
    fix = "correct the SQL."
    if error.name in ("TABLE_NOT_FOUND", "SCHEMA_NOT_FOUND"):
        fix = explain_missing(catalog, ref)
    elif error.name == _NO_CATALOG:
        fix = "name tables `namespace.table`; another branch is read by asking for that branch."
    elif error.name == "PERMISSION_DENIED":
        fix = "let CASCADE_TRINO__USER be a user who may read it."
    elif not error.name.startswith(("SYNTAX", "TYPE_", "COLUMN", "FUNCTION", "INVALID", "DIVISION", "MISMATCHED")):
        fix = "see the query in Trino's own web interface, or in its log."
    return QueryError(f"{error.name}: {error}", where=f"branch {ref}, on Trino", fix=fix)
