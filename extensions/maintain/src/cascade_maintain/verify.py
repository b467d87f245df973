"""Find data files that are not what was written: a disk, a copy or a hand has changed them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile

from cascade.catalog import BranchingCatalog
from cascade.errors import BranchNotFoundError
from cascade.iceberg.damage import damage_of
from cascade_maintain.warehouse import in_threads

__all__ = ["Verification", "verify_files"]

# Each holds some rows of a file in memory.
_THREADS = 4
_TOLD = 500


@dataclass
class Verification:
    """What was found.

    Attributes:
        files: How many files were read.
        bytes: How large they are together.
        without_checksums: How many of them have no checksums, so that a changed value may go unseen.
        damaged: `table`, `path` and `problem` of each damaged file.
    """

    files: int = 0
    bytes: int = 0
    without_checksums: int = 0
    damaged: list[dict[str, str]] = field(default_factory=list)


def verify_files(catalog: BranchingCatalog, *, tell: Callable[[str, str], None] = lambda *_: None) -> Verification:
    """Read the data files of every table as each branch and tag has it now.

    Args:
        catalog: The catalog.
        tell: Called with what goes on, a word and its object.
    """
    tell("loading", "tables")
    live: dict[str, tuple[str, FileIO, DataFile]] = {}
    states: set[tuple[str, str]] = set()
    for reference in catalog.branches():
        with contextlib.suppress(BranchNotFoundError):  # dropped meanwhile
            states.update(catalog.pointers(reference.name).items())
    for name, location in sorted(states):
        table = catalog.load(name, location)
        for task in table.scan().plan_files():
            for file in (task.file, *task.delete_files):
                live[file.file_path] = name, table.io, file
    found = Verification()
    checks = in_threads(lambda path: damage_of(*live[path][1:]), live, threads=_THREADS)
    for path, (problem, checksums) in checks:
        found.files += 1
        found.bytes += live[path][2].file_size_in_bytes
        found.without_checksums += not checksums
        if problem:
            found.damaged.append({"table": live[path][0], "path": path, "problem": problem})
        if found.files % _TOLD == 0:
            tell("verified", f"{found.files:,} files")
    return found
