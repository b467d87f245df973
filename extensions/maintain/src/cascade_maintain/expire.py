"""Let old snapshots of the tables of `main` leave: what they alone needed is garbage from then on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import pairwise

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import AssertRefSnapshotId, AssertTableUUID, RemoveSnapshotsUpdate

from cascade.catalog import BranchingCatalog
from cascade.iceberg.head import KEPT_STATES
from cascade_maintain.main import TOLD, Commit, maintained, tables_of_main
from cascade_operations.events import Counted, Listener, ignore

__all__ = ["Expired", "Expiry", "expire_snapshots", "keep_newest"]

# So many tables move at once: a run that writes one of them makes these wait, and no others.
_TABLES = 100


@dataclass(frozen=True)
class Expired:
    """A table whose old snapshots left, or would leave.

    Attributes:
        table: `namespace.table`.
        snapshots: How many left.
        kept: How many it still has.
    """

    table: str
    snapshots: int
    kept: int


@dataclass(frozen=True)
class Expiry:
    """Which snapshots left, or would leave.

    Attributes:
        dry_run: Whether nothing was done.
        before: Snapshots that were the newest at this time, or later, stay.
        looked_at: How many tables were looked at.
        expired: The tables that had older ones.
        left: Tables that had, and were left as they are: runs kept writing them, and the next time will do.
    """

    dry_run: bool
    before: dt.datetime
    looked_at: int
    expired: tuple[Expired, ...]
    left: tuple[str, ...]


def expire_snapshots(
    catalog: BranchingCatalog,
    names: Collection[str] = (),
    *,
    keep_history: dt.timedelta,
    dry_run: bool = False,
    tell: Listener = ignore,
) -> Expiry:
    """Take snapshots out of tables of `main` that were replaced longer ago than an age; no row changes.

    Branches, tags and the log name states of tables, each with its own snapshots; all of them stay readable.

    Args:
        catalog: The catalog.
        names: The tables, `namespace.table`; all by default.
        keep_history: The age.
        dry_run: Whether to only report what would leave.
        tell: Called with each event.

    Raises:
        CatalogError: `main` has no such table.
    """
    before = dt.datetime.now(dt.UTC) - keep_history
    looked_at, expired, left = _expire(catalog, names, lambda table: _old(table, before), dry_run, tell)
    return Expiry(dry_run, before, looked_at, expired, left)


def keep_newest(catalog: BranchingCatalog, names: Collection[str]) -> tuple[Expired, ...]:
    """Take all snapshots out of tables of `main` but as many as our commits keep, for what others have written."""
    return _expire(catalog, names, _beyond, dry_run=False, tell=ignore)[1]


def _expire(
    catalog: BranchingCatalog,
    names: Collection[str],
    old: Callable[[Table], list[int]],
    dry_run: bool,
    tell: Listener,
) -> tuple[int, tuple[Expired, ...], tuple[str, ...]]:
    """Return how many tables were looked at, those that had old snapshots, and those that were left as they are."""
    pointers = tables_of_main(catalog, names)
    found: dict[str, Expired] = {}
    for number, (name, location) in enumerate(pointers.items(), 1):
        table = catalog.load(name, location)
        if some := old(table):
            found[name] = Expired(name, len(some), len(table.snapshots()) - len(some))
        if number % TOLD == 0:
            tell(Counted("looked at", number, "table"))
    waiting, left = [*found], list[str]()
    while waiting and not dry_run:
        some_names, waiting = waiting[:_TABLES], waiting[_TABLES:]
        if not maintained(catalog, some_names, lambda table: _commit(table, old(table))):
            left += some_names
    expired = tuple(each for name, each in found.items() if name not in left)
    return len(pointers), expired, tuple(left)


def _old(table: Table, before: dt.datetime) -> list[int]:
    """Return the snapshots that were no longer the newest at a time; what a name of the table's own needs stays."""
    in_order, named = _in_order(table)
    cutoff = before.timestamp() * 1000
    return [
        old.snapshot_id
        for old, following in pairwise(in_order)
        if following.timestamp_ms < cutoff and old.snapshot_id not in named
    ]


def _beyond(table: Table) -> list[int]:
    """Return the snapshots beyond the newest ones; what a name of the table's own needs stays."""
    in_order, named = _in_order(table)
    return [old.snapshot_id for old in in_order[:-KEPT_STATES] if old.snapshot_id not in named]


def _in_order(table: Table) -> tuple[list[Snapshot], set[int]]:
    """Return a table's snapshots, the oldest first, and those that have a name in the table."""
    snapshots = sorted(table.metadata.snapshots, key=lambda one: (one.timestamp_ms, one.sequence_number or 0))
    return snapshots, {reference.snapshot_id for reference in table.metadata.refs.values()}


def _commit(table: Table, old: list[int]) -> Commit | None:
    if not old:
        return None
    same = (
        AssertTableUUID(uuid=table.metadata.table_uuid),
        AssertRefSnapshotId(ref="main", snapshot_id=table.metadata.current_snapshot_id),  # type: ignore[call-arg]  # an alias
    )
    return same, (RemoveSnapshotsUpdate(snapshot_ids=old),)  # type: ignore[call-arg]  # an alias
