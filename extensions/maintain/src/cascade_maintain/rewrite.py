"""Exchange files of a table for few large ones that hold the same rows, sorted: choose, read, sort, write, commit."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, pyarrow_to_schema, schema_to_pyarrow
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
)
from pyiceberg.schema import Schema, index_by_id
from pyiceberg.table import FileScanTask, Table, Transaction
from pyiceberg.table.snapshots import Operation, SnapshotSummaryCollector, Summary
from pyiceberg.table.update.snapshot import _SnapshotProducer
from pyiceberg.typedef import EMPTY_DICT, Record

from cascade.catalog import rows_of
from cascade.duck.session import connect
from cascade.duck.sql import identifier
from cascade.errors import CascadeError, CatalogError
from cascade.iceberg.damage import require_whole
from cascade.iceberg.head import DeletesWriter, Head, arrow_size
from cascade.iceberg.removal import MARKED_ROWS, Marks
from cascade.iceberg.staging import FILE_BYTES, Staged, writing
from cascade.names import (
    KEY_PROPERTY,
    MADE_FROM_PROPERTY,
    PARTITIONS_PROPERTY,
    ROW_BYTES_PROPERTY,
    ROWS_OF_PROPERTY,
)
from cascade_maintain.warehouse import in_threads

__all__ = ["MANY_DELETE_FILES", "SMALL_BYTES", "TARGET_BYTES", "Choice", "Target", "choose", "rewrite"]

#: Least size of the files that rows are written to, where there are enough of them and no load replaces rows.
TARGET_BYTES = 128 << 20
#: Files below this size are small.
SMALL_BYTES = TARGET_BYTES // 2
#: What DuckDB may use to sort; the rest is written to the spill folder, as far as its sort can do without it.
SORT_MEMORY = "192MB"
#: A file of which a smaller part is marked as deleted stays: the marks cost its readers less than the copy costs.
MARKED_PART = 0.05
#: So many files that mark rows of one partition as deleted are too many. Our commits keep one, Trino adds to them.
MANY_DELETE_FILES = 16

# Rows that are in memory at once: so many, or fewer where they are large.
_ROWS, _ROWS_BYTES = 20_000, 4 << 20
# A manifest of this size is left as it is when all its files stay.
_MANIFEST_BYTES, _MANIFEST_ENTRIES = 1 << 20, 5_000
# So many small manifests are none too many.
_MANIFESTS = 20


@dataclass(frozen=True)
class _Totals:
    files: int = 0
    bytes: int = 0
    rows: int = 0

    @classmethod
    def of(cls, files: Collection[DataFile]) -> Self:
        return cls(len(files), sum(f.file_size_in_bytes for f in files), sum(f.record_count for f in files))

    def __add__(self, other: _Totals) -> _Totals:
        return _Totals(self.files + other.files, self.bytes + other.bytes, self.rows + other.rows)

    def __sub__(self, other: _Totals) -> _Totals:
        return _Totals(self.files - other.files, self.bytes - other.bytes, self.rows - other.rows)


@dataclass(frozen=True)
class Target:
    """How large the files of a table are to be.

    Attributes:
        size: Tells the size that counts, of the rows and bytes of files.
        small: Files below this size are small.
        least: Least size of new files, where there are enough rows.
    """

    size: Callable[[int, int], int]
    small: int
    least: int

    @classmethod
    def of(cls, table: Table) -> Self:
        """Return what a table needs: a load that replaces rows copies whole files, so these stay as loads make them."""
        if {KEY_PROPERTY, PARTITIONS_PROPERTY, MADE_FROM_PROPERTY} & table.properties.keys():
            return cls(arrow_size(table.metadata), FILE_BYTES // 2, FILE_BYTES * 3 // 4)
        return cls(lambda _, stored: stored, SMALL_BYTES, TARGET_BYTES)

    def parts(self, rows: int, stored: int) -> int:
        """Return into how many files so many rows go, which are so many bytes now."""
        return max(1, self.size(rows, stored) // self.least)


@dataclass(frozen=True)
class Choice:
    """Which files of a table are rewritten.

    Attributes:
        table: The table, in the state that was looked at.
        target: How large its files are to be.
        groups: The files; those of one partition are one group.
        kept: Manifests that stay as they are.
        merged: The others: one, or a few, come in their place.
        others: What stays of the files in these.
        totals: All files of the table.
        marks: Which of its rows are marked as deleted.
        deletes: The files that mark rows of partitions in which a file with marks stays. The others go.
    """

    table: Table
    target: Target
    groups: list[list[DataFile]] = field(default_factory=list)
    kept: list[ManifestFile] = field(default_factory=list)
    merged: list[ManifestFile] = field(default_factory=list)
    others: list[ManifestEntry] = field(default_factory=list)
    totals: _Totals = _Totals()
    marks: Marks | None = None
    deletes: list[ManifestEntry] = field(default_factory=list)

    @property
    def files(self) -> list[DataFile]:
        """The files that are rewritten."""
        return [file for group in self.groups for file in group]

    @property
    def number(self) -> int:
        """How many files come in their place."""
        return sum(self.target.parts(*_rows_and_bytes(group)) for group in self.groups)

    @property
    def needed(self) -> bool:
        """Whether the table is better off afterwards."""
        return bool(self.groups) or len(self.merged) > _MANIFESTS


def choose(table: Table, *, eager: bool = True) -> Choice:
    """Choose the files of a table whose rewriting makes them fewer, or takes many deleted rows out of them.

    Args:
        table: The table.
        eager: Whether all small files are rewritten; else none that has more rows than all smaller ones together, so
            that a row is rewritten a few times in its life and not with each load.

    Raises:
        CatalogError: Its deleted rows are marked in a way that cannot be read, or it is of a newer format.
    """
    snapshot, target = table.current_snapshot(), Target.of(table)
    if snapshot is None:
        return Choice(table, target)
    if table.format_version > 2:
        raise CatalogError("the numbers that this format gives to rows would change", where=".".join(table.name()))
    entries = list(in_threads(lambda manifest: manifest.fetch_manifest_entry(table.io), snapshot.manifests(table.io)))
    data = [(manifest, found) for manifest, found in entries if manifest.content == ManifestContent.DATA]
    deletes = [entry for manifest, found in entries if manifest.content == ManifestContent.DELETES for entry in found]
    live = [entry.data_file for _, found in data for entry in found]
    marks = Marks(Head(table))
    chosen, marked = Choice(table, target, totals=_Totals.of(live), marks=marks), _marked(live, deletes, marks)
    many = _much_marked(marked, [entry.data_file for entry in deletes])
    parts: dict[tuple[int, object], list[DataFile]] = defaultdict(list)
    for file in live:
        if file in many or target.size(file.record_count, file.file_size_in_bytes) < target.small:
            parts[_part(file)].append(file)
    for files in parts.values():
        plain = [file for file in files if file not in many]
        group = [*(file for file in files if file in many), *(plain if eager else _alike(plain))]
        if len(plain) < len(files) or target.parts(*_rows_and_bytes(group)) < len(group):
            chosen.groups.append(group)
    gone = set(chosen.files)
    left = {_part(file) for file in marked if file not in gone}
    chosen.deletes.extend(entry for entry in deletes if _part(entry.data_file) in left)
    for manifest, found in data:
        stay = [entry for entry in found if entry.data_file not in gone]
        if len(stay) == len(found) and manifest.manifest_length >= _MANIFEST_BYTES:
            chosen.kept.append(manifest)
        else:
            chosen.merged.append(manifest)
            chosen.others.extend(stay)
    return chosen


def _part(file: DataFile) -> tuple[int, Record]:
    return file.spec_id, file.partition


def _marked(live: Iterable[DataFile], deletes: Iterable[ManifestEntry], marks: Marks) -> dict[DataFile, int]:
    """Return the files with rows that are marked as deleted, and how many these are."""
    parts = {_part(entry.data_file) for entry in deletes}
    rows = {file: int(np.count_nonzero(~marks.stays(file))) for file in live if _part(file) in parts}
    return {file: number for file, number in rows.items() if number}


def _much_marked(marked: Mapping[DataFile, int], deletes: Sequence[DataFile]) -> set[DataFile]:
    """Return the files whose marks cost readers more than their copies cost once, by themselves or all together."""
    of_part = Counter(map(_part, deletes))
    if sum(file.record_count for file in deletes) > MARKED_ROWS:
        return set(marked)
    return {
        file
        for file, rows in marked.items()
        if rows >= file.record_count * MARKED_PART or of_part[_part(file)] >= MANY_DELETE_FILES
    }


def _alike(files: list[DataFile]) -> list[DataFile]:
    """Leave out each file that has more rows than all smaller ones together."""
    files = sorted(files, key=lambda file: file.record_count)
    while len(files) > 1 and files[-1].record_count > sum(file.record_count for file in files[:-1]):
        files.pop()
    return files


def _rows_and_bytes(group: Sequence[DataFile]) -> tuple[int, int]:
    return sum(file.record_count for file in group), sum(file.file_size_in_bytes for file in group)


def rewrite(transaction: Transaction, choice: Choice, staged: Staged, spill_to: Path) -> None:
    """Add the snapshot that holds new files in place of the chosen ones, and says that its rows are the same.

    Memory does not grow with the rows.

    Args:
        transaction: A transaction on the table in the state that the files were chosen in.
        choice: The files that go.
        staged: Gets the files that come, those that mark rows of others included.
        spill_to: Folder for what does not fit into memory.

    Raises:
        DamagedFileError: A file is damaged, one that goes or one that comes.
        CatalogError: Not every row that was read was written.
    """
    _write(choice, staged, spill_to)
    new, parts = [*staged.files], {_part(entry.data_file) for entry in choice.deletes}
    with_marks = [file for file in choice.files if _part(file) in parts]
    replaced = choice.marks.change(with_marks, (), {}, staged) if choice.marks else []
    require_whole(staged.io, staged.files, staged=True)
    with _Replace(transaction, choice, staged, replaced) as update:
        for file in choice.files:
            update.delete_data_file(file)
        for file in new:
            update.append_data_file(file)


def _write(choice: Choice, staged: Staged, spill_to: Path) -> None:
    order = ", ".join(identifier(name) for name in _sort_columns(choice.table))
    for group in choice.groups:
        try:
            _write_group(choice, group, order, staged, spill_to)
        except duckdb.OutOfMemoryException:
            # DuckDB's sort keeps a part of each run in memory: too much of many rows with long texts. These become
            # large files that are not sorted.
            _write_group(choice, group, "", staged, spill_to)


def _write_group(choice: Choice, group: Sequence[DataFile], order: str, staged: Staged, spill_to: Path) -> None:
    source, own = _Source(choice.table, choice.marks), staged.without_files()
    rows, size = _rows_and_bytes(group)
    part = -(-rows // choice.target.parts(rows, size))
    left = part
    with writing(own, file_bytes=size * 100) as writer, connect(spill_to) as connection:
        connection.execute(f"SET memory_limit='{SORT_MEMORY}'")
        batches = source.batches(group, min(_ROWS, part, max(1, rows * _ROWS_BYTES // size)))
        for batch in _sorted(connection, source, batches, order) if order else batches:
            # DuckDB's batches end where it likes.
            for piece in (batch.slice(0, left), batch.slice(left)):
                writer.write(pa.Table.from_batches([piece]))
                left -= piece.num_rows
                if not left:
                    writer.close()  # further rows go to a new file
                    left = part
    staged.files += own.files
    staged.rows += own.rows
    staged.bytes += own.bytes
    if own.rows != source.rows:
        raise CatalogError(f"{source.rows:,} rows were read and {own.rows:,} written", where=staged.table)


def _sorted(
    connection: duckdb.DuckDBPyConnection, source: _Source, batches: Iterator[pa.RecordBatch], order: str
) -> Iterator[pa.RecordBatch]:
    try:
        incoming = connection.from_arrow(pa.RecordBatchReader.from_batches(source.arrow_schema, batches))
        yield from incoming.order(order).to_arrow_reader(_ROWS)
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        raise source.problem or CatalogError(f"its rows cannot be sorted: {error}") from error


class _Source:
    """Reads files, without marked rows, in the columns that the table has now; counts the rows."""

    def __init__(self, table: Table, marks: Marks | None) -> None:
        self.rows = 0
        self.problem: CascadeError | None = None
        self.arrow_schema = schema_to_pyarrow(table.schema(), include_field_ids=False)
        self._table, self._marks = table, marks
        self._fields = _fields(table.schema())
        self._known: list[tuple[pa.Schema, bool]] = []

    def batches(self, group: Sequence[DataFile], at_once: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of some files.

        Args:
            group: The files.
            at_once: How many rows of a file are in memory.
        """
        for file in group:
            stays, place = self._marks.stays(file) if self._marks else np.ones(file.record_count, bool), 0
            for batch in self._of(file, at_once):
                stay = stays[place : place + batch.num_rows]
                place += batch.num_rows
                left = batch if stay.all() else batch.filter(pa.array(stay))
                self.rows += left.num_rows
                if left.schema.equals(self.arrow_schema):
                    yield left
                else:
                    yield from pa.Table.from_batches([left]).cast(self.arrow_schema).to_batches()

    def _of(self, file: DataFile, at_once: int) -> Iterator[pa.RecordBatch]:
        """Yield all rows of a file, the marked ones too, in their order."""
        io = self._table.io
        try:
            require_whole(io, [file])
        except CascadeError as error:
            self.problem = error  # DuckDB, which asks for the rows, makes another error of it
            raise
        if file.file_format == FileFormat.PARQUET:
            with io.new_input(file.file_path).open() as stream, pq.ParquetFile(stream) as parquet:
                if self._is_present(parquet.schema_arrow):
                    yield from parquet.iter_batches(at_once)
                    return
        scan = ArrowScan(self._table.metadata, io, self._table.schema(), AlwaysTrue())
        yield from scan.to_record_batches([FileScanTask(file)])

    def _is_present(self, schema: pa.Schema) -> bool:
        """Say whether a file has the columns of the table as it is now: then nothing has to be looked up by id."""
        for known, answer in self._known:
            if known.equals(schema, check_metadata=True):
                return answer
        try:
            answer = _fields(pyarrow_to_schema(schema)) == self._fields
        except ValueError:  # it has no ids
            answer = False
        self._known.append((schema, answer))
        return answer


def _fields(schema: Schema) -> dict[int, tuple[str, object]]:
    return {
        number: (found.name, found.field_type if found.field_type.is_primitive else type(found.field_type))
        for number, found in index_by_id(schema).items()
    }


def _sort_columns(table: Table) -> list[str]:
    """Return what rows are sorted by: what tells their partition, since loads bring these together, then their key.

    Without both, the table's own order.
    """
    properties, there = table.properties, {f.name for f in table.schema().fields if f.field_type.is_primitive}
    by_partition = properties.get(PARTITIONS_PROPERTY, "").rpartition(" ")[2].split(",")
    own = [table.schema().find_column_name(of.source_id) or "" for of in table.sort_order().fields]
    columns = [*by_partition, *json.loads(properties.get(KEY_PROPERTY, "[]"))]
    return [name for name in dict.fromkeys(columns) if name in there] or [name for name in own if name in there]


class _Replace(_SnapshotProducer["_Replace"]):
    """A snapshot of the same rows in other files. PyIceberg makes none; its manifests name no file that is gone."""

    def __init__(
        self, transaction: Transaction, choice: Choice, staged: Staged, replaced: Collection[DataFile]
    ) -> None:
        of = {ROWS_OF_PROPERTY: str(rows_of(choice.table))}
        if staged.rows:
            of[ROW_BYTES_PROPERTY] = str(max(1, staged.bytes // staged.rows))
        super().__init__(Operation.REPLACE, transaction, choice.table.io, snapshot_properties=of)
        self._choice = choice
        self._deletes = [entry for entry in choice.deletes if entry.data_file not in replaced]
        self._new_deletes = [file for file in staged.files if file.content != DataFileContent.DATA]

    def _deleted_entries(self) -> list[ManifestEntry]:
        return []

    def _existing_manifests(self) -> list[ManifestFile]:
        by_spec: dict[int, list[ManifestEntry]] = defaultdict(list)
        for entry in self._choice.others:
            by_spec[entry.data_file.spec_id].append(entry)
        written = []
        for spec, entries in by_spec.items():
            for first in range(0, len(entries), _MANIFEST_ENTRIES):
                with self.new_manifest_writer(self.spec(spec)) as writer:
                    for entry in entries[first : first + _MANIFEST_ENTRIES]:
                        writer.existing(entry)
                written.append(writer.to_manifest_file())
        return [*written, *self._choice.kept, *self._manifests_of_deletes()]

    def _manifests_of_deletes(self) -> Iterator[ManifestFile]:
        number, schema = self._snapshot_id, self._choice.table.metadata.schema()
        for spec in {file.spec_id for file in self._deletes_of_table()}:
            of = (self.spec(spec), schema, self.new_manifest_output(), number, self._compression)
            with DeletesWriter(*of) as writer:
                for entry in self._deletes:
                    if entry.data_file.spec_id == spec:
                        writer.existing(entry)
                for file in self._new_deletes:
                    if file.spec_id == spec:
                        added = ManifestEntryStatus.ADDED
                        writer.add(ManifestEntry.from_args(status=added, snapshot_id=number, data_file=file))
            yield writer.to_manifest_file()

    def _deletes_of_table(self) -> list[DataFile]:
        return [*(entry.data_file for entry in self._deletes), *self._new_deletes]

    def _summary(self, snapshot_properties: dict[str, str] = EMPTY_DICT) -> Summary:
        metadata, collector = self._choice.table.metadata, SnapshotSummaryCollector()
        for file in self._added_data_files:
            collector.add_file(file, metadata.schema(), metadata.spec())
        for file in self._deleted_data_files:
            collector.remove_file(file, metadata.schema(), metadata.specs()[file.spec_id])
        deletes = self._deletes_of_table()
        now = self._choice.totals - _Totals.of(self._deleted_data_files) + _Totals.of(self._added_data_files)
        totals = {
            "total-data-files": now.files,
            "total-files-size": now.bytes,
            "total-records": now.rows,
            "total-delete-files": len(deletes),
            "total-position-deletes": sum(file.record_count for file in deletes),
            "total-equality-deletes": 0,
        }
        texts = {name: str(number) for name, number in totals.items()}
        return Summary(Operation.REPLACE, **collector.build(), **snapshot_properties, **texts)
