"""Take rows out of data files: copy the files without them, or mark the rows as deleted in a file beside them."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import _read_deletes, _to_requested_schema, pyarrow_to_schema, schema_to_pyarrow
from pyiceberg.manifest import DataFile, DataFileContent
from pyiceberg.schema import Schema
from pyiceberg.table.locations import load_location_provider
from pyiceberg.typedef import Record
from pyiceberg.types import LongType, NestedField, StringType

from cascade.iceberg.damage import UNSUMMED, require_whole
from cascade.iceberg.head import SMALL_FILE, Head, arrow_size
from cascade.iceberg.staging import FILE_BYTES, ParquetWriter, Staged, described, writing
from cascade.names import SUMMED_FILE

__all__ = ["COPIED_BYTES", "MARKED_PART", "MARKED_ROWS", "Marks", "copy"]

#: Files of no more Arrow data than this together are copied: a copy costs once, a mark costs each reader.
COPIED_BYTES = 4 * FILE_BYTES
#: So is a file of which a larger part would be marked.
MARKED_PART = 0.1
#: So are all when they would have more marks together: a reader keeps some 200 bytes for each.
MARKED_ROWS = 1_000_000

_ROWS = 50_000
_MARKS = Schema(
    NestedField(2147483546, "file_path", StringType(), required=True),
    NestedField(2147483545, "pos", LongType(), required=True),
)

#: Which rows of a file stay, by its path.
_Stays = Mapping[str, np.ndarray]


def copy(files: Iterable[DataFile], into: Staged, stays: _Stays) -> None:
    """Stage the rows of files again, in the columns that the table has now.

    Each file is read once, a batch at a time. Small files are joined; every other one becomes a file of its own, so
    that rows which lay together do so again.

    Args:
        files: The files; whole ones, or their copies would look sound.
        into: Where the rows are staged.
        stays: Which rows stay.
    """
    with writing(into) as writer:
        for file in sorted(files, key=lambda file: file.file_size_in_bytes, reverse=True):
            place = 0
            with into.io.new_input(file.file_path).open() as stream, pq.ParquetFile(stream) as parquet:
                for batch in parquet.iter_batches(_ROWS):
                    fitting = _to_requested_schema(into.schema, pyarrow_to_schema(batch.schema), batch)
                    stay = pa.array(stays[file.file_path][place : place + batch.num_rows])
                    writer.write(pa.Table.from_batches([fitting]).filter(stay))
                    place += batch.num_rows
            writer.close(least=SMALL_FILE)


class Marks:
    """The rows of a table that are marked as deleted; each partition has one file of marks, after a commit of ours."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._known: dict[tuple[int, Record], dict[str, np.ndarray]] = {}

    def stays(self, file: DataFile) -> np.ndarray:
        """Return for each row of a file whether it is not marked."""
        stays = np.ones(file.record_count, bool)
        stays[self._marked((file.spec_id, file.partition)).get(file.file_path, [])] = False
        return stays

    def choose(self, files: Sequence[DataFile], stays: _Stays) -> set[DataFile]:
        """Return those of some files, of which some rows stay, whose other rows are best marked."""
        metadata = self._head.table.metadata
        size = arrow_size(metadata)
        copied = sum(size(file.record_count, file.file_size_in_bytes) for file in files)
        if metadata.format_version != 2 or copied <= COPIED_BYTES:
            return set()
        rows = {file: file.record_count - int(stays[file.file_path].sum()) for file in files}
        few = {file for file in files if rows[file] <= file.record_count * MARKED_PART}
        return few if sum(rows[file] for file in few) <= MARKED_ROWS else set()

    def change(
        self, gone: Sequence[DataFile], marked: Collection[DataFile], stays: _Stays, into: Staged
    ) -> list[DataFile]:
        """Stage the marks that the table has next, and return the files of marks that they replace.

        Args:
            gone: Files that are removed.
            marked: Files that get marks.
            stays: Which of their rows stay.
            into: Where the marks are staged.
        """
        replaced, paths = [], {file.file_path for file in gone}
        groups: dict[tuple[int, Record], list[str]] = {(file.spec_id, file.partition): [] for file in gone}
        for file in marked:
            groups.setdefault((file.spec_id, file.partition), []).append(file.file_path)
        for group, added in groups.items():
            old = self._marked(group)
            if added or paths & old.keys():
                replaced += self._head.deletes([group])
                marks = old | {path: np.flatnonzero(~stays[path]) for path in added}
                if left := {path: rows for path, rows in marks.items() if path not in paths}:
                    into.files.append(_write(into, group, left))
        return replaced

    def _marked(self, group: tuple[int, Record]) -> dict[str, np.ndarray]:
        """Return the marked rows of the files of a partition, by path."""
        if group not in self._known:
            files, io, found = self._head.deletes([group]), self._head.table.io, dict[str, np.ndarray]()
            require_whole(io, files)
            for path, rows in (each for file in files for each in _read_deletes(io, file).items()):
                found[path] = np.union1d(found.get(path, rows[:0]), rows)
            self._known[group] = found
        return self._known[group]


def _write(into: Staged, group: tuple[int, Record], marks: Mapping[str, np.ndarray]) -> DataFile:
    """Write a file of marks: in the order of paths, and of rows."""
    metadata, (spec_id, partition) = into.metadata, group
    locations = load_location_provider(metadata.location, metadata.properties)
    output = into.io.new_output(locations.new_data_location(f"{uuid.uuid4()}-deletes{SUMMED_FILE}"))
    writer = ParquetWriter(output, _MARKS, metadata.properties)
    schema = schema_to_pyarrow(_MARKS).with_metadata(UNSUMMED)
    for path in sorted(marks):
        writer.write(pa.table([pa.repeat(path, len(marks[path])), pa.array(marks[path])], schema=schema))
    rows = writer.close().record_count
    return described(output, DataFileContent.POSITION_DELETES, partition, spec_id, record_count=rows)
