"""Write the metadata of an Iceberg table for another place: the paths in it change, and nothing else."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.avro.file import AvroFile, AvroOutputFile
from pyiceberg.io import InputFile, OutputFile
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestEntryStatus
from pyiceberg.schema import Schema
from pyiceberg.table import TableProperties
from pyiceberg.typedef import Record
from pyiceberg.types import NestedField, StructType

from cascade.iceberg.damage import UNSUMMED, SummedFile

__all__ = ["AvroContent", "Move", "move_deletes", "move_state"]

#: Returns the new location of a file.
Move = Callable[[str], str]

_GZIP = b"\x1f\x8b"
# Lists in a table's metadata that grow with it, and what tells their members apart.
_PARTS = {
    "schemas": "schema-id",
    "partition-specs": "spec-id",
    "snapshots": "snapshot-id",
    "snapshot-log": "timestamp-ms",
    "statistics": "snapshot-id",
    "partition-statistics": "snapshot-id",
}
_PLACES = (TableProperties.WRITE_DATA_PATH, TableProperties.WRITE_METADATA_PATH)
# Fields of Iceberg's Avro files, by id.
_STATUS, _DATA_FILE = 0, 2
_CONTENT, _PATH, _FORMAT, _ROWS, _SIZE, _BOUNDS, _REFERENCED = 134, 100, 101, 103, 104, (125, 128), 143
_MANIFEST_PATH, _MANIFEST_LENGTH = 500, 501
# The column of position deletes that names the file.
_DELETED_FROM = 2147483546


def move_state(content: bytes, earlier: Sequence[bytes], move: Move) -> bytes:
    """Return a table's metadata file for another place, with all snapshots that it and earlier ones list.

    Args:
        content: The file.
        earlier: Earlier metadata files of the table; what they know beside it is added.
        move: Returns the new location of a file.
    """
    packed = content.startswith(_GZIP)
    state, *others = (_unpacked(each) for each in (content, *earlier))
    for part, key in _PARTS.items():
        known = {each[key]: each for old in (*reversed(others), state) for each in old.get(part) or ()}
        if known:
            state[part] = sorted(known.values(), key=lambda each: each.get("timestamp-ms", 0))
    state["location"] = move(state["location"])
    state["metadata-log"] = []
    for snapshot in state.get("snapshots") or ():
        if "manifest-list" in snapshot:
            snapshot["manifest-list"] = move(snapshot["manifest-list"])
        if "manifests" in snapshot:  # format version 1
            snapshot["manifests"] = [move(path) for path in snapshot["manifests"]]
    for statistics in [*(state.get("statistics") or ()), *(state.get("partition-statistics") or ())]:
        statistics["statistics-path"] = move(statistics["statistics-path"])
    properties = state.get("properties") or {}
    properties.update({name: move(properties[name]) for name in _PLACES if name in properties})
    written = json.dumps(state, ensure_ascii=False).encode()
    return gzip.compress(written, mtime=0) if packed else written


def _unpacked(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gzip.decompress(content) if content.startswith(_GZIP) else content)
    return found


def move_deletes(stream: Any, output: OutputFile, move: Move) -> None:
    """Write a Parquet file that marks rows as deleted: each row names a data file by its location.

    Args:
        stream: The file, open.
        output: Where it is written.
        move: Returns the new location of a file.
    """
    rows = pq.read_table(stream)
    number = rows.schema.get_field_index("file_path")
    places = rows.column(number).combine_chunks().dictionary_encode()
    moved = pa.array([move(place) for place in places.dictionary.to_pylist()], pa.string())
    column = moved.take(places.indices).cast(rows.schema.field(number).type)
    schema = rows.schema.with_metadata(UNSUMMED)
    summed = SummedFile(output)
    with (
        summed.create(overwrite=True) as file,
        pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        writer.write_table(rows.set_column(number, rows.schema.field(number), column).cast(schema))
        summed.begin_footer()


@dataclass
class AvroContent:
    """A manifest, or a list of manifests.

    Attributes:
        schema: The fields of its records.
        header: What the file says of itself.
        records: The records.
    """

    schema: Schema
    header: dict[str, str]
    records: list[Record]

    @classmethod
    def read(cls, file: InputFile) -> AvroContent:
        """Read a file."""
        with AvroFile[Record](file) as opened:
            return cls(opened.schema, opened.header.meta, list(opened))

    def write(self, output: OutputFile) -> int:
        """Write the file, and return its size in bytes."""
        name = json.loads(self.header["avro.schema"])["name"]
        with AvroOutputFile[Record](output, self.schema, name, metadata=self.header) as writer:
            writer.write_block(self.records)
            return writer.tell()

    @property
    def is_list(self) -> bool:
        """Whether it is a list of manifests."""
        return _MANIFEST_PATH in _columns(self.schema.fields)

    def files(self) -> Iterator[DataFile]:
        """Yield the files that a manifest has, as far as reading them needs."""
        status, file, at = self._places()
        for record in self.records:
            if record[status] != ManifestEntryStatus.DELETED.value:
                entry = record[file]
                yield DataFile.from_args(
                    content=DataFileContent((entry[at[_CONTENT]] if _CONTENT in at else 0) or 0),
                    file_path=entry[at[_PATH]],
                    file_format=FileFormat(entry[at[_FORMAT]].upper()),
                    record_count=entry[at[_ROWS]],
                    file_size_in_bytes=entry[at[_SIZE]],
                )

    def move_list(self, move: Move, lengths: Mapping[str, int]) -> None:
        """Change the paths in a list of manifests; `lengths` has the size of each manifest by its new location."""
        at = _columns(self.schema.fields)
        for record in self.records:
            record[at[_MANIFEST_PATH]] = path = move(record[at[_MANIFEST_PATH]])
            record[at[_MANIFEST_LENGTH]] = lengths[path]

    def move_manifest(self, move: Move, sizes: Mapping[str, int]) -> None:
        """Change the paths in a manifest; `sizes` has files that have another size there, by their new location."""
        _, file, at = self._places()
        for record in self.records:
            entry = record[file]
            entry[at[_PATH]] = path = move(entry[at[_PATH]])
            entry[at[_SIZE]] = sizes.get(path, entry[at[_SIZE]])
            if _REFERENCED in at and entry[at[_REFERENCED]]:
                entry[at[_REFERENCED]] = move(entry[at[_REFERENCED]])
            if _CONTENT in at and entry[at[_CONTENT]] == DataFileContent.POSITION_DELETES.value:
                _move_bounds([entry[at[number]] or {} for number in _BOUNDS], move)

    def _places(self) -> tuple[int, int, dict[int, int]]:
        """Return where the status and the file are in a record of a manifest, and the fields of the file in it."""
        at = _columns(self.schema.fields)
        of_file = self.schema.find_field(_DATA_FILE).field_type
        assert isinstance(of_file, StructType)
        return at[_STATUS], at[_DATA_FILE], _columns(of_file.fields)


def _move_bounds(bounds: list[dict[int, bytes]], move: Move) -> None:
    """Change the least and the greatest path in a file of position deletes; two that differ may be cut, and go."""
    paths = [each.pop(_DELETED_FROM, None) for each in bounds]
    if paths[0] and paths[0] == paths[1]:
        for each in bounds:
            each[_DELETED_FROM] = move(paths[0].decode()).encode()


def _columns(fields: Iterable[NestedField]) -> dict[int, int]:
    return {field.field_id: number for number, field in enumerate(fields)}
