"""Find every file that a table needs, from its metadata down to its data files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Self, TypeAlias

from pyiceberg.avro.decoder import new_decoder
from pyiceberg.avro.file import AvroFile
from pyiceberg.avro.reader import Reader, StructReader
from pyiceberg.avro.resolver import construct_reader
from pyiceberg.io import InputFile
from pyiceberg.manifest import ManifestEntryStatus
from pyiceberg.typedef import Record
from pyiceberg.utils.schema_conversion import AvroSchemaConversion

from cascade.names import PROPERTY_FILE
from cascade_maintain.warehouse import Warehouse, in_threads

__all__ = ["Marks"]

_THREADS = 8
_FORMATS = (1, 2, 3)
# The fields of Iceberg's Avro files that are read, by id, each with the fields inside it.
_Fields: TypeAlias = "tuple[tuple[int, _Fields], ...]"
_MANIFEST_PATH: _Fields = ((500, ()),)
_STATUS_AND_FILE_PATH: _Fields = ((0, ()), (2, ((100, ()),)))


class _UnreadableError(Exception):
    """A file exists but cannot be understood, or the storage refuses to return it."""


@dataclass
class Marks:
    """The files that are needed. Each metadata file, manifest list and manifest is read once.

    Attributes:
        warehouse: The storage that holds them.
        paths: Needed files of the warehouse, as paths below its root.
        problems: One message for each file that cannot be read, or is outside the warehouse.
    """

    warehouse: Warehouse
    paths: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def add(self, locations: Iterable[str], *, lenient: bool = False) -> None:
        """Mark the files that tables need.

        Args:
            locations: Metadata files of the tables.
            lenient: Whether a missing file is no problem, as for past metadata: other tools
                or an earlier collection may have removed its files.
        """
        lists: list[str] = []
        manifests: list[str] = []
        for location, (home, its_lists, its_manifests, others) in self._read(locations, self._state, lenient):
            if self.warehouse.relative(f"{home}/metadata/x") is None:
                self.problems.append(f"{location}: its table is outside the warehouse, at {home}")
            lists.extend(its_lists)
            manifests.extend(its_manifests)
            self._mark(others)
        for _, found in self._read(lists, self._manifests, lenient):
            manifests.extend(found)
        for _, paths in self._read(manifests, self._data_files, lenient):
            self._mark(paths)

    def _read(self, locations: Iterable[str], read: Callable[[str], Any], lenient: bool) -> Iterator[tuple[str, Any]]:
        """Mark files that are not marked yet, and return their contents."""
        fresh = []
        for location in locations:
            path = self.warehouse.relative(location)
            if path is None:
                self.problems.append(f"{location}: it is outside the warehouse")
            elif path not in self.paths:
                self.paths.add(path)
                fresh.append((path, location))
        for (path, location), found in in_threads(lambda one: _attempt(read, one[1]), fresh, threads=_THREADS):
            if isinstance(found, FileNotFoundError):
                self.paths.discard(path)
                if not lenient:
                    self.problems.append(f"{location}: it does not exist")
            elif isinstance(found, Exception):
                self.problems.append(f"{location}: {found}")
            else:
                yield location, found

    def _mark(self, locations: Iterable[str]) -> None:
        # Data files outside the warehouse are never removed, so they need no mark.
        self.paths.update(path for at in locations if (path := self.warehouse.relative(at)) is not None)

    def _state(self, location: str) -> tuple[str, list[str], list[str], list[str]]:
        """Return a table's folder, its manifest lists, its manifests and its other files."""
        with self.warehouse.io.new_input(location).open() as file:
            content = file.read()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        metadata = json.loads(content)
        if metadata["format-version"] not in _FORMATS:
            raise _UnreadableError(f"Iceberg format version {metadata['format-version']} is not known")
        snapshots = metadata.get("snapshots") or []
        statistics = [*(metadata.get("statistics") or []), *(metadata.get("partition-statistics") or [])]
        home = metadata["location"].rstrip("/")
        long = [
            v.removeprefix(PROPERTY_FILE)
            for v in (metadata.get("properties") or {}).values()
            if v.startswith(PROPERTY_FILE)
        ]
        return (
            home,
            [s["manifest-list"] for s in snapshots if s.get("manifest-list")],
            [path for s in snapshots for path in s.get("manifests") or ()],  # format version 1
            [*(s["statistics-path"] for s in statistics), *(f"{home}/metadata/{name}" for name in long)],
        )

    def _manifests(self, location: str) -> list[str]:
        with _Entries(self.warehouse.io.new_input(location), _MANIFEST_PATH) as entries:
            return [entry[0] for entry in entries]

    def _data_files(self, location: str) -> list[str]:
        with _Entries(self.warehouse.io.new_input(location), _STATUS_AND_FILE_PATH) as entries:
            return [entry[1][0] for entry in entries if entry[0] != ManifestEntryStatus.DELETED.value]


class _Entries(AvroFile[Record]):
    """The records of one of Iceberg's Avro files; only some fields are decoded.

    Most of a manifest is statistics, and PyIceberg's own projection cannot skip lists and maps.
    """

    def __init__(self, file: InputFile, wanted: _Fields) -> None:
        super().__init__(file)
        self.wanted = wanted

    def __enter__(self) -> Self:
        with self.input_file.open() as file:
            self.decoder = new_decoder(file.read())
        self.header = self._read_header()
        self.reader = _reader(self.header.meta["avro.schema"], self.wanted)
        return self


@lru_cache(256)
def _reader(schema: str, wanted: _Fields) -> Reader:
    """Return the reader of a schema; cached, because most files share one schema."""
    return _only(construct_reader(AvroSchemaConversion().avro_to_iceberg(json.loads(schema))), wanted)


def _only(reader: Reader, wanted: _Fields) -> Reader:
    """Return a reader that decodes the wanted fields, in their order, and skips all others; with none wanted, all."""
    if not wanted:
        return reader
    assert isinstance(reader, StructReader)
    fields = {field.field_id: read for field, (_, read) in zip(reader.struct.fields, reader.field_readers, strict=True)}
    inner = dict(wanted)
    if missing := inner.keys() - fields.keys():
        raise _UnreadableError(f"it does not have the fields {sorted(missing)}")
    places = {number: place for place, number in enumerate(inner)}
    readers = ((places.get(number), _only(read, inner.get(number, ()))) for number, read in fields.items())
    return StructReader(tuple(readers), Record, reader.struct)


def _attempt(read: Callable[[str], Any], location: str) -> Any:
    """Return the contents of a file, or the error that prevented it."""
    try:
        return read(location)
    except (FileNotFoundError, _UnreadableError) as error:
        return error
    except Exception as error:  # noqa: BLE001 - a damaged file may raise anything
        return _UnreadableError(f"it cannot be read: {type(error).__name__}: {error}")
