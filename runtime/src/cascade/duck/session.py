"""Open a DuckDB session: in UTC, with a folder for what does not fit into memory, and with access to S3."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cascade.duck.sql import literal

if TYPE_CHECKING:
    import duckdb
    from pyiceberg.io import FileIO
    from pyiceberg.io.pyarrow import PyArrowFileIO

__all__ = ["connect", "reach", "spill", "use_utc"]


def connect(spill_to: Path | None = None, io: FileIO | None = None) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB in memory whose time zone is UTC.

    Args:
        spill_to: Folder for what does not fit into memory; none by default.
        io: How the files are reached that it will read; only local ones by default.
    """
    import duckdb

    connection = duckdb.connect(":memory:")
    use_utc(connection)
    # Rows are sets here; keeping the order of files would cost memory for nothing.
    connection.execute("SET preserve_insertion_order=false")
    connection.execute("SET enable_progress_bar=false")
    if spill_to is not None:
        spill(connection, spill_to)
    if io is not None:
        reach(connection, io)
    return connection


def use_utc(connection: duckdb.DuckDBPyConnection) -> None:
    """Set the time zone of a session to UTC, as Iceberg's timestamps are."""
    connection.execute("SET TimeZone='UTC'")


def spill(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Let a session write what does not fit into memory below a folder, apart from others: file names would clash."""
    connection.execute(f"SET temp_directory={literal(str(folder / uuid.uuid4().hex))}")


def reach(connection: duckdb.DuckDBPyConnection, io: FileIO) -> None:
    """Let a session read files on S3 as PyIceberg does, without an extension that would have to be downloaded."""
    if "s3.region" not in io.properties:
        return
    from cascade.duck.s3 import S3FileSystem

    if "s3" not in connection.list_filesystems():
        connection.register_filesystem(S3FileSystem(cast("PyArrowFileIO", io).fs_by_scheme("s3", None)))
