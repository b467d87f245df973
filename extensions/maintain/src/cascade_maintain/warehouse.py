"""The folder or bucket of the tables' files: list them, with their age by the storage's clock, and remove them."""

from __future__ import annotations

import abc
import contextlib
import datetime as dt
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TypeVar

from pyarrow.fs import FileInfo, FileSelector, FileType
from pyiceberg.io.pyarrow import PyArrowFileIO

from cascade.catalog import MAIN, BranchingCatalog
from cascade.catalog.storage import sign_warehouse
from cascade.errors import CatalogError
from cascade.names import NOTES_FOLDER

__all__ = ["StoredFile", "Warehouse", "in_threads", "open_warehouse"]

_BATCH = 1000
# Tables keep files only in namespace/table/data/… and namespace/table/metadata/…
_PARTS = ("data", "metadata")
_S3 = ("s3", "s3a", "s3n")

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of the warehouse.

    Attributes:
        path: Path below the warehouse's root.
        size: Bytes.
        modified: Time of the last write, by the storage's clock.
    """

    path: str
    size: int
    modified: dt.datetime


def in_threads(work: Callable[[_T], _R], items: Iterable[_T], *, threads: int = 16) -> Iterator[tuple[_T, _R]]:
    """Yield each item with its result, in order; in batches, so that few results wait in memory."""
    waiting = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(waiting, _BATCH)):
            yield from zip(batch, pool.map(work, batch), strict=True)


def open_warehouse(catalog: BranchingCatalog) -> Warehouse:
    """Open the storage root of a catalog's tables."""
    reference = catalog.open(MAIN)
    place = reference.properties["warehouse"]
    io = reference._load_file_io(location=place)
    assert isinstance(io, PyArrowFileIO)
    return (_Bucket if place.startswith("s3://") else _Folder)(place, io)


class Warehouse(abc.ABC):
    """The operations of a storage that garbage collection needs; paths are below its root.

    Args:
        place: The root, as in the settings.
        io: Opens the tables' files.
    """

    def __init__(self, place: str, io: PyArrowFileIO) -> None:
        self.place = place
        self.io = io

    @abc.abstractmethod
    def relative(self, location: str) -> str | None:
        """Return the path below the root of a location from Iceberg's metadata; `None` when it is outside."""

    @abc.abstractmethod
    def tables(self) -> list[str]:
        """Return the existing folders `namespace/table`."""

    @abc.abstractmethod
    def files_of(self, table: str) -> list[StoredFile]:
        """Return the files of a table's folder."""

    @abc.abstractmethod
    def tidy(self) -> None:
        """Remove empty folders, where the storage has any."""

    @abc.abstractmethod
    def remove_file(self, path: str) -> None:
        """Remove one file.

        Raises:
            OSError: It cannot be removed, or is not there.
        """

    @abc.abstractmethod
    def _notes(self) -> list[str]:
        """Return the notes of all catalogs that keep files here."""

    def files(self) -> Iterator[StoredFile]:
        """Yield the files of all tables; other files in the warehouse are ignored."""
        for _, found in in_threads(self.files_of, self.tables()):
            yield from found

    def listed(self, path: str) -> bool:
        """Say whether `files` must list this path; also for one with empty or dot parts, which a listing normalises."""
        parts = path.split("/")
        return (len(parts) > 3 and parts[2] in _PARTS) or not {"", ".", ".."}.isdisjoint(parts)

    def exists(self, path: str) -> bool:
        """Say whether a file exists."""
        return PyArrowFileIO.new_input(self.io, f"{self.place}/{path}").exists()  # whole or not

    def remove(self, files: Iterable[StoredFile]) -> Iterator[tuple[StoredFile, str]]:
        """Remove files; a file that no longer exists is not a problem.

        Yields:
            Each file with the problem, or "".
        """
        return in_threads(self._attempt, files)

    def sign_in(self, made_at: dt.datetime) -> dt.datetime:
        """Note which catalog the files belong to, and return the time by the storage's own clock.

        Args:
            made_at: When the catalog was created; it identifies the catalog.

        Raises:
            CatalogError: The warehouse cannot be written, or another catalog keeps its files here: they would all
                count as garbage.
        """
        try:
            mine = sign_warehouse({**self.io.properties, "warehouse": self.place}, made_at)
            notes, now = self._notes(), self._modified(mine)
        except OSError as error:
            raise CatalogError(
                f"The warehouse cannot be written: {error.strerror or error}",
                where=self.place,
                fix="check that the storage exists, and that the setting `warehouse` is right.",
            ) from error
        if others := [name for name in notes if name != mine]:
            raise CatalogError(
                "Another catalog keeps its files in the same warehouse; nothing was removed.",
                where=", ".join(f"{self.place}/{name}" for name in others),
                fix="give each project a `warehouse` of its own, such as s3://bucket/project. "
                "If that catalog no longer exists, delete the file named above.",
            )
        return now

    @abc.abstractmethod
    def _modified(self, path: str) -> dt.datetime: ...

    def _attempt(self, file: StoredFile) -> str:
        try:
            self.remove_file(file.path)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return error.strerror or str(error)
        return ""


class _Folder(Warehouse):
    def __init__(self, place: str, io: PyArrowFileIO) -> None:
        super().__init__(place, io)
        # Several paths may lead to a warehouse; links are followed to compare paths, never to remove files.
        self._root = os.path.realpath(place)
        self._real = lru_cache(100_000)(os.path.realpath)

    def relative(self, location: str) -> str | None:
        scheme, _, path = self.io.parse_location(location, self.io.properties)
        folder, _, name = path.rpartition("/")
        real = self._real(folder)
        inside = scheme == "file" and f"{real}/".startswith(self._root + "/")
        return f"{real}/{name}"[len(self._root) + 1 :] if inside else None

    def tables(self) -> list[str]:
        return [f"{above.name}/{table.name}" for above in _folders(self._root) for table in _folders(above.path)]

    def files_of(self, table: str) -> list[StoredFile]:
        found = []
        for folder, names in self._walk(table):
            for path in (f"{folder}/{name}" for name in names):
                with contextlib.suppress(FileNotFoundError):
                    info = os.lstat(path)
                    if stat.S_ISREG(info.st_mode):
                        found.append(StoredFile(path[len(self._root) + 1 :], info.st_size, _utc(info.st_mtime)))
        return found

    def tidy(self) -> None:
        for table in self.tables():
            for folder, _ in reversed([*self._walk(table)]):
                _remove_if_empty(folder)
            _remove_if_empty(f"{self._root}/{table}")
        for namespace in _folders(self._root):
            if namespace.name != NOTES_FOLDER:
                _remove_if_empty(namespace.path)

    def _walk(self, table: str) -> Iterator[tuple[str, list[str]]]:
        """Yield the folders of a table that may contain files, each with its files; links are not followed."""
        for part in _PARTS:
            top = f"{self._root}/{table}/{part}"
            if os.path.isdir(top) and not os.path.islink(top):
                for folder, _, names in os.walk(top):
                    yield folder, names

    def remove_file(self, path: str) -> None:
        folder, _, name = path.rpartition("/")
        # A link that has replaced a folder since must not lead out of the warehouse.
        if os.path.realpath(f"{self._root}/{folder}") == f"{self._root}/{folder}":
            os.unlink(f"{self._root}/{folder}/{name}")

    def _notes(self) -> list[str]:
        return [f"{NOTES_FOLDER}/{name}" for name in os.listdir(f"{self._root}/{NOTES_FOLDER}")]

    def _modified(self, path: str) -> dt.datetime:
        return _utc(os.stat(f"{self._root}/{path}").st_mtime)


class _Bucket(Warehouse):
    def __init__(self, place: str, io: PyArrowFileIO) -> None:
        super().__init__(place, io)
        _, bucket, self._root = io.parse_location(place, io.properties)
        self._fs = io.fs_by_scheme("s3", bucket)

    def relative(self, location: str) -> str | None:
        scheme, _, path = self.io.parse_location(location, self.io.properties)
        inside = scheme in _S3 and path.startswith(self._root + "/")
        return path[len(self._root) + 1 :] if inside else None

    def tables(self) -> list[str]:
        namespaces = self._list(self._root, folders=True)
        below = in_threads(lambda namespace: self._list(namespace.path, folders=True), namespaces)
        return [table.path[len(self._root) + 1 :] for _, tables in below for table in tables]

    def files_of(self, table: str) -> list[StoredFile]:
        return [
            StoredFile(info.path[len(self._root) + 1 :], info.size, info.mtime)
            for part in _PARTS
            for info in self._list(f"{self._root}/{table}/{part}", recursive=True)
        ]

    def tidy(self) -> None:
        """Do nothing: S3 has no folders."""

    def remove_file(self, path: str) -> None:
        self._fs.delete_file(f"{self._root}/{path}")

    def _notes(self) -> list[str]:
        return [f"{NOTES_FOLDER}/{info.base_name}" for info in self._list(f"{self._root}/{NOTES_FOLDER}")]

    def _modified(self, path: str) -> dt.datetime:
        found: dt.datetime = self._fs.get_file_info(f"{self._root}/{path}").mtime
        return found

    def _list(self, path: str, *, folders: bool = False, recursive: bool = False) -> list[FileInfo]:
        wanted = FileType.Directory if folders else FileType.File
        selector = FileSelector(path, recursive=recursive, allow_not_found=True)
        return [info for info in self._fs.get_file_info(selector) if info.type == wanted]


def _folders(path: str) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]


def _remove_if_empty(path: str) -> None:
    with contextlib.suppress(OSError):  # it is not empty
        os.rmdir(path)


def _utc(timestamp: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(timestamp, dt.UTC)
