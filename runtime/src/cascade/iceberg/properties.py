"""Table properties whose value is long: kept in a file beside the metadata, which every commit writes again."""

from __future__ import annotations

import gzip
import uuid
from collections.abc import Mapping

from pyiceberg.io import FileIO
from pyiceberg.table.metadata import TableMetadata

from cascade.names import PROPERTY_FILE

__all__ = ["long_values", "pack"]

# Bytes of a value that the metadata itself keeps.
_SHORT = 4_000


def long_values(metadata: TableMetadata, io: FileIO) -> dict[str, str]:
    """Return a table's properties, those of files included."""
    return {
        name: _read(metadata, io, value.removeprefix(PROPERTY_FILE)) if value.startswith(PROPERTY_FILE) else value
        for name, value in metadata.properties.items()
    }


def pack(values: Mapping[str, str], metadata: TableMetadata, io: FileIO) -> dict[str, str]:
    """Return properties as the table's metadata keeps them; the files of long values are written.

    A file is never changed: metadata that names it, on any branch, stays what it is.
    """
    return {name: value if len(value) <= _SHORT else _write(metadata, io, value) for name, value in values.items()}


def _read(metadata: TableMetadata, io: FileIO, name: str) -> str:
    with io.new_input(f"{metadata.location}/metadata/{name}").open() as file:
        return gzip.decompress(file.read()).decode()


def _write(metadata: TableMetadata, io: FileIO, value: str) -> str:
    # Not `.gz`: PyArrow would unpack such a file of S3 by itself, and of a local disk not.
    name = f"{uuid.uuid4()}.property"
    with io.new_output(f"{metadata.location}/metadata/{name}").create() as file:
        file.write(gzip.compress(value.encode(), compresslevel=1, mtime=0))  # hashes become no smaller by more
    return PROPERTY_FILE + name
