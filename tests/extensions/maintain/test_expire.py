"""The promises of expiry: old snapshots leave, and what any name needs stays; and of all steps together.

Modules: `cascade_maintain.expire`, `cascade_maintain.maintenance`.
"""

import datetime as dt
from typing import Any

import pytest
from pyiceberg.table import Table

from cascade.catalog import MAIN, BranchingCatalog, rows_of
from cascade.errors import CatalogError
from cascade_maintain.compact import compact_tables
from cascade_maintain.expire import Expiry, expire_snapshots
from cascade_maintain.garbage import collect_files
from support.lakes import ids, numbers, promoted, put

T = "raw.a"
# Snapshots of this very moment count as old.
NOW = dt.timedelta(seconds=-1)


@pytest.fixture
def lake(lake: BranchingCatalog) -> BranchingCatalog:
    """A lakehouse whose table has three snapshots."""
    for n in (1, 2, 3):
        promoted(lake, T, numbers(n, n))
    return lake


def expire(lake: BranchingCatalog, **options: Any) -> Expiry:
    return expire_snapshots(lake, **{"keep_history": NOW, **options})


def table_of(lake: BranchingCatalog, ref: str = MAIN) -> Table:
    return lake.load(T, lake.pointers(ref)[T])


def snapshots(lake: BranchingCatalog, ref: str = MAIN) -> list[int]:
    return [snapshot.snapshot_id for snapshot in table_of(lake, ref).metadata.snapshots]


def test_only_the_newest_stays_and_no_row_changes(lake: BranchingCatalog) -> None:
    head, properties = snapshots(lake)[-1], table_of(lake).properties
    done = expire(lake)
    assert [(e.table, e.snapshots, e.kept) for e in done.expired] == [(T, 2, 1)]
    assert (snapshots(lake), ids(lake, MAIN, T), table_of(lake).properties) == ([head], [1, 2, 3], properties)
    assert expire(lake).expired == ()


def test_a_dry_run_and_young_snapshots(lake: BranchingCatalog) -> None:
    state = lake.pointers(MAIN)
    assert [e.snapshots for e in expire(lake, dry_run=True).expired] == [2]
    assert expire(lake, keep_history=dt.timedelta(hours=1)).expired == ()
    assert lake.pointers(MAIN) == state


def test_what_was_the_newest_at_the_cutoff_stays(lake: BranchingCatalog) -> None:
    """So that a time since then can be read in the table's own history."""
    now = dt.datetime.now(dt.UTC)
    times = [snapshot.timestamp_ms for snapshot in table_of(lake).metadata.snapshots]
    middle = dt.datetime.fromtimestamp((times[1] + times[2]) / 2000, dt.UTC)
    done = expire(lake, keep_history=now - middle, dry_run=True)
    assert [e.snapshots for e in done.expired] == [1]


def test_names_of_the_tables_own_keep_their_snapshot(lake: BranchingCatalog) -> None:
    first = snapshots(lake)[0]
    lake.create("fix")
    lake.open("fix").load_table(T).manage_snapshots().create_tag(first, "frozen").commit()
    lake.merge("fix")
    lake.delete("fix")
    expire(lake)
    assert snapshots(lake)[0] == first


def test_branches_tags_and_the_log_keep_theirs(lake: BranchingCatalog) -> None:
    """Each is another state of the table, which nobody touches; a branch that is promoted brings its own back."""
    lake.tag("v1")
    lake.create("early")
    put(lake, "early", T, numbers(4, 4))
    first = lake.log()[-1].id
    expire(lake)
    assert (len(snapshots(lake, "v1")), len(snapshots(lake, "early")), len(snapshots(lake))) == (3, 4, 1)
    lake.merge("early")
    assert (ids(lake, MAIN, T), len(snapshots(lake))) == ([1, 2, 3, 4], 4)
    lake.restore(first)
    assert ids(lake, MAIN, T) == [1]


def test_a_table_that_main_lacks_is_refused(lake: BranchingCatalog) -> None:
    with pytest.raises(CatalogError, match="no table raw\\.b"):
        expire(lake, names=["raw.b"])


def test_all_steps_leave_one_file_of_each_kind(lake: BranchingCatalog) -> None:
    """One data file, manifest, list of manifests and metadata file are all that a table needs."""
    before = rows_of(table_of(lake))
    compact_tables(lake)
    expire(lake)
    collect_files(lake, older_than=NOW, keep_history=NOW)
    done = collect_files(lake, older_than=NOW, keep_history=NOW)
    assert (done.needed, done.young) == (4, 0)
    assert (ids(lake, MAIN, T), rows_of(table_of(lake))) == ([1, 2, 3], before)
    promoted(lake, T, numbers(4, 4))
    assert ids(lake, MAIN, T) == [1, 2, 3, 4]
