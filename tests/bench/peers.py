"""The other ways of doing what the bench measures: bare PyArrow, PyIceberg, and dlt's own loading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["DLT", "PYARROW", "PYICEBERG", "iceberg_table", "load_with_dlt", "write_parquet"]

PYARROW, PYICEBERG, DLT = "bare PyArrow", "PyIceberg", "dlt"
# Files as ours: as many rows, compressed as ours.
ROWS_OF_A_FILE = 1_000_000


def write_parquet(folder: Path, tables: Iterable[pa.Table], rows_of_a_file: int = ROWS_OF_A_FILE) -> list[Path]:
    """Write tables one after the other to Parquet files, and return their paths."""
    files: list[Path] = []
    writer: pq.ParquetWriter | None = None
    written = 0
    for table in tables:
        if writer is None or written >= rows_of_a_file:
            if writer is not None:
                writer.close()
            files.append(folder / f"{len(files)}.parquet")
            writer, written = pq.ParquetWriter(files[-1], table.schema, compression="zstd"), 0
        writer.write_table(table)
        written += table.num_rows
    if writer is not None:
        writer.close()
    return files


def iceberg_table(folder: Path, schema: pa.Schema) -> Any:
    """Make an empty table with PyIceberg and SQLite."""
    from pyiceberg.catalog.sql import SqlCatalog

    catalog = SqlCatalog("bench", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
    catalog.create_namespace("raw")
    return catalog.create_table("raw.rows", schema)


def load_with_dlt(folder: Path, pages: Iterator[Any]) -> None:
    """Load pages with dlt alone, to Parquet files in a folder."""
    import dlt
    from dlt.destinations import filesystem

    pipeline = dlt.pipeline(
        "bench", pipelines_dir=str(folder / "working"), destination=filesystem(str(folder / "lake")), dataset_name="raw"
    )
    pipeline.run(dlt.resource(pages, name="rows"), loader_file_format="parquet")
