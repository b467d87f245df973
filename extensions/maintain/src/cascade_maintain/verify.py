"""Find data files whose content changed since they were written: by a disk, a copy or a person."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile

from cascade.catalog import BranchingCatalog
from cascade.errors import BranchNotFoundError
from cascade_maintain.damage import damage_of
from cascade_maintain.warehouse import in_threads
from cascade_operations.events import Counted, Listener, Loading, ignore

__all__ = ["DamagedFile", "Verification", "verify_files"]

# Each thread keeps some rows of a file in memory.
_THREADS = 4
_TOLD = 500


@dataclass(frozen=True)
class DamagedFile:
    """A data file whose content has changed since it was written.

    Attributes:
        table: The table that needs it, `namespace.table`.
        path: Its location, as Iceberg has it.
        problem: What is wrong with it.
    """

    table: str
    path: str
    problem: str


@dataclass(frozen=True)
class Verification:
    """What reading all data files has found.

    Attributes:
        files: How many files were read.
        bytes: Their size together.
        without_checksums: How many of them have no checksums, so that a changed value may not be noticed.
        damaged: The damaged files.
    """

    files: int
    bytes: int
    without_checksums: int
    damaged: tuple[DamagedFile, ...]


def verify_files(catalog: BranchingCatalog, *, tell: Listener = ignore) -> Verification:
    """Read the data files of every table as each branch and tag has it now.

    Args:
        catalog: The catalog.
        tell: Called with each event.
    """
    tell(Loading("tables"))
    live: dict[str, tuple[str, FileIO, DataFile]] = {}
    states: set[tuple[str, str]] = set()
    for reference in catalog.branches():
        with contextlib.suppress(BranchNotFoundError):  # it was just deleted
            states.update(catalog.pointers(reference.name).items())
    for name, location in sorted(states):
        table = catalog.load(name, location)
        for task in table.scan().plan_files():
            for file in (task.file, *task.delete_files):
                live[file.file_path] = name, table.io, file
    files = size = without_checksums = 0
    damaged = []
    checks = in_threads(lambda path: damage_of(*live[path][1:]), live, threads=_THREADS)
    for path, (problem, checksums) in checks:
        files += 1
        size += live[path][2].file_size_in_bytes
        without_checksums += not checksums
        if problem:
            damaged.append(DamagedFile(live[path][0], path, problem))
        if files % _TOLD == 0:
            tell(Counted("verified", files, "file"))
    return Verification(files, size, without_checksums, tuple(damaged))
