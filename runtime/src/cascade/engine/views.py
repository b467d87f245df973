"""Show Iceberg tables as views of a DuckDB connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb
    from pyiceberg.table import Table

__all__ = ["register_table"]


def register_table(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    table: Table,
    *,
    database: str = "",
    snapshot_id: int | None = None,
) -> None:
    """Show an Iceberg table as the view `namespace.table` of a DuckDB connection.

    Args:
        connection: The connection.
        name: `namespace.table`.
        table: The table.
        database: Attached database to create the view in; the default one when empty.
        snapshot_id: The snapshot to show; the newest by default.
    """
    from cascade.duck.session import reach
    from cascade.duck.sql import identifier
    from cascade.iceberg.read import view_sql

    reach(connection, table.io)
    prefix = f"{identifier(database)}." if database else ""
    namespace, view = (identifier(part) for part in name.split("."))
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {prefix}{namespace}")
    connection.execute(f"CREATE OR REPLACE VIEW {prefix}{namespace}.{view} AS {view_sql(table, snapshot_id)}")
