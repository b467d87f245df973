"""Collect garbage: mark every file that a branch, tag or recent log entry needs, remove old ones that are left."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cascade.catalog import BranchingCatalog
from cascade.errors import CatalogError
from cascade.operations.events import Counted, Listener, ignore
from cascade_maintain.marks import Marks
from cascade_maintain.warehouse import StoredFile, Warehouse, in_threads, open_warehouse

__all__ = ["Collection", "collect_files"]

_METADATA = ".metadata.json"
_SHOWN = 10


@dataclass(frozen=True)
class Collection:
    """What a collection removed, or would remove.

    Attributes:
        dry_run: Whether nothing was removed.
        written_before: Only files that were written before are removed; by the storage's clock.
        history_since: Entries of the log from this time on can be restored.
        removed: The files.
        bytes: Their size together.
        needed: How many files are needed.
        young: How many files nothing needs that are too young to be removed.
        missing: Data files that a state needs and that do not exist: something else damaged the lakehouse.
        failed: Files that could not be removed, and why.
    """

    dry_run: bool
    written_before: dt.datetime
    history_since: dt.datetime
    removed: tuple[StoredFile, ...]
    bytes: int
    needed: int
    young: int
    missing: tuple[str, ...]
    failed: Mapping[str, str]


class _Listing(NamedTuple):
    """The files of a warehouse: which may be removed, how many are needed or too young, and which are missing."""

    candidates: list[StoredFile]
    needed: int
    young: int
    missing: list[str]


def collect_files(
    catalog: BranchingCatalog,
    *,
    older_than: dt.timedelta,
    keep_history: dt.timedelta,
    unfinished_since: dt.datetime | None = None,
    dry_run: bool = False,
    tell: Listener = ignore,
) -> Collection:
    """Remove the files that nothing needs.

    Needed is what a branch, a tag, or the state that a branch was made from holds, all snapshots included, and
    what an entry of the log needs to be restored. Writers may work meanwhile: what they have staged is younger
    than the cutoff, what they build on is needed.

    Args:
        catalog: The catalog.
        older_than: How old a file must be. Longer than the longest run.
        keep_history: How long entries of the log can be restored; at least `older_than`.
        unfinished_since: When the oldest run began that may still be writing; its files stay.
        dry_run: Whether to remove nothing, and say what would be removed.
        tell: Told of progress.

    Raises:
        CatalogError: A file that a branch needs cannot be read, a table lives outside the warehouse, or another
            catalog keeps files there. Nothing was removed.
    """
    warehouse = open_warehouse(catalog)
    now = warehouse.sign_in(catalog.branches()[0].created_at)
    cutoff = now - older_than
    if unfinished_since:
        # Storages that keep whole seconds say of a file that the run has just written that it is as old as the run.
        cutoff = min(cutoff, unfinished_since - dt.timedelta(seconds=1))
    since = min(now - keep_history, cutoff)
    marks = Marks(warehouse)
    _mark(catalog, marks, since)
    tell(Counted("marked", len(marks.paths), "needed file"))
    listing = _list(warehouse, marks, cutoff)
    tell(Counted("listed", len(listing.candidates), "unneeded file"))
    removed: list[StoredFile] = []
    failed: dict[str, str] = {}
    if dry_run:
        states, others = _garbage(listing.candidates, marks)
        removed = states + others
    else:
        # An old state is restored before its metadata is removed, and is marked; or afterwards, and is refused.
        with catalog.history_lock():
            _mark(catalog, marks, since)
            states, others = _garbage(listing.candidates, marks)
            _remove(warehouse, states, removed, failed, tell)
        # Whatever happens now: a state whose metadata exists is whole.
        if not failed:
            _remove(warehouse, others, removed, failed, tell)
            warehouse.tidy()
    return Collection(
        dry_run=dry_run,
        written_before=cutoff,
        history_since=since,
        removed=tuple(removed),
        bytes=sum(file.size for file in removed),
        needed=listing.needed,
        young=listing.young,
        missing=tuple(listing.missing),
        failed=failed,
    )


def _mark(catalog: BranchingCatalog, marks: Marks, since: dt.datetime) -> None:
    """Mark what the lake needs now; refuse to go on where that cannot be told."""
    needed = catalog.locations(since)
    marks.add(needed.standing)
    marks.add(needed.history, lenient=True)
    if marks.problems:
        shown = sorted(marks.problems)[:_SHOWN]
        more = len(marks.problems) - len(shown)
        raise CatalogError(
            "What the lake needs cannot be told, so nothing was removed.\n"
            + "\n".join(f"    {problem}" for problem in shown)
            + (f"\n    and {more:,} more" if more else ""),
            where=marks.warehouse.place,
            fix="bring the files back, or drop the tables or branches that need them; tables must live in the "
            "warehouse.",
        )


def _list(warehouse: Warehouse, marks: Marks, cutoff: dt.datetime) -> _Listing:
    """List the files of the warehouse by what is to become of them."""
    unseen = set(marks.paths)
    candidates: list[StoredFile] = []
    young: list[StoredFile] = []
    needed = 0
    for file in warehouse.files():
        if file.path in marks.paths:
            unseen.discard(file.path)
            needed += 1
        else:
            (young if file.modified > cutoff else candidates).append(file)
    missing = _missing({path for path in unseen if warehouse.listed(path)}, warehouse)
    # Metadata that a process is about to commit, or left a moment ago, keeps its files. Unreadable metadata is ignored:
    # it may still be being written.
    marks.add((f"{warehouse.place}/{f.path}" for f in young if f.path.endswith(_METADATA)), lenient=True)
    marks.problems.clear()
    return _Listing(candidates, needed, len(young), missing)


def _garbage(candidates: list[StoredFile], marks: Marks) -> tuple[list[StoredFile], list[StoredFile]]:
    """Return what is to be removed: the metadata, which goes first, and what it names."""
    unmarked = sorted((file for file in candidates if file.path not in marks.paths), key=lambda file: file.path)
    states = [file for file in unmarked if file.path.endswith(_METADATA)]
    return states, [file for file in unmarked if not file.path.endswith(_METADATA)]


def _missing(unseen: set[str], warehouse: Warehouse) -> list[str]:
    """Return which unlisted files do not exist; one that does has another name too, and then nothing is safe."""
    missing = []
    for path, exists in in_threads(warehouse.exists, unseen):
        if exists:
            raise CatalogError(
                "A file that a table needs is not listed under its own name; nothing was removed.",
                where=f"{warehouse.place}/{path}",
                fix="tables keep files in namespace/table/data and namespace/table/metadata of the warehouse, "
                "and no links lead there; move this table's files, or run again if it was just dropped.",
            )
        missing.append(path)
    return missing


def _remove(
    warehouse: Warehouse,
    files: list[StoredFile],
    removed: list[StoredFile],
    failed: dict[str, str],
    tell: Listener,
) -> None:
    for file, problem in warehouse.remove(files):
        if problem:
            failed[file.path] = problem
            continue
        removed.append(file)
        if len(removed) % 10_000 == 0:
            tell(Counted("removed", len(removed), "file"))
