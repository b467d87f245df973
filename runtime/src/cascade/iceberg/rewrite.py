"""Copy rows of data files into new files, without those that go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import _to_requested_schema, pyarrow_to_schema
from pyiceberg.manifest import DataFile

from cascade.iceberg.head import SMALL_FILE
from cascade.iceberg.read import ROW, files_sql
from cascade.iceberg.staging import Staged, writing

if TYPE_CHECKING:
    import duckdb

__all__ = ["copy"]

_ROWS = 50_000


def copy(connection: duckdb.DuckDBPyConnection, files: Iterable[DataFile], into: Staged, *, without: str = "") -> None:
    """Stage the rows of files again, in the columns that the table has now.

    Each file is read once, a batch at a time. Small files are joined; every other one becomes a file of its own, so
    that rows which lay together do so again.

    Args:
        connection: Finds the rows that go.
        files: The files; whole ones, or their copies would look sound.
        into: Where the rows are staged.
        without: The condition of the rows that go, in SQL on the columns of `old`; "" for none.
    """
    with writing(into) as writer:
        for file in sorted(files, key=lambda file: file.file_size_in_bytes, reverse=True):
            stays = np.ones(file.record_count, bool)
            if without:
                rows = files_sql(into.schema, [file], position=True)
                gone = connection.sql(f"SELECT {ROW} FROM {rows} AS old WHERE {without}").fetchnumpy()
                stays[gone[ROW]] = False
            place = 0
            with into.io.new_input(file.file_path).open() as stream, pq.ParquetFile(stream) as parquet:
                for batch in parquet.iter_batches(_ROWS):
                    fitting = _to_requested_schema(into.schema, pyarrow_to_schema(batch.schema), batch)
                    stay = pa.array(stays[place : place + batch.num_rows])
                    writer.write(pa.Table.from_batches([fitting]).filter(stay))
                    place += batch.num_rows
            writer.close(least=SMALL_FILE)
