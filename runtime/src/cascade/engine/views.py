"""Show Iceberg tables as views of a DuckDB connection."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb
    from pyiceberg.table import Table

__all__ = ["register_table"]

_OPENED = "cascade_opened"
# Whether this thread creates a view, which DuckDB plans, too: of a thousand tables most are not read.
_creating = threading.local()


def register_table(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    table: Table,
    *,
    database: str = "",
    snapshot_id: int | None = None,
) -> None:
    """Show an Iceberg table as the view `namespace.table` of a DuckDB connection.

    A statement that reads it opens its files through PyIceberg first, whose access may refuse damaged ones.

    Args:
        connection: The connection.
        name: `namespace.table`.
        table: The table.
        database: Attached database to create the view in; the default one when empty.
        snapshot_id: The snapshot to show; the newest by default.
    """
    import duckdb

    from cascade.duck.session import reach
    from cascade.duck.sql import identifier
    from cascade.iceberg.read import view_sql

    def opened(paths: list[str]) -> list[str]:
        for path in [] if getattr(_creating, "view", False) else paths:
            table.io.new_input(path)
        return paths

    reach(connection, table.io)
    # One that exists came with another table of the same warehouse.
    with contextlib.suppress(duckdb.NotImplementedException, duckdb.CatalogException):
        connection.create_function(_OPENED, opened, ["VARCHAR[]"], "VARCHAR[]")
    prefix = f"{identifier(database)}." if database else ""
    namespace, view = (identifier(part) for part in name.split("."))
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {prefix}{namespace}")
    rows = view_sql(table, snapshot_id, through=_OPENED)
    _creating.view = True
    try:
        connection.execute(f"CREATE OR REPLACE VIEW {prefix}{namespace}.{view} AS {rows}")
    finally:
        _creating.view = False
