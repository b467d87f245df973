"""Collect garbage: mark every file that a branch, tag or recent log entry needs, remove old ones that are left."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field

from cascade.catalog import BranchingCatalog
from cascade.errors import CatalogError, count
from cascade_maintain.marks import Marks
from cascade_maintain.warehouse import StoredFile, Warehouse, in_threads, open_warehouse

__all__ = ["Collection", "collect_files"]

_METADATA = ".metadata.json"
_SHOWN = 10


@dataclass
class Collection:
    """What a collection removed, or would remove.

    Attributes:
        cutoff: Only files that were written before are removed; by the storage's clock.
        since: What the log has from then on can be restored.
        removed: The files.
        needed: How many files are needed.
        young: How many files nothing needs, and are younger than the cutoff.
        missing: Data files that a state names and that are not there: the lake was damaged by something else.
        failed: Files that could not be removed, and why.
    """

    cutoff: dt.datetime
    since: dt.datetime
    removed: list[StoredFile] = field(default_factory=list)
    needed: int = 0
    young: int = 0
    missing: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def collect_files(
    catalog: BranchingCatalog,
    *,
    older_than: dt.timedelta,
    keep_history: dt.timedelta,
    unfinished_since: dt.datetime | None = None,
    dry_run: bool = False,
    tell: Callable[[str, str], None] = lambda event, subject: None,
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
    found = Collection(cutoff=cutoff, since=min(now - keep_history, cutoff))
    marks = Marks(warehouse)
    _mark(catalog, marks, found.since)
    tell("marked", f"{len(marks.paths):,} needed files")
    candidates = _candidates(warehouse, marks, found)
    tell("listed", f"{count(len(candidates), 'file')} that nothing needs")
    if dry_run:
        states, others = _garbage(candidates, marks)
        found.removed = states + others
        return found
    # An old state is restored before its metadata goes, and is marked; or afterwards, and is refused.
    with catalog.history_lock():
        _mark(catalog, marks, found.since)
        states, others = _garbage(candidates, marks)
        _remove(warehouse, states, found, tell)
    # Whatever happens now: a state whose metadata is there is whole.
    if not found.failed:
        _remove(warehouse, others, found, tell)
        warehouse.tidy()
    return found


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


def _candidates(warehouse: Warehouse, marks: Marks, found: Collection) -> list[StoredFile]:
    """Return the old files that are not marked."""
    unseen = set(marks.paths)
    candidates: list[StoredFile] = []
    young: list[StoredFile] = []
    for file in warehouse.files():
        if file.path in marks.paths:
            unseen.discard(file.path)
            found.needed += 1
        else:
            (young if file.modified > found.cutoff else candidates).append(file)
    found.young = len(young)
    _look_for({path for path in unseen if warehouse.listed(path)}, warehouse, found)
    # What somebody is about to commit, or left a moment ago. It stays whole; if it is half written, so be it.
    marks.add((f"{warehouse.place}/{f.path}" for f in young if f.path.endswith(_METADATA)), lenient=True)
    marks.problems.clear()
    return candidates


def _garbage(candidates: list[StoredFile], marks: Marks) -> tuple[list[StoredFile], list[StoredFile]]:
    """Return what is to be removed: the metadata, which goes first, and what it names."""
    unmarked = sorted((file for file in candidates if file.path not in marks.paths), key=lambda file: file.path)
    states = [file for file in unmarked if file.path.endswith(_METADATA)]
    return states, [file for file in unmarked if not file.path.endswith(_METADATA)]


def _look_for(unseen: set[str], warehouse: Warehouse, found: Collection) -> None:
    """See why needed files are not listed: they are missing, or known by another name, and then nothing is safe."""
    for path, exists in in_threads(warehouse.exists, unseen):
        if exists:
            raise CatalogError(
                "A file that a table needs is not listed under its own name; nothing was removed.",
                where=f"{warehouse.place}/{path}",
                fix="tables keep files in namespace/table/data and namespace/table/metadata of the warehouse, "
                "and no links lead there; move this table's files, or run again if it was just dropped.",
            )
        found.missing.append(path)


def _remove(warehouse: Warehouse, files: list[StoredFile], found: Collection, tell: Callable[[str, str], None]) -> None:
    for file, problem in warehouse.remove(files):
        if problem:
            found.failed[file.path] = problem
        else:
            found.removed.append(file)
        if len(found.removed) % 10_000 == 0 and found.removed:
            tell("removed", count(len(found.removed), "file"))
