"""Read the files of Iceberg tables with DuckDB, mapped by Iceberg field id."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pyiceberg import types as t
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.schema import Schema, index_by_id
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from cascade.errors import SchemaMismatchError

if TYPE_CHECKING:
    import duckdb

__all__ = [
    "FILE",
    "ROW",
    "connect",
    "duckdb_type",
    "files_sql",
    "float_ids",
    "quote",
    "reach",
    "row_count",
    "spill",
    "text",
    "texts",
    "view_sql",
]

#: Where a row is, beside its columns: the path of its file, and its number there.
FILE = "_cascade_file"
ROW = "_cascade_row"

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


def texts(values: Iterable[str]) -> str:
    """Return values as an SQL list of string literals."""
    return f"[{', '.join(map(text, values))}]"


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


def float_ids(schema: Schema) -> set[int]:
    """Return the ids of a schema's floating-point fields, nested ones included."""
    return {n for n, field in index_by_id(schema).items() if isinstance(field.field_type, t.FloatType | t.DoubleType)}


def files_sql(
    schema: Schema, files: Iterable[DataFile], *, columns: Iterable[str] | None = None, position: bool = False
) -> str:
    """Return a table expression over Parquet files written for any earlier version of a schema.

    A renamed column is found by its field id, one that a file lacks is null.

    Args:
        schema: The table's schema.
        files: The files.
        columns: The columns to read; all by default.
        position: Whether to add the columns `FILE` and `ROW`.
    """
    files = list(files)
    wanted = None if columns is None else set(columns)
    fields = [f for f in schema.fields if wanted is None or f.name in wanted]
    if not files:
        nothing = ", ".join(f"CAST(NULL AS {duckdb_type(f.field_type)}) AS {quote(f.name)}" for f in fields)
        return f"(SELECT {nothing} WHERE false)"
    # By their ids, for DuckDB takes some names, such as `filename`, for columns of its own.
    mapping = ", ".join(
        f"{f.field_id}: {{name: '_{f.field_id}', type: {text(duckdb_type(f.field_type))}, default_value: NULL}}"
        for f in fields
    )
    counted: set[int] = set().union(*(file.value_counts or () for file in files))
    names = [f"{_column(f, counted)} AS {quote(f.name)}" for f in fields]
    extra = ""
    if position:
        names += [f"filename AS {FILE}", f"file_row_number AS {ROW}"]
        extra = ", filename=true, file_row_number=true"
    paths = texts(file.file_path for file in files)
    return f"(SELECT {', '.join(names)} FROM read_parquet({paths}, schema=MAP {{{mapping}}}{extra}))"


def view_sql(table: Table, snapshot_id: int | None = None) -> str:
    """Return a SELECT that reads one snapshot of a table; the newest by default.

    Raises:
        SchemaMismatchError: Another engine has marked rows as deleted in a way that DuckDB cannot follow.
    """
    scan = table.scan(snapshot_id=snapshot_id)
    schema, tasks = scan.projection(), list(scan.plan_files())
    # The names are spelled out: a star over read_parquet would follow its own order of columns.
    columns = ", ".join(quote(field.name) for field in schema.fields)
    whole = files_sql(schema, (task.file for task in tasks if not task.delete_files))
    sql = f"SELECT {columns} FROM {whole}"
    if marked := [task for task in tasks if task.delete_files]:
        deletes = {file.file_path: file for task in marked for file in task.delete_files}
        _require_positions(table, deletes.values())
        rows = files_sql(schema, (task.file for task in marked), position=True)
        gone = (
            f"SELECT 1 FROM read_parquet({texts(deletes)}) AS gone WHERE gone.file_path = {FILE} AND gone.pos = {ROW}"
        )
        sql += f" UNION ALL SELECT {columns} FROM {rows} WHERE NOT EXISTS ({gone})"
    return sql


def _column(field: t.NestedField, counted: set[int]) -> str:
    """Return how to read a column.

    DuckDB skips files whose smallest and greatest value exclude what is asked for; NaN is in neither. Where Iceberg
    counts a column's values, the file may have such statistics: Trino's have, and those that we wrote once. DuckDB
    does not look at them through a TRY.
    """
    name = f"_{field.field_id}"
    return f"TRY({name})" if float_ids(Schema(field)) & counted else name


def _require_positions(table: Table, deletes: Iterable[DataFile]) -> None:
    """Refuse what does not name rows by their place in a Parquet file."""
    if any((d.content, d.file_format) != (DataFileContent.POSITION_DELETES, FileFormat.PARQUET) for d in deletes):
        raise SchemaMismatchError(
            "Rows of the table are marked as deleted in a way that Cascade cannot read.",
            where=f"table {'.'.join(table.name())}",
            fix="compact it with the engine that marked them (Trino: ALTER TABLE … EXECUTE optimize).",
        )
