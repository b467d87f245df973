"""Tell whether a data file is still what was written: page by page, and by what Iceberg knows of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import parquet_path_to_id_mapping, pyarrow_to_schema
from pyiceberg.manifest import DataFile

from cascade.errors import SchemaMismatchError
from cascade.names import CHECKSUMS_ENTRY

__all__ = ["CHECKSUMS", "DamagedError", "batches", "refusal"]

#: Entry of a Parquet file whose pages all have checksums.
CHECKSUMS = {CHECKSUMS_ENTRY.encode(): b"crc32"}

_ROWS = 50_000


class DamagedError(Exception):
    """A file is not what was written; the text says why."""


def batches(io: FileIO, file: DataFile) -> Iterator[pa.RecordBatch]:
    """Read a Parquet file; what is wrong with a page shows before its rows are returned.

    Args:
        io: How files are reached.
        file: What Iceberg knows of it.

    Raises:
        DamagedError: It is not there, or its content is not what was written.
    """
    try:
        source = io.new_input(file.file_path)
        if len(source) != file.file_size_in_bytes:
            raise DamagedError(f"it has {len(source):,} bytes, {file.file_size_in_bytes:,} were written")
        with source.open() as stream, pq.ParquetFile(stream, page_checksum_verification=True) as parquet:
            found = parquet.metadata
            if found.num_rows != file.record_count or _sizes(parquet) != (file.column_sizes or _sizes(parquet)):
                raise DamagedError("its footer is not the one that was written")
            yield from parquet.iter_batches(_ROWS)
    except FileNotFoundError:
        raise DamagedError("it is not there") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DamagedError(f"it cannot be read: {str(error).splitlines()[0]}") from error


def refusal(table: str, found: Mapping[str, str]) -> SchemaMismatchError:
    """Return the error for rows that are not copied: in a new file, damaged ones would look sound.

    Args:
        table: `namespace.table`.
        found: The damaged files, and what is wrong with each.
    """
    return SchemaMismatchError(
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
