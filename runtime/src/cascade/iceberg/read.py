"""Read the files of Iceberg tables with DuckDB, mapped by Iceberg field id."""

from __future__ import annotations

from collections.abc import Iterable

from pyiceberg import types as t
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.schema import Schema, index_by_id
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from cascade.duck.sql import identifier, literal, literals
from cascade.errors import SchemaMismatchError
from cascade.iceberg.types import duckdb_type

__all__ = ["FILE", "ROW", "files_sql", "float_ids", "require_positions", "row_count", "unmarked", "view_sql"]

#: Where a row is, beside its columns: the path of its file, this file's number in its list, and the row's in the file.
PATH = "_cascade_path"
FILE = "_cascade_file"
ROW = "_cascade_row"


def row_count(snapshot: Snapshot) -> int | None:
    """Return how many rows a snapshot has, by its own account; `None` when it gives none.

    Trino marks rows as deleted rather than rewrite their files; they are counted apart.
    """
    summary = snapshot.summary
    if summary is None or (total := summary["total-records"]) is None or int(summary["total-equality-deletes"] or 0):
        return None
    return int(total) - int(summary["total-position-deletes"] or 0)


def float_ids(schema: Schema) -> set[int]:
    """Return the ids of a schema's floating-point fields, nested ones included."""
    return {n for n, field in index_by_id(schema).items() if isinstance(field.field_type, t.FloatType | t.DoubleType)}


def files_sql(
    schema: Schema,
    files: Iterable[DataFile],
    *,
    columns: Iterable[str] | None = None,
    position: bool = False,
    through: str = "",
) -> str:
    """Return a table expression over Parquet files written for any earlier version of a schema.

    A renamed column is found by its field id, one that a file lacks is null.

    Args:
        schema: The table's schema.
        files: The files.
        columns: The columns to read; all by default.
        position: Whether to add the columns `PATH`, `FILE` and `ROW`.
        through: As for `view_sql`.
    """
    files = list(files)
    wanted = None if columns is None else set(columns)
    fields = [f for f in schema.fields if wanted is None or f.name in wanted]
    if not files:
        nothing = ", ".join(f"CAST(NULL AS {duckdb_type(f.field_type)}) AS {identifier(f.name)}" for f in fields)
        return f"(SELECT {nothing} WHERE false)"
    # By their ids, for DuckDB takes some names, such as `filename`, for columns of its own.
    mapping = ", ".join(
        f"{f.field_id}: {{name: '_{f.field_id}', type: {literal(duckdb_type(f.field_type))}, default_value: NULL}}"
        for f in fields
    )
    counted: set[int] = set().union(*(file.value_counts or () for file in files))
    names = [f"{_column(f, counted)} AS {identifier(f.name)}" for f in fields]
    extra = ""
    if position:
        names += [f"filename AS {PATH}", f"file_index AS {FILE}", f"file_row_number AS {ROW}"]
        extra = ", filename=true, file_row_number=true"
    paths = literals(file.file_path for file in files)
    return f"(SELECT {', '.join(names)} FROM read_parquet({through}([{paths}]), schema=MAP {{{mapping}}}{extra}))"


def view_sql(table: Table, snapshot_id: int | None = None, *, through: str = "") -> str:
    """Return a SELECT that reads one snapshot of a table; the newest by default.

    Args:
        table: The table.
        snapshot_id: The snapshot.
        through: Function of the DuckDB session that opens the files whose paths it is given, and returns the paths, for
            each statement that reads the view; by default they are opened now. Opening may refuse damaged ones.

    Raises:
        DamagedFileError: A file is not what was written; where the catalog compares files.
        SchemaMismatchError: Another engine has marked rows as deleted in a way that DuckDB cannot follow.
    """
    scan = table.scan(snapshot_id=snapshot_id)
    schema, tasks = scan.projection(), list(scan.plan_files())
    # The names are spelled out: a star over read_parquet would follow its own order of columns.
    columns = ", ".join(identifier(field.name) for field in schema.fields)
    for task in [] if through else tasks:
        for file in (task.file, *task.delete_files):
            table.io.new_input(file.file_path)
    whole = files_sql(schema, (task.file for task in tasks if not task.delete_files), through=through)
    sql = f"SELECT {columns} FROM {whole}"
    if marked := [task for task in tasks if task.delete_files]:
        deletes = {file.file_path: file for task in marked for file in task.delete_files}
        require_positions(table, deletes.values())
        rows = files_sql(schema, (task.file for task in marked), position=True, through=through)
        sql += f" UNION ALL SELECT {columns} FROM {rows} WHERE {unmarked(deletes.values(), through=through)}"
    return sql


def unmarked(deletes: Iterable[DataFile], *, through: str = "") -> str:
    """Return the condition of the rows that some files do not mark as deleted, in SQL on `PATH` and `ROW`."""
    paths = literals(file.file_path for file in deletes)
    gone = (
        f"SELECT 1 FROM read_parquet({through}([{paths}])) AS gone WHERE gone.file_path = {PATH} AND gone.pos = {ROW}"
    )
    return f"NOT EXISTS ({gone})" if paths else "true"


def _column(field: t.NestedField, counted: set[int]) -> str:
    """Return how to read a column.

    DuckDB skips files whose smallest and greatest value exclude what is asked for; NaN is in neither. Where Iceberg
    counts a column's values, the file may have such statistics: Trino's have, and those that we wrote once. DuckDB
    does not look at them through a TRY.
    """
    name = f"_{field.field_id}"
    return f"TRY({name})" if float_ids(Schema(field)) & counted else name


def require_positions(table: Table, deletes: Iterable[DataFile]) -> None:
    """Refuse marks of deleted rows that do not name rows by their place, in a Parquet file: `SchemaMismatchError`."""
    if any((d.content, d.file_format) != (DataFileContent.POSITION_DELETES, FileFormat.PARQUET) for d in deletes):
        raise SchemaMismatchError(
            "Rows of the table are marked as deleted in a way that Cascade cannot read.",
            where=f"table {'.'.join(table.name())}",
            fix="compact it with the engine that marked them (Trino: ALTER TABLE … EXECUTE optimize).",
        )
