"""The engine of a laptop: the catalog in a database, and SQL by DuckDB, in this process; it cannot write."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from cascade.engine.base import Engine
from cascade.engine.snapshots import explain_missing, only_reading, states
from cascade.engine.views import register_table
from cascade.errors import DamagedFileError, QueryError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from cascade.catalog import BranchingCatalog
    from cascade.config import Settings

__all__ = ["ENGINE"]


class _Embedded(Engine):
    """DuckDB is always there, and keeps nothing of a branch."""

    name = "embedded"
    label = "DuckDB"
    default_warehouse = ""

    def open_catalog(self, settings: Settings) -> BranchingCatalog:
        from cascade_embedded.catalog import EmbeddedCatalog

        return EmbeddedCatalog(settings)

    def query(
        self,
        catalog: BranchingCatalog,
        ref: str,
        sql: str,
        at: int | dt.datetime | None,
        parameters: list[object] | None,
    ) -> pa.Table:
        import duckdb

        try:
            with _session(catalog, ref, sql, at) as connection:
                return connection.sql(sql, params=parameters).to_arrow_table()
        except duckdb.Error as error:
            if not isinstance(error, duckdb.ParserException | duckdb.BinderException | duckdb.CatalogException):
                _require_whole(catalog, ref, at, sql)
            raise _explain(error, catalog, ref, at, sql) from error

    def regexp_match(self, column: str, pattern: str) -> str:
        return f"regexp_matches({column}, {pattern})"

    def await_ready(self, settings: Settings, tell: Callable[[str], None]) -> None:
        pass

    def forget(self, catalog: BranchingCatalog, ref: str) -> None:
        pass


#: What the entry point names.
ENGINE = _Embedded()


@contextlib.contextmanager
def _session(
    catalog: BranchingCatalog, ref: str, sql: str, at: int | dt.datetime | None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection that sees the tables that a statement names, and nothing else of this machine."""
    from cascade.duck.session import connect
    from cascade.duck.sql import identifier, literals

    namespaces: set[str] = set()

    def mentioned(names: Iterable[str]) -> list[str]:
        namespaces.update(name.split(".")[0] for name in names)
        return _mentioned(sql, names)

    tables = states(catalog, ref, at, mentioned)
    with connect() as connection:
        _require_read_only(connection, sql)
        # All of them: DuckDB would blame a table that is missing on a namespace that it does not know.
        for namespace in namespaces:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(namespace)}")
        for name, state in tables.items():
            register_table(connection, name, state.table, snapshot_id=state.snapshot_id)
        folders = literals(state.table.location() for state in tables.values())
        connection.execute(f"SET allowed_directories=[{folders}]")
        connection.execute("SET enable_external_access=false")
        connection.execute("SET lock_configuration=true")
        yield connection


def _mentioned(sql: str, names: Iterable[str]) -> list[str]:
    """Return the tables whose name occurs in a statement; more than it reads, never fewer."""
    words = set(re.findall(r"\w+", sql.lower()))
    everything = bool(words & {"information_schema", "duckdb_tables", "duckdb_views"})
    return [name for name in names if everything or name.split(".")[1].lower() in words]


def _require_whole(catalog: BranchingCatalog, ref: str, at: int | dt.datetime | None, sql: str) -> None:
    """Refuse the damaged files of the tables of a statement; the error names the tables, which DuckDB's does not."""
    from cascade.iceberg.damage import require_whole

    for name, state in states(catalog, ref, at, lambda names: _mentioned(sql, names)).items():
        tasks = state.table.scan(snapshot_id=state.snapshot_id).plan_files()
        try:
            require_whole(state.table.io, [file for task in tasks for file in (task.file, *task.delete_files)])
        except DamagedFileError as error:
            where = f"table {name}, {error.where}"
            raise DamagedFileError(error.what, where=where, fix=error.fix) from error


def _require_read_only(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    import duckdb

    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryError(str(error).strip(), where="the statement", fix="correct the SQL.") from error
    kinds = [str(statement.type).rpartition(".")[2] for statement in statements]
    if kinds != ["SELECT"]:
        raise only_reading(kinds)


def _explain(
    error: Exception, catalog: BranchingCatalog, ref: str, at: int | dt.datetime | None, sql: str
) -> QueryError:
    message, fix = str(error).strip(), "correct the SQL."
    # DuckDB leaves the namespace out, and suggests tables of its own.
    if missing := re.match(r'Catalog Error: Table with name "?(\S+?)"? does not exist(!| because schema)', message):
        named = re.search(rf'"?\w+"?\s*\.\s*"?{re.escape(missing[1])}\b"?', sql, re.IGNORECASE)
        message = f"Table {named[0] if named else missing[1]} does not exist."
    if "able" in message and "does not exist" in message:
        fix = explain_missing(catalog, ref, at)
    elif "file system operations are disabled" in message.lower() or "Permission Error" in message:
        fix = "read tables of the lakehouse only; files come in through a workflow."
    return QueryError(message, where=f"branch {ref}", fix=fix)
