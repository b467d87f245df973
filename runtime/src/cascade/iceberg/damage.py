"""Tell whether a data file is still what was written: page by page, and by what Iceberg knows of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import parquet_path_to_id_mapping, pyarrow_to_schema
from pyiceberg.manifest import DataFile, FileFormat

from cascade.errors import SchemaMismatchError
from cascade.names import CHECKSUMS_ENTRY

__all__ = ["CHECKSUMS", "damage_of", "require_whole"]

#: Entry of a Parquet file whose pages all have checksums.
CHECKSUMS = {CHECKSUMS_ENTRY.encode(): b"crc32"}

_ROWS = 50_000


def damage_of(io: FileIO, file: DataFile) -> tuple[str, bool]:
    """Read a whole file, and compare it with its checksums and with Iceberg's metadata.

    Args:
        io: How files are reached.
        file: What Iceberg knows of it.

    Returns:
        What is wrong with it, "" when nothing is; and whether its pages have checksums, without which a changed
        value may go unseen.
    """
    if file.file_format != FileFormat.PARQUET:
        return "", False
    try:
        source = io.new_input(file.file_path)
        if len(source) != file.file_size_in_bytes:
            return f"it has {len(source):,} bytes, {file.file_size_in_bytes:,} were written", True
        with source.open() as stream, pq.ParquetFile(stream, page_checksum_verification=True) as parquet:
            found = parquet.metadata
            if found.num_rows != file.record_count or _sizes(parquet) != (file.column_sizes or _sizes(parquet)):
                return "its footer is not the one that was written", True
            for _ in parquet.iter_batches(_ROWS):
                pass
            return "", CHECKSUMS.items() <= (found.metadata or {}).items()
    except FileNotFoundError:
        return "it is not there", True
    except (OSError, ValueError, pa.ArrowException) as error:
        return f"it cannot be read: {str(error).splitlines()[0]}", True


def require_whole(io: FileIO, files: Iterable[DataFile], table: str) -> None:
    """Refuse to copy rows of damaged files into new ones, which would look sound.

    Args:
        io: How files are reached.
        files: The files.
        table: Their table, for the message.

    Raises:
        SchemaMismatchError: A file is damaged; all of them are named.
    """
    found = {file.file_path: problem for file in files if (problem := damage_of(io, file)[0])}
    if found:
        raise SchemaMismatchError(
            "Files of the table are damaged; nothing was written.",
            where="; ".join(f"{path}: {problem}" for path, problem in found.items()),
            fix=f"bring the files back from a backup, or load all of {table} again; `cascade maintain verify` looks at "
            "every file.",
        )


def _sizes(parquet: pq.ParquetFile) -> dict[int, int]:
    """Return how many bytes each column has, by Iceberg's ids."""
    ids = parquet_path_to_id_mapping(pyarrow_to_schema(parquet.schema_arrow))
    sizes: Counter[int] = Counter()
    for group in range(parquet.metadata.num_row_groups):
        row_group = parquet.metadata.row_group(group)
        for place in range(row_group.num_columns):
            column = row_group.column(place)
            sizes[ids[column.path_in_schema]] += column.total_compressed_size
    return dict(sizes)
