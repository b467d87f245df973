"""Tell whether whole data files are still what was written."""

from __future__ import annotations

from collections.abc import Iterable

from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, FileFormat

from cascade.iceberg.damage import CHECKSUMS, DamagedError, batches, refusal

__all__ = ["damage_of", "require_whole"]


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
        schemas = {batch.schema for batch in batches(io, file)}
    except DamagedError as damage:
        return str(damage), True
    return "", all(CHECKSUMS.items() <= (schema.metadata or {}).items() for schema in schemas)


def require_whole(io: FileIO, files: Iterable[DataFile], table: str) -> None:
    """Refuse damaged files; see `refusal`."""
    if found := {file.file_path: problem for file in files if (problem := damage_of(io, file)[0])}:
        raise refusal(table, found)
