"""Tell whether a data file is still what was written, whichever engine wrote it."""

from __future__ import annotations

import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, FileFormat

from cascade.iceberg.damage import damage_of as change_of

__all__ = ["damage_of"]

_ROWS = 50_000


def damage_of(io: FileIO, file: DataFile) -> tuple[str, bool]:
    """Compare a file with its checksum; one that has none is read, and the checksums of its pages with it.

    Args:
        io: How files are reached.
        file: What Iceberg knows of it.

    Returns:
        What is wrong with it, "" when nothing is; and whether it has a checksum, without which a changed value may
        go unseen.
    """
    problem = change_of(io, file)
    if problem is not None:
        return problem, True
    if file.file_format != FileFormat.PARQUET:
        return "", False
    try:
        with (
            io.new_input(file.file_path).open() as stream,
            pq.ParquetFile(stream, page_checksum_verification=True) as parquet,
        ):
            if sum(batch.num_rows for batch in parquet.iter_batches(_ROWS)) != file.record_count:
                return "it has not the rows that were written", False
    except Exception as error:  # noqa: BLE001  what a damaged footer says is believed, and leads to any error
        return f"it cannot be read: {[*str(error).splitlines(), type(error).__name__][0]}", False
    return "", False
