"""Copy the tables of `main`, with their history, from a data folder to the project's lake.

Data files are copied byte for byte; metadata is written again, since it holds absolute paths. `main` of the target
moves at the end, once for all tables: until then nobody sees anything, and what a killed process has copied is used
again.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pyiceberg.manifest import DataFile, DataFileContent, FileFormat

from cascade.catalog import MAIN, BranchingCatalog, open_catalog
from cascade.catalog.storage import storage_errors
from cascade.config import Settings, build_settings
from cascade.errors import CatalogError, DamagedFileError, LeaseHeldError, UsageError
from cascade.iceberg.head import past
from cascade_maintain.damage import damage_of
from cascade_maintain.main import LIFT_PREFIX, own_branch
from cascade_maintain.marks import Marks
from cascade_maintain.relocate import AvroContent, move_deletes, move_state
from cascade_maintain.warehouse import Warehouse, in_threads, open_warehouse
from cascade_operations.events import Counted, Listener, Loading, ignore

__all__ = ["Lift", "LiftedTable", "lift_lake"]

_THREADS = 8
_READ_BYTES = 1 << 20
_AVRO = ".avro"


@dataclass(frozen=True)
class LiftedTable:
    """A table of `main`.

    Attributes:
        table: `namespace.table`.
        snapshots: How many snapshots it has, old ones included.
        files: How many files these need.
        bytes: Their size together.
        is_there: Whether the target had it before.
        files_there: How many of its files the target had before, from an attempt that did not end.
    """

    table: str
    snapshots: int
    files: int
    bytes: int
    is_there: bool
    files_there: int


@dataclass(frozen=True)
class Lift:
    """What was lifted, or would be.

    Attributes:
        dry_run: Whether nothing was done.
        source: Where the files were.
        target: Where they are then.
        tables: All tables of `main`.
        branches: Branches with changes of their own, and tags; they are not lifted.
    """

    dry_run: bool
    source: str
    target: str
    tables: tuple[LiftedTable, ...]
    branches: tuple[str, ...]


def lift_lake(
    settings: Settings, folder: Path | None = None, *, dry_run: bool = False, tell: Listener = ignore
) -> Lift:
    """Copy the tables of `main`, with their history, from a data folder to the lake of the settings.

    Args:
        settings: The project's settings: the target.
        folder: The data folder of the source; by default that of the settings, which engines on servers do not use.
        dry_run: Whether to do nothing, and say what would be lifted.
        tell: Told of progress.

    Raises:
        UsageError: The folder holds no lake, or the settings lead to the same one.
        CatalogError: The target has tables of the same names with other content, or files are missing.
        DamagedFileError: Files are not what was written.
        LeaseHeldError: A run works towards `main` of one of the lakes.
    """
    source, target = _open_source(settings, folder or settings.data_path), open_catalog(settings)
    move = _Move(open_warehouse(source), open_warehouse(target))
    with contextlib.ExitStack() as held, storage_errors(move.target.place):
        if not dry_run:
            _hold(held, source, target)
        tell(Loading("tables"))
        pointers, there = source.pointers(MAIN), _there(source, target, move)
        plans = {name: _plan(source, name, at, move) for name, at in sorted(pointers.items())}
        tables = tuple(_described(name, plan, name in there, move) for name, plan in plans.items())
        waiting = {name: plan for name, plan in plans.items() if name not in there}
        if waiting and not dry_run:
            copied = 0
            for plan in waiting.values():
                _copy(plan, move)
                copied += len(plan.sizes)
                tell(Counted("copied", copied, "file"))
            with own_branch(target, LIFT_PREFIX) as branch:
                reference = target.open(branch)
                for name in waiting:
                    reference.register_table(name, move(pointers[name]))
                target.merge(branch, MAIN)
    others = (b.name for b in source.branches() if b.name != MAIN and (b.changed or b.kind == "tag"))
    return Lift(dry_run, move.source.place, move.target.place, tables, tuple(others))


@dataclass(frozen=True)
class _Move:
    """From one warehouse to another; each file keeps its path below the root."""

    source: Warehouse
    target: Warehouse

    def __call__(self, location: str) -> str:
        return f"{self.target.place}/{self.path(location)}"

    def path(self, location: str) -> str:
        path = self.source.relative(location)
        if path is None:
            raise CatalogError(
                "A table has a file outside its warehouse, which is not copied; nothing was lifted.",
                where=location,
                fix="load the table again, or move the file into the warehouse with a tool that writes its metadata.",
            )
        return path


def _open_source(settings: Settings, folder: Path) -> BranchingCatalog:
    """Open the lake in a data folder: of the engine that a project begins with."""
    own = build_settings(settings.project_dir, {"data_dir": folder})
    if not Path(own.warehouse_location).is_dir():
        raise UsageError(
            "There is no lake in this folder.",
            where=str(own.data_path),
            fix="name the data folder of the lake that is to be lifted: `cascade lift --from FOLDER`.",
        )
    if own.warehouse_location == settings.warehouse_location:
        raise UsageError(
            "The settings lead to the lake that is to be lifted.",
            where=own.warehouse_location,
            fix="set those of the servers first: `cascade services env`, or CASCADE_ENGINE and its like in .env; "
            "or name another lake: `cascade lift --from FOLDER`.",
        )
    return open_catalog(own)


def _hold(held: contextlib.ExitStack, *catalogs: BranchingCatalog) -> None:
    """Let no run and no garbage collection work on the lakes."""
    holder = f"cascade lift {os.getpid()}"
    for catalog in catalogs:
        try:
            held.enter_context(catalog.lease(MAIN, holder))
        except LeaseHeldError as error:
            if holder not in error.what:  # else both keep their locks in one folder, and it is held already
                raise
        held.enter_context(catalog.history_lock())


def _there(source: BranchingCatalog, target: BranchingCatalog, move: _Move) -> set[str]:
    """Return the tables that the target has already; refuses when it has another one of the same name."""
    here, there = source.pointers(MAIN), target.pointers(MAIN)
    same, other = set[str](), []
    for name in sorted(here.keys() & there.keys()):
        ours, theirs = source.load(name, here[name]).metadata, target.load(name, there[name]).metadata
        newest = ours.current_snapshot_id
        held = newest is None or newest in {snapshot.snapshot_id for snapshot in theirs.snapshots}
        if ours.table_uuid == theirs.table_uuid and held:
            same.add(name)
        else:
            other.append(name)
    if other:
        raise CatalogError(
            f"The target has tables of the same names with other content; nothing was lifted: {', '.join(other)}.",
            where=move.target.place,
            fix="lift into an empty lake, or drop these tables there on a branch and promote it.",
        )
    return same


@dataclass(frozen=True)
class _Plan:
    """What a table needs.

    Attributes:
        location: Its metadata file.
        earlier: Earlier metadata files, which list older snapshots; they become part of the first.
        snapshots: How many snapshots these list together.
        sizes: The files that are copied, path to bytes.
    """

    location: str
    earlier: tuple[str, ...]
    snapshots: int
    sizes: dict[str, int]


def _plan(source: BranchingCatalog, name: str, location: str, move: _Move) -> _Plan:
    """Find the files that a table and its history need."""
    marks, states, snapshots, sizes = Marks(move.source), list[str](), set[int](), dict[str, int]()
    for table in past(source, name, source.load(name, location)):
        marks.add([table.metadata_location])
        found = _sizes(move.source, marks.paths)
        problems = marks.problems + [f"{path}: it does not exist" for path in sorted(marks.paths - found.keys())]
        if problems and states:
            break  # so much of the past is not kept any more
        if problems:
            raise CatalogError(
                f"Files of {name} cannot be read; nothing was lifted.",
                where="; ".join(problems[:10]),
                fix="bring them back from a backup, or load the table again.",
            )
        states.append(table.metadata_location)
        snapshots |= {snapshot.snapshot_id for snapshot in table.snapshots()}
        sizes = found
    newest, *earlier = states
    for state in earlier:
        del sizes[move.path(state)]
    return _Plan(newest, tuple(earlier), len(snapshots), sizes)


def _sizes(warehouse: Warehouse, paths: Iterable[str]) -> dict[str, int]:
    """Return which of some files exist, and their sizes."""
    wanted = set(paths)
    folders = {"/".join(path.split("/")[:2]) for path in wanted}
    found = {file.path: file.size for folder in folders for file in warehouse.files_of(folder)}
    odd = [path for path in wanted - found.keys() if not warehouse.listed(path) and warehouse.exists(path)]
    found.update({path: len(warehouse.io.new_input(f"{warehouse.place}/{path}")) for path in odd})
    return {path: found[path] for path in sorted(wanted & found.keys())}


def _described(name: str, plan: _Plan, is_there: bool, move: _Move) -> LiftedTable:
    files_there = len(_sizes(move.target, plan.sizes))
    return LiftedTable(name, plan.snapshots, len(plan.sizes), sum(plan.sizes.values()), is_there, files_there)


def _copy(plan: _Plan, move: _Move) -> None:
    """Copy the files of a table, in the order in which they name each other: what is named exists."""
    state = move.path(plan.location)
    of_avro = [path for path in plan.sizes if path.endswith(_AVRO)]
    contents = in_threads(lambda path: _files(path, move), of_avro, threads=_THREADS)
    manifests = {path: files for path, files in contents if files is not None}
    files = {move.path(file.file_path): file for some in manifests.values() for file in some}
    _require_sound(files, move)
    marking = [path for path, file in files.items() if file.content == DataFileContent.POSITION_DELETES]
    written_again = {state, *of_avro, *marking}
    plain = [path for path in plan.sizes if path not in written_again]
    there = _sizes(move.target, plain)
    for _ in in_threads(lambda path: _copy_bytes(path, move, path in there), plain, threads=_THREADS):
        pass
    lists = [path for path in of_avro if path not in manifests]
    sizes = {move(f"{move.source.place}/{path}"): _copy_deletes(path, move) for path in marking}
    lengths = {
        f"{move.target.place}/{path}": length
        for path, length in in_threads(lambda path: _copy_manifest(path, move, sizes), manifests, threads=_THREADS)
    }
    for _ in in_threads(lambda path: _copy_list(path, move, lengths), lists, threads=_THREADS):
        pass
    content, *earlier = (_content(at, move) for at in (plan.location, *plan.earlier))
    with move.target.io.new_output(f"{move.target.place}/{state}").create(overwrite=True) as file:
        file.write(move_state(content, earlier, move))


def _files(path: str, move: _Move) -> list[DataFile] | None:
    """Return the files that a manifest names; `None` for a list of manifests."""
    content = AvroContent.read(move.source.io.new_input(f"{move.source.place}/{path}"))
    return None if content.is_list else list(content.files())


def _require_sound(files: Mapping[str, DataFile], move: _Move) -> None:
    checks = in_threads(lambda path: damage_of(move.source.io, files[path])[0], files, threads=_THREADS)
    problems = [f"{files[path].file_path}: {problem}" for path, problem in checks if problem]
    problems += [
        f"{file.file_path}: it marks rows as deleted in a format that Cascade does not copy"
        for file in files.values()
        if file.content == DataFileContent.POSITION_DELETES and file.file_format != FileFormat.PARQUET
    ]
    if problems:
        raise DamagedFileError(
            "Data files are damaged; nothing was lifted.",
            where="; ".join(problems),
            fix="bring them back from a backup, or load all of the table again and let its history leave: "
            "`cascade maintain all --keep-history 0d --files-older-than 0d --apply` on the lake that is lifted.",
        )


def _copy_bytes(path: str, move: _Move, is_there: bool) -> None:
    """Copy a file, unless it is there; its checksum is compared with that of what can be read at the target."""
    wanted = _checksum(move.source, path)
    if is_there and _checksum(move.target, path) == wanted:
        return
    with (
        move.source.io.new_input(f"{move.source.place}/{path}").open() as source,
        move.target.io.new_output(f"{move.target.place}/{path}").create(overwrite=True) as target,
    ):
        while read := source.read(_READ_BYTES):
            target.write(read)
    if _checksum(move.target, path) != wanted:
        raise DamagedFileError(
            "A file arrived with other content than it has; nothing was lifted.",
            where=f"{move.target.place}/{path}",
            fix="run again; if it repeats, look at the disk of the storage, and at what lies between.",
        )


def _checksum(warehouse: Warehouse, path: str) -> int:
    found = 0
    with warehouse.io.new_input(f"{warehouse.place}/{path}").open() as stream:
        while read := stream.read(_READ_BYTES):
            found = zlib.crc32(read, found)
    return found


def _copy_deletes(path: str, move: _Move) -> int:
    place = f"{move.target.place}/{path}"
    with move.source.io.new_input(f"{move.source.place}/{path}").open() as stream:
        move_deletes(stream, move.target.io.new_output(place), move)
    return len(move.target.io.new_input(place))


def _copy_manifest(path: str, move: _Move, sizes: Mapping[str, int]) -> int:
    content = AvroContent.read(move.source.io.new_input(f"{move.source.place}/{path}"))
    content.move_manifest(move, sizes)
    return content.write(move.target.io.new_output(f"{move.target.place}/{path}"))


def _copy_list(path: str, move: _Move, lengths: Mapping[str, int]) -> None:
    content = AvroContent.read(move.source.io.new_input(f"{move.source.place}/{path}"))
    content.move_list(move, lengths)
    content.write(move.target.io.new_output(f"{move.target.place}/{path}"))


def _content(location: str, move: _Move) -> bytes:
    with move.source.io.new_input(location).open() as stream:
        return bytes(stream.read())
