"""Run SQL on a branch. DuckDB computes, in this process; it cannot write."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cascade.catalog import MAIN, BranchingCatalog
from cascade.errors import QueryError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    from pyiceberg.table import Table

__all__ = ["parse_at", "query", "register_tables"]


def query(
    lake: BranchingCatalog,
    ref: str,
    sql: str,
    *,
    at: int | dt.datetime | None = None,
    parameters: list[object] | None = None,
) -> pa.Table:
    """Run one SELECT on a reference and return its rows.

    All tables are read as they stood at one moment, so half a promotion is never seen.

    Args:
        lake: The catalog.
        ref: Branch or tag.
        sql: One statement that reads; tables are named `namespace.table`.
        at: A snapshot's id, for the table that has it; or a time: on `main` all tables as they were
            promoted then, elsewhere each table's newest snapshot until then.
        parameters: Values for the `?` in the statement.

    Raises:
        QueryError: It writes, is no SQL, or names something that does not exist.
        BranchNotFoundError: There is no such reference.
    """
    import duckdb

    with _session(lake, ref, sql, at) as connection:
        try:
            return connection.sql(sql, params=parameters).to_arrow_table()
        except duckdb.Error as error:
            raise _explain(error, lake, ref, sql) from error


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


def register_tables(connection: duckdb.DuckDBPyConnection, tables: dict[str, Table], *, database: str = "") -> None:
    """Show Iceberg tables as views `namespace.table` of a DuckDB connection.

    Args:
        connection: The connection.
        tables: `namespace.table` to the table.
        database: Attached database to make them in; the default one when empty.
    """
    for name, table in tables.items():
        register_table(connection, name, table, database=database)


def register_table(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    table: Table,
    *,
    database: str = "",
    snapshot_id: int | None = None,
) -> None:
    """Show one Iceberg table as a view; see `register_tables`."""
    from cascade.iceberg.read import quote, reach, view_sql

    reach(connection, table.io)
    prefix = f"{quote(database)}." if database else ""
    namespace, view = (quote(part) for part in name.split("."))
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {prefix}{namespace}")
    connection.execute(f"CREATE OR REPLACE VIEW {prefix}{namespace}.{view} AS {view_sql(table, snapshot_id)}")


@contextlib.contextmanager
def _session(
    lake: BranchingCatalog, ref: str, sql: str, at: int | dt.datetime | None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection that sees the tables that a statement names, and nothing else of this machine."""
    from cascade.iceberg.read import connect, text

    moment = at if isinstance(at, dt.datetime) else None
    pointers = lake.pointers(ref, at=moment if ref == MAIN else None)
    tables = {name: lake.load(name, pointers[name]) for name in _mentioned(sql, pointers)}
    snapshots = _snapshots(tables, ref, at)
    with connect() as connection:
        _require_read_only(connection, sql)
        for name, table in tables.items():
            if moment is not None and ref != MAIN and snapshots.get(name) is None:
                continue  # the table has no snapshot that old
            register_table(connection, name, table, snapshot_id=snapshots.get(name))
        folders = ", ".join(text(table.location()) for table in tables.values())
        connection.execute(f"SET allowed_directories=[{folders}]")
        connection.execute("SET enable_external_access=false")
        connection.execute("SET lock_configuration=true")
        yield connection


def _mentioned(sql: str, names: dict[str, str]) -> list[str]:
    """Return the tables whose name occurs in a statement; more than it reads, never fewer."""
    words = set(re.findall(r"\w+", sql.lower()))
    everything = bool(words & {"information_schema", "duckdb_tables", "duckdb_views", "show"})
    return [name for name in names if everything or name.split(".")[1].lower() in words]


def _snapshots(tables: dict[str, Table], ref: str, at: int | dt.datetime | None) -> dict[str, int]:
    """Return which snapshot of which table to read, where it is not the newest."""
    if isinstance(at, int):
        found = {name: at for name, table in tables.items() if table.metadata.snapshot_by_id(at) is not None}
        if not found:
            raise QueryError(
                f"No table of this statement has snapshot {at}.",
                where=f"branch {ref}, tables {', '.join(tables) or 'none'}",
                fix="take an id from the table's history, or give a time instead.",
            )
        return found
    if at is None or ref == MAIN:
        return {}
    milliseconds = int(at.timestamp() * 1000)
    held = {name: table.snapshot_as_of_timestamp(milliseconds) for name, table in tables.items()}
    return {name: snapshot.snapshot_id for name, snapshot in held.items() if snapshot is not None}


def _require_read_only(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    import duckdb

    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryError(str(error).strip(), where="the statement", fix="correct the SQL.") from error
    kinds = [str(statement.type).rpartition(".")[2] for statement in statements]
    if kinds != ["SELECT"]:
        raise QueryError(
            f"Only one statement that reads is allowed, not {' and '.join(kinds) or 'an empty one'}.",
            where="the statement",
            fix="write data with a workflow or a dbt model: every write goes through a branch and its checks.",
        )


def _explain(error: Exception, lake: BranchingCatalog, ref: str, sql: str) -> QueryError:
    message = str(error).strip()
    fix = "correct the SQL."
    if "does not exist" in message and "able" in message:
        fix = (
            f"the tables of `{ref}` are {', '.join(sorted(lake.pointers(ref))) or 'none yet: run the pipeline first'}."
        )
    elif "file system operations are disabled" in message.lower() or "Permission Error" in message:
        fix = "read tables of the lakehouse only; files come in through a workflow."
    return QueryError(message, where=f"branch {ref}", fix=fix)
