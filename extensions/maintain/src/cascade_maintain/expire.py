"""Let old snapshots of the tables of `main` leave: what they alone needed is garbage from then on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

from pyiceberg.table import Table
from pyiceberg.table.update import AssertRefSnapshotId, AssertTableUUID, RemoveSnapshotsUpdate

from cascade.catalog import BranchingCatalog
from cascade_maintain.main import TOLD, Commit, maintained, tables_of_main
from cascade_operations.events import Counted, Listener, ignore

__all__ = ["Expired", "Expiry", "expire_snapshots"]

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
    pointers = tables_of_main(catalog, names)
    found: dict[str, Expired] = {}
    for number, (name, location) in enumerate(pointers.items(), 1):
        table = catalog.load(name, location)
        if old := _old(table, before):
            found[name] = Expired(name, len(old), len(table.snapshots()) - len(old))
        if number % TOLD == 0:
            tell(Counted("looked at", number, "table"))
    waiting, left = [*found], list[str]()
    while waiting and not dry_run:
        some, waiting = waiting[:_TABLES], waiting[_TABLES:]
        if not maintained(catalog, some, lambda table: _commit(table, before)):
            left += some
    expired = tuple(each for name, each in found.items() if name not in left)
    return Expiry(dry_run, before, len(pointers), expired, tuple(left))


def _old(table: Table, before: dt.datetime) -> list[int]:
    """Return the snapshots that were no longer the newest at a time; what a name of the table's own needs stays."""
    named = {reference.snapshot_id for reference in table.metadata.refs.values()}
    in_order = sorted(table.metadata.snapshots, key=lambda snapshot: (snapshot.timestamp_ms, snapshot.sequence_number))
    cutoff = before.timestamp() * 1000
    return [
        old.snapshot_id
        for old, following in pairwise(in_order)
        if following.timestamp_ms < cutoff and old.snapshot_id not in named
    ]


def _commit(table: Table, before: dt.datetime) -> Commit | None:
    old = _old(table, before)
    if not old:
        return None
    same = (
        AssertTableUUID(uuid=table.metadata.table_uuid),
        AssertRefSnapshotId(ref="main", snapshot_id=table.metadata.current_snapshot_id),  # type: ignore[call-arg]  # an alias
    )
    return same, (RemoveSnapshotsUpdate(snapshot_ids=old),)  # type: ignore[call-arg]  # an alias
