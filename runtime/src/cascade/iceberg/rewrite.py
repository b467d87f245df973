"""Copy rows of data files into new files, without those that go; a damaged file is never copied."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyiceberg.io.pyarrow import _to_requested_schema, pyarrow_to_schema
from pyiceberg.manifest import DataFile

from cascade.iceberg.damage import DamagedError, batches, refusal
from cascade.iceberg.head import SMALL_FILE
from cascade.iceberg.read import ROW, files_sql
from cascade.iceberg.staging import Staged, writing

if TYPE_CHECKING:
    import duckdb

__all__ = ["copy"]


def copy(connection: duckdb.DuckDBPyConnection, files: Iterable[DataFile], into: Staged, *, without: str = "") -> None:
    """Stage the rows of files again, in the columns that the table has now.

    Each file is read once, a batch at a time. Small files are joined; every other one becomes a file of its own, so
    that rows which lay together do so again.

    Args:
        connection: Finds the rows that go.
        files: The files.
        into: Where the rows are staged.
        without: The condition of the rows that go, in SQL on the columns of `old`; "" for none.

    Raises:
        SchemaMismatchError: A file is damaged: its copy would look sound.
    """
    with writing(into) as writer:
        for file in sorted(files, key=lambda file: file.file_size_in_bytes, reverse=True):
            stays = np.ones(file.record_count, bool)
            if without:
                rows = files_sql(into.schema, [file], position=True)
                gone = connection.sql(f"SELECT {ROW} FROM {rows} AS old WHERE {without}").fetchnumpy()
                stays[gone[ROW]] = False
            place = 0
            try:
                for batch in batches(into.io, file):
                    fitting = _to_requested_schema(into.schema, pyarrow_to_schema(batch.schema), batch)
                    stay = pa.array(stays[place : place + batch.num_rows])
                    writer.write(pa.Table.from_batches([fitting]).filter(stay))
                    place += batch.num_rows
            except DamagedError as damage:
                raise refusal(into.table, {file.file_path: str(damage)}) from damage
            writer.close(least=SMALL_FILE)
