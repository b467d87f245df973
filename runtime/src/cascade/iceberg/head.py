"""The newest snapshot of a table, and the one that follows it: what a commit costs does not grow with their number."""

from __future__ import annotations

import itertools
import math
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

from pyiceberg.expressions import BooleanExpression
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriterV2,
    write_manifest,
    write_manifest_list,
)
from pyiceberg.table import ManifestGroupPlanner, Table, TableProperties
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, SnapshotSummaryCollector, Summary, update_snapshot_summaries
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    RemoveSnapshotsUpdate,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)
from pyiceberg.typedef import Record

from cascade.catalog import BranchingCatalog
from cascade.errors import CatalogError
from cascade.iceberg.read import require_positions
from cascade.iceberg.staging import FILE_BYTES
from cascade.names import RESET_PROPERTY, ROW_BYTES_PROPERTY

__all__ = ["KEPT_STATES", "SMALL_FILE", "DeletesWriter", "Head", "arrow_size", "is_cut", "is_reset", "past"]

#: Snapshots that a table's metadata lists, and earlier metadata files: each commit writes these lists. What is older is
#: found through the catalog's log.
KEPT_STATES = 30
#: Files of less Arrow data are joined where a part of a table has several of about the same size.
SMALL_FILE = FILE_BYTES // 2

# How many files, or manifests, of about the same size are joined. A row is then copied once each time that its file
# becomes so many times larger.
_JOINED = 8
_MANIFEST_ENTRIES = 1_000
_THREADS = 8
# Bytes of Arrow data for each byte of a file, where no commit has said how large its rows are.
_UNPACKED = 3
_COMPRESSION: Any = TableProperties.WRITE_AVRO_COMPRESSION_DEFAULT

T = TypeVar("T")


class Head:
    """The newest snapshot of a table.

    Attributes:
        table: The table, as it was loaded.
        is_empty: Whether it has no snapshot yet.
    """

    def __init__(self, table: Table) -> None:
        self._table = self.table = table
        self._snapshot = table.metadata.current_snapshot()
        self.is_empty = self._snapshot is None
        manifests = self._snapshot.manifests(table.io) if self._snapshot else ()
        self._manifests = [m for m in manifests if m.has_added_files() or m.has_existing_files()]
        self._home: dict[str, ManifestFile] = {}
        self._opened: list[ManifestFile] = []
        self._entries: list[ManifestEntry] = []

    def files(self, expression: BooleanExpression) -> list[DataFile]:
        """Return the files that may hold rows of a filter, also rows that are marked as deleted."""
        data = [m for m in self._manifests if m.content == ManifestContent.DATA]
        planner = ManifestGroupPlanner(self._table.metadata, self._table.io, expression)
        found = []
        for manifest, entries in _each(data, lambda m: itertools.chain(*planner.plan_manifest_entries([m]))):
            found += [entry.data_file for entry in entries]
            self._home.update((entry.data_file.file_path, manifest) for entry in entries)
        return found

    def deletes(self, partitions: Collection[tuple[int, Record]]) -> list[DataFile]:
        """Return the files that mark rows of partitions (ids of specs, values) as deleted; see `require_positions`."""
        return [file for part in partitions for file in self._marking.get(part, ())]

    @cached_property
    def _marking(self) -> dict[tuple[int, Record], list[DataFile]]:
        """The files of marks of each partition: compaction asks for each one, of any number."""
        files = [entry.data_file for entry in self._deletes]
        require_positions(self._table, files)
        found: dict[tuple[int, Record], list[DataFile]] = defaultdict(list)
        for file in files:
            found[file.spec_id, file.partition].append(file)
        return found

    @cached_property
    def _deletes(self) -> list[ManifestEntry]:
        return self._entries_of([m for m in self._manifests if m.content == ManifestContent.DELETES])

    def _entries_of(self, manifests: Collection[ManifestFile]) -> list[ManifestEntry]:
        read = _each(manifests, lambda m: m.fetch_manifest_entry(self._table.io))
        return [entry for _, entries in read for entry in entries]

    def small_files(self, gone: Iterable[DataFile]) -> list[DataFile]:
        """Decide which manifests are written again, and return their small files that are best joined.

        Args:
            gone: Files that are removed, of those that `files` returned.
        """
        paths = {file.file_path for file in gone}
        homes = {self._home[path].manifest_path for path in paths}
        spec = self._table.metadata.default_spec_id
        others = [
            m
            for m in self._manifests
            if m.manifest_path not in homes and (m.content, m.partition_spec_id) == (ManifestContent.DATA, spec)
        ]
        small = [m for m in others if _entries(m) < _MANIFEST_ENTRIES]
        joined = {m.manifest_path for m in _alike(small, lambda m: ((), _rows(m)))}
        self._opened = [m for m in self._manifests if m.manifest_path in homes | joined]
        self._entries = self._entries_of(self._opened)
        files = [entry.data_file for entry in self._entries if entry.data_file.file_path not in paths]
        size = arrow_size(self._table.metadata)
        return _alike(
            (f for f in files if f.spec_id == spec and size(f.record_count, f.file_size_in_bytes) < SMALL_FILE),
            lambda f: (f.partition, f.record_count),
        )

    def follow(
        self,
        metadata: TableMetadata,
        gone: Collection[DataFile],
        come: Collection[DataFile],
        summary: Mapping[str, str],
    ) -> tuple[tuple[TableUpdate, ...], TableRequirement]:
        """Write the manifests of the next snapshot, and return what the commit changes in the table and requires of it.

        Args:
            metadata: The table's metadata, changes of its columns included.
            gone: Files that are removed.
            come: Files that are added.
            summary: Entries of the snapshot's summary.
        """
        if any(file.content != DataFileContent.DATA for file in (*gone, *come)):
            self._opened += [m for m in self._manifests if m.content == ManifestContent.DELETES]
            self._entries += self._deletes
        snapshot_id = metadata.new_snapshot_id()
        parent_id = self._snapshot.snapshot_id if self._snapshot else None
        manifests = self._write_manifests(metadata, snapshot_id, {file.file_path for file in gone}, come)
        number = metadata.next_sequence_number()
        place = _new_file(metadata, f"snap-{snapshot_id}-0-{uuid.uuid4()}.avro")
        with write_manifest_list(
            format_version=metadata.format_version,
            output_file=self._table.io.new_output(place),
            snapshot_id=snapshot_id,
            parent_snapshot_id=parent_id,
            sequence_number=number,
            avro_compression=_COMPRESSION,
        ) as writer:
            writer.add_manifests(manifests)
        new = Snapshot(  # type: ignore[call-arg]
            snapshot_id=snapshot_id,
            parent_snapshot_id=parent_id,
            manifest_list=place,
            sequence_number=number,
            summary=self._summary(metadata, gone, come, summary),
            schema_id=metadata.current_schema_id,
        )
        updates: list[TableUpdate] = [
            AddSnapshotUpdate(snapshot=new),
            SetSnapshotRefUpdate(  # type: ignore[call-arg]
                snapshot_id=snapshot_id, ref_name=MAIN_BRANCH, type=SnapshotRefType.BRANCH
            ),
        ]
        if TableProperties.METADATA_PREVIOUS_VERSIONS_MAX not in metadata.properties:
            log_length = {TableProperties.METADATA_PREVIOUS_VERSIONS_MAX: str(KEPT_STATES)}
            updates.append(SetPropertiesUpdate(updates=log_length))
        named = {ref.snapshot_id for name, ref in metadata.refs.items() if name != MAIN_BRANCH}
        old = sorted(metadata.snapshots, key=lambda s: s.timestamp_ms)[: 1 - KEPT_STATES]
        if forgotten := [s.snapshot_id for s in old if s.snapshot_id not in named]:
            updates.append(RemoveSnapshotsUpdate(snapshot_ids=forgotten))  # type: ignore[call-arg]
        required = AssertRefSnapshotId(snapshot_id=parent_id, ref=MAIN_BRANCH)  # type: ignore[call-arg]
        return tuple(updates), required

    def _write_manifests(
        self, metadata: TableMetadata, snapshot_id: int, gone: Collection[str], come: Iterable[DataFile]
    ) -> list[ManifestFile]:
        """Write what is new or changed into as few manifests as possible; those that stay as they are follow."""
        entries: dict[tuple[bool, int], list[ManifestEntry]] = defaultdict(list)
        added = ManifestEntryStatus.ADDED
        new = [ManifestEntry.from_args(status=added, snapshot_id=snapshot_id, data_file=file) for file in come]
        for entry in self._entries:
            is_gone = entry.data_file.file_path in gone
            entry.status = ManifestEntryStatus.DELETED if is_gone else ManifestEntryStatus.EXISTING
        for entry in (*new, *self._entries):
            entries[entry.data_file.content == DataFileContent.DATA, entry.data_file.spec_id].append(entry)
        written = []
        for (is_data, spec_id), of_spec in entries.items():
            for start in range(0, len(of_spec), _MANIFEST_ENTRIES):
                output = self._table.io.new_output(_new_file(metadata, f"{uuid.uuid4()}-m0.avro"))
                of = (metadata.specs()[spec_id], metadata.schema(), output, snapshot_id, _COMPRESSION)
                with write_manifest(metadata.format_version, *of) if is_data else DeletesWriter(*of) as writer:
                    add = {
                        ManifestEntryStatus.ADDED: writer.add,
                        ManifestEntryStatus.EXISTING: writer.existing,
                        ManifestEntryStatus.DELETED: writer.delete,
                    }
                    for entry in of_spec[start : start + _MANIFEST_ENTRIES]:
                        add[entry.status](entry)
                written.append(writer.to_manifest_file())
        return written + [m for m in self._manifests if m not in self._opened]

    def _summary(
        self, metadata: TableMetadata, gone: Collection[DataFile], come: Collection[DataFile], more: Mapping[str, str]
    ) -> Summary:
        collected = SnapshotSummaryCollector()
        for file in come:
            collected.add_file(file, metadata.schema(), metadata.specs()[file.spec_id])
        for file in gone:
            collected.remove_file(file, metadata.schema(), metadata.specs()[file.spec_id])
        changed: dict[str, Any] = {**collected.build(), **more}
        operation = Operation.OVERWRITE if gone or "added-delete-files" in changed else Operation.APPEND
        previous = self._snapshot.summary if self._snapshot else None
        return update_snapshot_summaries(Summary(operation, **changed), previous)


class DeletesWriter(ManifestWriterV2):
    """Writes a manifest of files of marks, which PyIceberg only reads."""

    def content(self) -> ManifestContent:
        """Say what it lists; PyIceberg asks."""
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


def past(catalog: BranchingCatalog, name: str, table: Table) -> Iterator[Table]:
    """Return a table's states that together list all of its snapshots, newest first, as far as their files are kept.

    Args:
        catalog: The catalog.
        name: `namespace.table`.
        table: The newest state. It lists the newest snapshots only: see `is_cut`.
    """
    yield table
    while is_cut(table) and (log := table.metadata.metadata_log):
        try:
            table = catalog.load(name, log[-KEPT_STATES:][0].metadata_file)
        except CatalogError:
            return
        yield table


def is_cut(table: Table) -> bool:
    """Say whether a table had snapshots that this state of it does not list any more."""
    return min((s.sequence_number or 0 for s in table.metadata.snapshots), default=0) > 1


def is_reset(table: Table | None) -> bool:
    """Say whether a table was emptied to get its columns again; those that its files are partitioned by must stay."""
    head = table.current_snapshot() if table and table.spec().is_unpartitioned() else None
    return bool(head and head.summary and RESET_PROPERTY in head.summary.additional_properties)


def arrow_size(metadata: TableMetadata) -> Callable[[int, int], int]:
    """Return what gives the bytes of Arrow data of files, from their rows and their bytes."""
    newest_first = sorted(metadata.snapshots, key=lambda s: s.timestamp_ms, reverse=True)
    told = (s.summary.additional_properties.get(ROW_BYTES_PROPERTY) for s in newest_first if s.summary)
    if row := next(filter(None, told), None):
        return lambda rows, _: rows * int(row)
    return lambda _, stored: stored * _UNPACKED


def _new_file(metadata: TableMetadata, name: str) -> str:
    return load_location_provider(metadata.location, metadata.properties).new_metadata_location(name)


def _each(
    manifests: Collection[ManifestFile], read: Callable[[ManifestFile], Iterable[T]]
) -> list[tuple[ManifestFile, list[T]]]:
    """Read manifests, several at a time: from S3 each one takes a while."""
    if not manifests:
        return []
    with ThreadPoolExecutor(min(_THREADS, len(manifests))) as threads:
        return list(zip(manifests, threads.map(lambda m: list(read(m)), manifests), strict=True))


def _alike(things: Iterable[T], part_and_size: Callable[[T], tuple[object, int]]) -> list[T]:
    """Return the things that are to be joined: those of one part and of about one size, where there are many."""
    tiers: dict[object, list[T]] = defaultdict(list)
    for thing in things:
        part, size = part_and_size(thing)
        tiers[part, int(math.log(size or 1, _JOINED))].append(thing)
    return [thing for alike in tiers.values() if len(alike) >= _JOINED for thing in alike]


def _entries(manifest: ManifestFile) -> int:
    return (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)


def _rows(manifest: ManifestFile) -> int:
    return (manifest.added_rows_count or 0) + (manifest.existing_rows_count or 0)
