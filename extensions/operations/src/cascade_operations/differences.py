"""Which rows of a table two of its states do not share; files that both have are not read."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile
from pyiceberg.table import DataScan

from cascade.catalog import rows_of
from cascade.names import COLUMN_PREFIX, KEY_PROPERTY

if TYPE_CHECKING:
    from pyiceberg.table import FileScanTask, Table

__all__ = ["RowChanges", "compare_columns", "compare_rows"]


@dataclass(frozen=True)
class RowChanges:
    """How the rows of two states differ.

    Attributes:
        added: Rows that only the second state has; with a key, those whose key only it has.
        removed: Rows that only the first state has, likewise.
        changed: Rows whose key both have, with other values; `None` without a key.
    """

    added: int
    removed: int
    changed: int | None

    @property
    def any(self) -> bool:
        """Whether a row differs."""
        return bool(self.added or self.removed or self.changed)


def compare_columns(before: Table, after: Table) -> tuple[str, ...]:
    """Return the columns that differ: `+name` was added, `-name` dropped, `~name` has another type."""
    old, new = ({f.name: str(f.field_type) for f in one.schema().fields} for one in (before, after))
    gone = [f"-{name}" for name in old if name not in new]
    return (*gone, *(f"{'~' if name in old else '+'}{name}" for name in new if old.get(name) != new[name]))


def compare_rows(before: Table, after: Table, *, spill_to: Path) -> RowChanges:
    """Compare the rows of two states of a table, in the columns that both have.

    Columns of Cascade, such as when a run loaded the row, do not count.

    Args:
        before: The first state.
        after: The second state.
        spill_to: Folder for what does not fit into memory.
    """
    from cascade.duck.session import connect
    from cascade.duck.sql import identifier

    key = _key(before, after)
    if rows_of(before) == rows_of(after):
        return RowChanges(0, 0, 0 if key else None)
    io = _LocalFiles() if after.metadata_location.startswith("/") else after.io
    old, new = (_differing(one, other, io) for one, other in ((before, after), (after, before)))
    columns = []
    for name in sorted(_names(before) & _names(after)):
        types = {str(one.schema().find_field(name).field_type) for one in (before, after)}
        value = identifier(name) if len(types) == 1 else f"CAST({identifier(name)} AS VARCHAR)"
        columns += [] if name.startswith(COLUMN_PREFIX) else [f"{value} AS {identifier(name)}"]
    selected = ", ".join(columns) or "1 AS nothing"
    keys = ", ".join(map(identifier, key))
    same = f"SELECT count(*) FROM come WHERE ({keys}) IN (SELECT ({keys}) FROM gone)" if key else "SELECT 0"
    spill_to.mkdir(parents=True, exist_ok=True)
    with connect(spill_to, io=io) as connection:
        ((gone, come, changed),) = connection.execute(
            f"WITH old AS (SELECT {selected} FROM {_rows(before, old)}),"
            f" new AS (SELECT {selected} FROM {_rows(after, new)}),"
            " gone AS MATERIALIZED (FROM old EXCEPT ALL FROM new), come AS MATERIALIZED (FROM new EXCEPT ALL FROM old)"
            f" SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM come), ({same})"
        ).fetchall()
    return RowChanges(come - changed, gone - changed, changed if key else None)


def _key(before: Table, after: Table) -> tuple[str, ...]:
    """Return the columns that name a row, where both states have them."""
    key = tuple(json.loads(after.properties.get(KEY_PROPERTY, "[]")))
    return key if {*key} <= _names(before) & _names(after) else ()


def _names(table: Table) -> set[str]:
    return {field.name for field in table.schema().fields}


class _LocalFile(InputFile):
    def __len__(self) -> int:
        return os.path.getsize(self.location)

    def exists(self) -> bool:
        return os.path.exists(self.location)

    def open(self, seekable: bool = True) -> InputStream:
        return cast(InputStream, open(self.location, "rb"))


class _LocalFiles(FileIO):
    """Reads a local warehouse without Arrow, whose import takes longer than a comparison."""

    def new_input(self, location: str) -> InputFile:
        return _LocalFile(location)

    def new_output(self, location: str) -> OutputFile:
        raise NotImplementedError("nothing is written here")

    def delete(self, location: str | InputFile | OutputFile) -> None:
        raise NotImplementedError("nothing is deleted here")


def _differing(one: Table, other: Table, io: FileIO) -> list[FileScanTask]:
    """Return the files of a state, with the marks of their deleted rows, that another state does not have so."""
    mine, theirs = (list(DataScan(table_metadata=each.metadata, io=io).plan_files()) for each in (one, other))
    shared = {_name(task) for task in theirs}
    return [task for task in mine if _name(task) not in shared]


def _name(task: FileScanTask) -> tuple[str, frozenset[str]]:
    return task.file.file_path, frozenset(file.file_path for file in task.delete_files)


def _rows(table: Table, tasks: Sequence[FileScanTask]) -> str:
    """Return a table expression over the rows of files that are not marked as deleted."""
    from cascade.iceberg.read import files_sql, require_positions, unmarked

    schema, files = table.schema(), [task.file for task in tasks]
    deletes = {file.file_path: file for task in tasks for file in task.delete_files}
    if not deletes:
        return files_sql(schema, files)
    require_positions(table, deletes.values())
    kept = unmarked(deletes.values())
    return f"(SELECT * FROM {files_sql(schema, files, position=True)} WHERE {kept})"
