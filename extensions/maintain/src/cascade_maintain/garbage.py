"""Collect garbage: mark each file that a branch, tag or recent log entry needs, remove old files without a mark."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cascade.catalog import BranchingCatalog, TableChange
from cascade.errors import BranchNotFoundError, CatalogError
from cascade_maintain.marks import Marks
from cascade_maintain.warehouse import StoredFile, Warehouse, in_threads, open_warehouse
from cascade_operations.events import Counted, Listener, ignore

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

    A file is needed by a branch, a tag or the state that a branch was created from, all snapshots included, or
    by an entry of the log that can be restored. Writers may work at the same time: their staged files are younger
    than the cutoff, and the files that they build on are needed.

    Args:
        catalog: The catalog.
        older_than: Minimum age of a file; longer than the longest run.
        keep_history: How long entries of the log can be restored; at least `older_than`.
        unfinished_since: Start of the oldest run that may still be writing; its files stay.
        dry_run: Whether to only report what would be removed.
        tell: Called with each event.

    Raises:
        CatalogError: A file that a branch needs cannot be read, a table is outside the warehouse, or another
            catalog keeps files there. Nothing was removed.
    """
    warehouse = open_warehouse(catalog)
    now = warehouse.sign_in(catalog.branches()[0].created_at)
    cutoff = now - older_than
    if unfinished_since:
        # Some storages keep whole seconds: a file that the run has just written may look as old as the run.
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
        # A past state is restored either before this, and is marked, or after it, and the restore is refused.
        with catalog.history_lock():
            _mark(catalog, marks, since)
            states, others = _garbage(listing.candidates, marks)
            _remove(warehouse, states, removed, failed, tell)
        # From here on an error does no harm: each state whose metadata exists is complete.
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
    """Mark the files that are needed now; refuses if that is unknown for any table."""
    current, history = _states(catalog, since)
    marks.add(current)
    marks.add(history - current, lenient=True)
    if marks.problems:
        shown = sorted(marks.problems)[:_SHOWN]
        more = len(marks.problems) - len(shown)
        raise CatalogError(
            "Some needed files cannot be read, so nothing was removed.\n"
            + "\n".join(f"    {problem}" for problem in shown)
            + (f"\n    and {more:,} more" if more else ""),
            where=marks.warehouse.place,
            fix="restore the files, or drop the tables or branches that need them; tables must be in the warehouse.",
        )


def _states(catalog: BranchingCatalog, since: dt.datetime) -> tuple[set[str], set[str]]:
    """Return the metadata files of references and of what branches began with, and those that the log names."""
    current: set[str] = set()
    history: set[str] = set()
    # `main` comes last: what a promotion moves during this loop is seen on the one side or on the other.
    for reference in reversed(catalog.branches()):
        with contextlib.suppress(BranchNotFoundError):  # deleted during this loop
            current.update(catalog.pointers(reference.name).values())
            current |= _sides(catalog.changes(reference.name))
            for entry in catalog.log(reference.name) if reference.kind == "branch" else ():
                if entry.at >= since:
                    history |= _sides(entry.changes)
    return current, history


def _sides(changes: Iterable[TableChange]) -> set[str]:
    return {side for change in changes for side in (change.before, change.after) if side is not None}


def _list(warehouse: Warehouse, marks: Marks, cutoff: dt.datetime) -> _Listing:
    """List the files of the warehouse: needed, too young, or candidates for removal."""
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
    # Young metadata, which a process may be about to commit, keeps its files. Unreadable metadata is ignored: it may
    # be half written.
    marks.add((f"{warehouse.place}/{f.path}" for f in young if f.path.endswith(_METADATA)), lenient=True)
    marks.problems.clear()
    return _Listing(candidates, needed, len(young), missing)


def _garbage(candidates: list[StoredFile], marks: Marks) -> tuple[list[StoredFile], list[StoredFile]]:
    """Return the files to remove: metadata, which is removed first, and the rest."""
    unmarked = sorted((file for file in candidates if file.path not in marks.paths), key=lambda file: file.path)
    states = [file for file in unmarked if file.path.endswith(_METADATA)]
    return states, [file for file in unmarked if not file.path.endswith(_METADATA)]


def _missing(unseen: set[str], warehouse: Warehouse) -> list[str]:
    """Return the unlisted files that do not exist; refuses if one exists, because then it is listed by another name."""
    missing = []
    for path, exists in in_threads(warehouse.exists, unseen):
        if exists:
            raise CatalogError(
                "A file that a table needs is not listed under its own name; nothing was removed.",
                where=f"{warehouse.place}/{path}",
                fix="tables keep files in namespace/table/data and namespace/table/metadata of the warehouse, "
                "without links to them; move this table's files, or run again if it was just dropped.",
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
