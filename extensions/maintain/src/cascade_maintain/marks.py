"""Find every file that a state of the lake needs, from its metadata down to its data files."""

from __future__ import annotations

import abc
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Self

from pyiceberg.avro.decoder import new_decoder
from pyiceberg.avro.file import AvroFile
from pyiceberg.avro.reader import Reader, StructReader
from pyiceberg.avro.resolver import construct_reader
from pyiceberg.manifest import ManifestEntryStatus
from pyiceberg.typedef import EMPTY_DICT, Record
from pyiceberg.utils.schema_conversion import AvroSchemaConversion

from cascade_maintain.warehouse import Warehouse

__all__ = ["Marks"]

_THREADS = 8
_BATCH = 1000
_FORMATS = (1, 2, 3)
# Field ids of Iceberg's Avro files: in a manifest list; in a manifest.
_MANIFEST_PATH = 500
_STATUS, _DATA_FILE, _FILE_PATH = 0, 2, 100


class _UnreadableError(Exception):
    """A file is there and makes no sense, or the storage does not hand it out."""


@dataclass(frozen=True)
class _State:
    """What a metadata file names: where its table lives, its lists of manifests, manifests and other files."""

    home: str
    lists: tuple[str, ...]
    manifests: tuple[str, ...]
    others: tuple[str, ...]


@dataclass
class Marks:
    """The files that are needed. Each metadata file, manifest list and manifest is read once.

    Attributes:
        warehouse: Where they are.
        paths: All of them that are in the warehouse, as paths below its root.
        problems: What cannot be read, or lies outside the warehouse, in words.
    """

    warehouse: Warehouse
    paths: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def add(self, locations: Iterable[str], *, lenient: bool = False) -> None:
        """Mark what states need.

        Args:
            locations: Their metadata files.
            lenient: Whether a file that is not there is no problem: states of the past, from which other tools
                or an earlier collection have removed files.
        """
        lists: list[str] = []
        manifests: list[str] = []
        for location, state in self._read(locations, self._state, lenient):
            if self.warehouse.relative(f"{state.home}/metadata/x") is None:
                self.problems.append(f"{location}: its table lives outside the warehouse, at {state.home}")
            lists.extend(state.lists)
            manifests.extend(state.manifests)
            self._mark(state.others)
        for _, found in self._read(lists, self._manifests, lenient):
            manifests.extend(found)
        for _, paths in self._read(manifests, self._data_files, lenient):
            self._mark(paths)

    def _read(self, locations: Iterable[str], read: Callable[[str], Any], lenient: bool) -> Iterator[tuple[str, Any]]:
        """Mark files that were not marked yet, and return what is in them."""
        fresh = []
        for location in locations:
            path = self.warehouse.relative(location)
            if path is None:
                self.problems.append(f"{location}: it lies outside the warehouse")
            elif path not in self.paths:
                self.paths.add(path)
                fresh.append((path, location))
        with ThreadPoolExecutor(_THREADS) as threads:
            for begin in range(0, len(fresh), _BATCH):
                batch = fresh[begin : begin + _BATCH]
                for (path, location), work in [(one, threads.submit(_attempt, read, one[1])) for one in batch]:
                    try:
                        yield location, work.result()
                    except FileNotFoundError:
                        self.paths.discard(path)
                        if not lenient:
                            self.problems.append(f"{location}: it is not there")
                    except _UnreadableError as error:
                        self.problems.append(f"{location}: {error}")

    def _mark(self, locations: Iterable[str]) -> None:
        # Data that lies elsewhere is not ours to remove, and not in the way.
        self.paths.update(path for at in locations if (path := self.warehouse.relative(at)) is not None)

    def _state(self, location: str) -> _State:
        with self.warehouse.io.new_input(location).open() as file:
            content = file.read()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        metadata = json.loads(content)
        if metadata["format-version"] not in _FORMATS:
            raise _UnreadableError(f"Iceberg format version {metadata['format-version']} is not known")
        snapshots = metadata.get("snapshots") or []
        statistics = [*(metadata.get("statistics") or []), *(metadata.get("partition-statistics") or [])]
        return _State(
            home=metadata["location"].rstrip("/"),
            lists=tuple(s["manifest-list"] for s in snapshots if s.get("manifest-list")),
            manifests=tuple(path for s in snapshots for path in s.get("manifests") or ()),  # format version 1
            others=tuple(s["statistics-path"] for s in statistics),
        )

    def _manifests(self, location: str) -> list[str]:
        with _Manifests(self.warehouse.io.new_input(location)) as entries:
            return [entry[0] for entry in entries]

    def _data_files(self, location: str) -> list[str]:
        with _DataFiles(self.warehouse.io.new_input(location)) as entries:
            return [entry[1][0] for entry in entries if entry[0] != ManifestEntryStatus.DELETED.value]


class _Paths(AvroFile[Record], abc.ABC):
    """An Avro file of Iceberg of which only some fields are decoded; how, is found out once for each schema.

    Statistics are most of a manifest, and PyIceberg's own projection cannot leave out lists and maps.
    """

    def __enter__(self) -> Self:
        with self.input_file.open() as file:
            self.decoder = new_decoder(file.read())
        self.header = self._read_header()
        self.reader = self._reader_of(self.header.meta["avro.schema"])
        return self

    @staticmethod
    @abc.abstractmethod
    def _reader_of(schema: str) -> Reader: ...


class _Manifests(_Paths):
    @staticmethod
    @lru_cache(256)
    def _reader_of(schema: str) -> Reader:
        return _only(_whole(schema), {_MANIFEST_PATH: 0})


class _DataFiles(_Paths):
    @staticmethod
    @lru_cache(256)
    def _reader_of(schema: str) -> Reader:
        return _only(_whole(schema), {_STATUS: 0, _DATA_FILE: 1}, {_DATA_FILE: {_FILE_PATH: 0}})


def _whole(schema: str) -> Reader:
    return construct_reader(AvroSchemaConversion().avro_to_iceberg(json.loads(schema)))


def _only(reader: Reader, wanted: Mapping[int, int], inner: Mapping[int, Mapping[int, int]] = EMPTY_DICT) -> Reader:
    """Return a reader of a few fields, given with their places in the result, which skips all others."""
    assert isinstance(reader, StructReader)
    fields = {field.field_id: read for field, (_, read) in zip(reader.struct.fields, reader.field_readers, strict=True)}
    if missing := wanted.keys() - fields.keys():
        raise _UnreadableError(f"it has no fields {sorted(missing)}")
    readers = tuple(
        (wanted.get(number), _only(read, inner[number]) if number in inner else read) for number, read in fields.items()
    )
    return StructReader(readers, Record, reader.struct)


def _attempt(read: Callable[[str], Any], location: str) -> Any:
    try:
        return read(location)
    except (FileNotFoundError, _UnreadableError):
        raise
    except Exception as error:
        raise _UnreadableError(f"it cannot be read: {type(error).__name__}: {error}") from error
