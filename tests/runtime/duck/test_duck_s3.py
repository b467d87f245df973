"""The promise of `cascade.duck.s3`: threads that share a file do not read each other's bytes."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from cascade.duck.s3 import S3FileSystem


def test_threads_of_duckdb_read_one_file_at_once(tmp_path: Path) -> None:
    """With one position for all threads, half of such reads failed or were wrong."""
    rows = 200_000
    table = pa.table({"id": range(rows), **{f"c{i}": [f"v{i}-{j % 1000}" for j in range(rows)] for i in range(5)}})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=5_000)
    with duckdb.connect() as connection:
        connection.execute("SET threads=8")
        connection.register_filesystem(S3FileSystem(SubTreeFileSystem(str(tmp_path), LocalFileSystem())))
        for _ in range(10):
            sql = "SELECT count(*), sum(id), count(DISTINCT c0), max(c4) FROM read_parquet('s3://t.parquet')"
            assert connection.sql(sql).fetchall() == [(rows, rows * (rows - 1) // 2, 1000, "v4-999")]
