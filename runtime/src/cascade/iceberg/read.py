"""Read the files of Iceberg tables with DuckDB, mapped by Iceberg field id."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pyiceberg import types as t
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

if TYPE_CHECKING:
    import duckdb

__all__ = ["connect", "duckdb_type", "files_sql", "quote", "reach", "row_count", "spill", "text", "view_sql"]

_PRIMITIVES: dict[type[t.IcebergType], str] = {
    t.BooleanType: "BOOLEAN",
    t.IntegerType: "INTEGER",
    t.LongType: "BIGINT",
    t.FloatType: "FLOAT",
    t.DoubleType: "DOUBLE",
    t.DateType: "DATE",
    t.TimeType: "TIME",
    t.TimestampType: "TIMESTAMP",
    t.TimestamptzType: "TIMESTAMPTZ",
    t.StringType: "VARCHAR",
    t.UUIDType: "UUID",
    t.BinaryType: "BLOB",
    t.FixedType: "BLOB",
}


def connect(spill_to: Path | None = None, io: FileIO | None = None) -> duckdb.DuckDBPyConnection:
    """Open an in-memory DuckDB whose session time zone is UTC, as Iceberg's timestamps are.

    Args:
        spill_to: Folder for what does not fit into memory.
        io: Where the files are that it will read.
    """
    import duckdb

    connection = duckdb.connect(":memory:")
    connection.execute("SET TimeZone='UTC'")
    # Rows are sets here; keeping the order of files would cost memory for nothing.
    connection.execute("SET preserve_insertion_order=false")
    connection.execute("SET enable_progress_bar=false")
    if spill_to is not None:
        spill(connection, spill_to)
    if io is not None:
        reach(connection, io)
    return connection


def spill(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Let a connection spill what does not fit into memory, apart from others: they would share file names."""
    connection.execute(f"SET temp_directory={text(str(folder / uuid.uuid4().hex))}")


def reach(connection: duckdb.DuckDBPyConnection, io: FileIO) -> None:
    """Let a connection read files on S3 as PyIceberg does, without an extension that would have to be downloaded."""
    if not isinstance(io, PyArrowFileIO) or "s3.region" not in io.properties:
        return
    from cascade.iceberg.s3 import S3FileSystem

    if "s3" not in connection.list_filesystems():
        connection.register_filesystem(S3FileSystem(io.fs_by_scheme("s3", None)))


def row_count(snapshot: Snapshot) -> int | None:
    """Return how many rows a snapshot has, by its own account; `None` when it gives none.

    Trino marks rows as deleted rather than rewrite their files; they are counted apart.
    """
    summary = snapshot.summary
    if summary is None or (total := summary["total-records"]) is None or int(summary["total-equality-deletes"] or 0):
        return None
    return int(total) - int(summary["total-position-deletes"] or 0)


def quote(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Return a value as an SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def duckdb_type(kind: t.IcebergType) -> str:
    """Return the DuckDB name of an Iceberg type.

    Raises:
        ValueError: DuckDB has no such type.
    """
    if name := _PRIMITIVES.get(type(kind)):
        return name
    match kind:
        case t.DecimalType():
            return f"DECIMAL({kind.precision},{kind.scale})"
        case t.ListType():
            return f"{duckdb_type(kind.element_type)}[]"
        case t.MapType():
            return f"MAP({duckdb_type(kind.key_type)}, {duckdb_type(kind.value_type)})"
        case t.StructType():
            return f"STRUCT({', '.join(f'{quote(f.name)} {duckdb_type(f.field_type)}' for f in kind.fields)})"
    raise ValueError(f"DuckDB cannot read the Iceberg type {kind}")


def files_sql(
    schema: Schema, paths: Iterable[str], *, columns: Iterable[str] | None = None, position: bool = False
) -> str:
    """Return a table expression over Parquet files written for any earlier version of a schema.

    A renamed column is found by its field id, one that a file lacks is null.

    Args:
        schema: The table's schema.
        paths: The files.
        columns: The columns to read; all by default.
        position: Whether to add `filename` and `file_row_number`.
    """
    wanted = None if columns is None else set(columns)
    fields = [f for f in schema.fields if wanted is None or f.name in wanted]
    files = ", ".join(text(path) for path in paths)
    extra = ", filename=true, file_row_number=true" if position else ""
    if not files:
        nothing = ", ".join(f"CAST(NULL AS {duckdb_type(f.field_type)}) AS {quote(f.name)}" for f in fields)
        return f"(SELECT {nothing} WHERE false)"
    mapping = ", ".join(
        f"{f.field_id}: {{name: {text(f.name)}, type: {text(duckdb_type(f.field_type))}, default_value: NULL}}"
        for f in fields
    )
    return f"read_parquet([{files}], schema=MAP {{{mapping}}}{extra})"


def view_sql(table: Table, snapshot_id: int | None = None) -> str:
    """Return a SELECT that reads one snapshot of a table; the newest by default.

    Raises:
        NotImplementedError: Another engine has written delete files, which DuckDB does not apply.
    """
    scan = table.scan(snapshot_id=snapshot_id)
    schema, tasks = scan.projection(), list(scan.plan_files())
    if any(task.delete_files for task in tasks):
        raise NotImplementedError(
            f"{'.'.join(table.name())} has delete files; compact it with the engine that wrote them"
        )
    # The names are spelled out: a star over read_parquet would follow its own order of columns.
    columns = ", ".join(quote(field.name) for field in schema.fields)
    return f"SELECT {columns} FROM {files_sql(schema, (task.file.file_path for task in tasks))}"
