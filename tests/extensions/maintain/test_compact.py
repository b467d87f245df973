"""The promises of compaction: the same rows in fewer files, sorted; nobody else notices.

Modules: `cascade_maintain.compact`, `cascade_maintain.main`, `cascade_maintain.rewrite`.
"""

import datetime as dt
import decimal
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType

from cascade.catalog import MAIN, BranchingCatalog, rows_of
from cascade.errors import CatalogError, PromotionConflictError
from cascade.names import KEY_PROPERTY, PARTITIONS_PROPERTY, SUMMED_FILE
from cascade.publish.marts import Mart
from cascade_maintain import rewrite
from cascade_maintain.compact import Compaction, compact_tables
from cascade_maintain.main import maintained
from support.lakes import Rows, ids, mark_deleted, numbers, promoted, put, read

T = "raw.a"


def main_table(lake: BranchingCatalog, name: str = T) -> Table:
    return lake.load(name, lake.pointers(MAIN)[name])


def files_of(lake: BranchingCatalog, name: str = T) -> list[str]:
    return [task.file.file_path for task in main_table(lake, name).scan().plan_files()]


def summary_of(table: Table, *names: str) -> list[Any]:
    head = table.current_snapshot()
    assert head is not None
    assert head.summary is not None
    return [head.summary[name] for name in names]


def small_files(lake: BranchingCatalog, *starts: int, table: str = T, **options: Any) -> None:
    """Let `main` have a table of one file for each start, each with three rows."""
    for start in starts:
        put(lake, "setup", table, numbers(start, start + 2), **options)
    lake.merge("setup", MAIN)
    lake.delete("setup")


def done(compaction: Compaction) -> list[tuple[str, int, int]]:
    assert (compaction.left, compaction.problems) == ((), {})
    return [(c.table, c.files, c.new_files) for c in compaction.compacted]


def test_rows_are_the_same_in_one_file_sorted_by_key(lake: BranchingCatalog) -> None:
    small_files(lake, 30, 10, 20, properties={KEY_PROPERTY: '["id"]'})
    before = main_table(lake)
    assert done(compact_tables(lake)) == [(T, 3, 1)]
    after = main_table(lake)
    assert after.scan().to_arrow()["id"].to_pylist() == [10, 11, 12, 20, 21, 22, 30, 31, 32]
    assert (rows_of(after), after.properties) == (rows_of(before), before.properties)
    assert after.metadata.current_snapshot_id != before.metadata.current_snapshot_id
    assert summary_of(after, "operation", "total-records", "total-data-files") == [Operation.REPLACE, "9", "1"]
    assert len(after.scan(snapshot_id=rows_of(before)).to_arrow()) == 9


def test_what_is_compacted_is_left_alone_and_its_marts_need_no_publishing(lake: BranchingCatalog) -> None:
    small_files(lake, 1, 4)
    version = Mart(main_table(lake)).version
    compact_tables(lake)
    state = lake.pointers(MAIN)
    assert done(compact_tables(lake)) == []
    assert (lake.pointers(MAIN), Mart(main_table(lake)).version) == (state, version)


def test_a_dry_run_says_what_the_real_one_does(lake: BranchingCatalog) -> None:
    small_files(lake, 1, 4)
    state = lake.pointers(MAIN)
    dry = compact_tables(lake, dry_run=True)
    assert lake.pointers(MAIN) == state
    assert done(dry) == done(compact_tables(lake)) == [(T, 2, 1)]
    assert [branch.name for branch in lake.branches()] == [MAIN]


def test_only_the_tables_that_are_named_and_a_wrong_name_is_refused(lake: BranchingCatalog) -> None:
    for name in (T, "raw.b"):
        small_files(lake, 1, 4, table=name)
    assert done(compact_tables(lake, ["raw.b"])) == [("raw.b", 2, 1)]
    with pytest.raises(CatalogError, match="no table raw\\.c"):
        compact_tables(lake, ["raw.c"])


ROWS: Rows = [
    {
        "id": n,
        "real": [1.5, float("nan"), None][n % 3],
        "exact": decimal.Decimal(n) / 8,
        "text": f"text {n} \N{SNOWMAN}",
        "bytes": bytes([n]),
        "flag": n % 2 == 0,
        "day": dt.date(2024, 1, 1 + n),
        "at": dt.datetime(2024, 1, 1, n, tzinfo=dt.UTC),
        "local": dt.datetime(2024, 1, 1, n),
        "list": [{"a": n}, {"a": None}],
        "Order": n,
    }
    for n in range(6)
]


def test_values_of_every_type_stay(lake: BranchingCatalog) -> None:
    for n in (4, 2, 0):
        put(lake, "setup", T, ROWS[n : n + 2])
    lake.merge("setup")
    before = read(lake, MAIN, T)
    assert done(compact_tables(lake)) == [(T, 3, 1)]
    assert str(read(lake, MAIN, T)) == str(before)


def test_files_of_earlier_columns_are_read_in_those_of_now(lake: BranchingCatalog) -> None:
    none = pa.nulls(1, pa.list_(pa.struct([("a", pa.int64())])))
    put(lake, "setup", T, pa.table({"id": pa.array([1], pa.int32()), "old": ["a"], "none": none}))
    with lake.open("setup").load_table(T).update_schema() as update:
        update.rename_column("old", "new")
        update.update_column("id", LongType())
    put(lake, "setup", T, pa.table({"id": [2], "new": ["b"], "more": [1.5]}))
    lake.merge("setup")
    assert done(compact_tables(lake)) == [(T, 2, 1)]
    rows = [{"id": 1, "new": "a", "none": None, "more": None}, {"id": 2, "new": "b", "none": None, "more": 1.5}]
    assert read(lake, MAIN, T) == rows


def test_rows_that_trino_marked_as_deleted_go(lake: BranchingCatalog) -> None:
    """One large file would not be rewritten for anything else."""
    put(lake, "setup", T, numbers(1, 5))
    table = lake.open("setup").load_table(T)
    (task,) = table.scan().plan_files()
    mark_deleted(table, [(task.file.file_path, 1), (task.file.file_path, 3)])
    lake.merge("setup")
    assert done(compact_tables(lake)) == [(T, 1, 1)]
    totals = summary_of(main_table(lake), "total-records", "total-delete-files", "total-position-deletes")
    assert totals == ["3", "0", "0"]
    assert ids(lake, MAIN, T) == [1, 3, 5]
    put(lake, "fix", T, numbers(3, 6), "merge", key=["id"])
    assert ids(lake, "fix", T) == [1, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("marked", "limits", "goes"),
    [
        (4, {}, False),
        (5, {}, True),
        (4, {"MANY_DELETE_FILES": 4}, True),
        (4, {"MARKED_ROWS": 3}, True),
    ],
    ids=["few rows", "a twentieth", "in many files", "of many in the table"],
)
def test_marked_rows_are_taken_out_of_a_file_when_they_are_many(
    lake: BranchingCatalog, marked: int, limits: dict[str, int], goes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake, "setup", T, numbers(0, 99))
    for row in range(marked):
        table = lake.open("setup").load_table(T)
        mark_deleted(table, [(task.file.file_path, row) for task in table.scan().plan_files()])
    lake.merge("setup")
    for name, limit in limits.items():
        monkeypatch.setattr(rewrite, name, limit)
    assert done(compact_tables(lake)) == ([(T, 1, 1)] if goes else [])
    assert ids(lake, MAIN, T) == [*range(marked, 100)]
    assert summary_of(main_table(lake), "total-position-deletes") == ["0" if goes else str(marked)]


def test_marks_of_files_that_stay_are_all_that_is_left(lake: BranchingCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one file, with a checksum, whoever wrote them; in partitions where no such file stays there are none."""
    spec = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), "part"))
    for part, first, last in ((0, 0, 999), (0, 1000, 1002), (0, 1003, 1006), (1, 2000, 2099)):
        put(lake, "setup", T, [{"part": part, "id": n} for n in range(first, last + 1)], spec=spec)
    files = {task.file.record_count: task.file for task in lake.open("setup").load_table(T).scan().plan_files()}
    for rows, row in ((1000, 7), (3, 0), (100, 1), (1000, 8), (100, 2), (100, 3), (100, 4), (100, 5)):
        file = files[rows]
        mark_deleted(lake.open("setup").load_table(T), [(file.file_path, row)], partition=file.partition)
    lake.merge("setup")
    monkeypatch.setattr(rewrite, "SMALL_BYTES", files[1000].file_size_in_bytes)
    assert done(compact_tables(lake)) == [(T, 3, 2)]
    left = sorted({*range(1007), *range(2000, 2100)} - {7, 8, 1000, *range(2001, 2006)})
    assert ids(lake, MAIN, T) == left
    assert sorted(main_table(lake).scan().to_arrow()["id"].to_pylist()) == left
    (deletes,) = {file for task in main_table(lake).scan().plan_files() for file in task.delete_files}
    assert deletes.partition == files[1000].partition
    assert deletes.file_path.endswith(SUMMED_FILE)
    totals = summary_of(main_table(lake), "total-records", "total-delete-files", "total-position-deletes")
    assert totals == ["1101", "1", "2"]
    assert done(compact_tables(lake)) == []
    put(lake, "fix", T, [{"part": 0, "id": n} for n in (7, 9, 1001)], "merge", key=["id"])
    assert ids(lake, "fix", T) == sorted({*left, 7})


def test_each_partition_keeps_its_own_files(lake: BranchingCatalog) -> None:
    spec = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), "part"))
    for n in range(3):
        put(lake, "setup", T, [{"part": n % 2, "id": n}, {"part": 7, "id": 10 + n}], spec=spec)
    lake.merge("setup")
    assert done(compact_tables(lake)) == [(T, 5, 2)]
    assert ids(lake, MAIN, T) == [0, 1, 2, 10, 11, 12]
    assert len(files_of(lake)) == 3


def test_rows_that_loads_replace_go_to_several_files_with_ranges_of_their_own(
    lake: BranchingCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the memory that their rows take: a load of one day copies the files that hold the day."""
    properties = {KEY_PROPERTY: '["id"]', PARTITIONS_PROPERTY: "daily UTC by day"}
    for start in range(4):
        ids_ = range(start, 3000, 4)
        put(lake, "setup", T, [{"id": -n, "day": n // 1500} for n in ids_], properties=properties)
    lake.merge("setup")
    monkeypatch.setattr(rewrite, "FILE_BYTES", 32_000)  # two numbers a row: 12 kB, 12 kB, 12 kB and 12 kB
    assert done(compact_tables(lake)) == [(T, 4, 2)]
    files = [task.file for task in main_table(lake).scan().plan_files()]
    assert [file.record_count for file in files] == [1500, 1500]
    days = [main_table(lake).scan(row_filter=f"day = {day}").to_arrow()["id"].to_pylist() for day in (0, 1)]
    assert days == [sorted(-n for n in range(1500 * day, 1500 * (day + 1))) for day in (0, 1)]
    assert [len([*main_table(lake).scan(row_filter=f"day = {day}").plan_files()]) for day in (0, 1)] == [1, 1]
    assert done(compact_tables(lake)) == []


def test_rows_that_are_only_added_go_to_files_of_a_size_on_disk(
    lake: BranchingCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start in (0, 1, 2):
        put(lake, "setup", T, [{"id": n} for n in range(start, 3000, 3)])
    lake.merge("setup")
    size = sum(task.file.file_size_in_bytes for task in main_table(lake).scan().plan_files())
    monkeypatch.setattr(rewrite, "TARGET_BYTES", size // 2)
    assert done(compact_tables(lake)) == [(T, 3, 2)]
    assert [task.file.record_count for task in main_table(lake).scan().plan_files()] == [1500, 1500]
    assert ids(lake, MAIN, T) == [*range(3000)]


def test_rows_that_cannot_be_sorted_in_the_memory_there_is_are_joined_as_they_come(
    lake: BranchingCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long texts: the files become fewer all the same."""
    for start in (2, 1, 0):
        rows = [{"id": n, "text": random.Random(n).randbytes(5_000).hex()} for n in range(start, 300, 3)]
        put(lake, "setup", T, rows, properties={KEY_PROPERTY: '["id"]'})
    lake.merge("setup")
    monkeypatch.setattr(rewrite, "SORT_MEMORY", "3MB")
    assert done(compact_tables(lake)) == [(T, 3, 1)]
    assert main_table(lake).scan().to_arrow()["id"].to_pylist() != [*range(300)]
    assert ids(lake, MAIN, T) == [*range(300)]


def test_a_damaged_file_is_named_and_not_copied(lake: BranchingCatalog) -> None:
    small_files(lake, 1, 4)
    table = main_table(lake)
    path = files_of(lake)[0]
    with table.io.new_input(path).open() as file:
        content = bytearray(file.read())
    content[30] ^= 1
    with table.io.new_output(path).create(overwrite=True) as file:
        file.write(bytes(content))
    state = lake.pointers(MAIN)
    found = compact_tables(lake)
    assert (found.compacted, [*found.problems], lake.pointers(MAIN)) == ((), [T], state)
    assert path in found.problems[T]


def test_a_row_is_rewritten_a_few_times_and_not_with_each_load(lake: BranchingCatalog) -> None:
    """A table that is maintained by itself: the large file waits until the small ones together have its size."""
    promoted(lake, T, numbers(1, 3000))
    small_files(lake, 4001, 4011)
    large = max(main_table(lake).scan().plan_files(), key=lambda task: task.file.record_count).file.file_path
    assert done(compact_tables(lake, eager=False)) == [(T, 2, 1)]
    assert large in files_of(lake)
    assert len(ids(lake, MAIN, T)) == 3006


# --- branches ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["append", "merge", "drop"])
def test_a_branch_that_was_made_before_is_promoted(lake: BranchingCatalog, what: str) -> None:
    small_files(lake, 1, 4)
    lake.create("early")
    if what == "drop":
        lake.open("early").drop_table(T)
    else:
        put(lake, "early", T, numbers(7, 8), what, **({"key": ["id"]} if what == "merge" else {}))
    put(lake, "early", "silver.new", numbers(1, 1))
    first = lake.log(limit=1)[0].id
    assert done(compact_tables(lake)) == [(T, 2, 1)]
    compacted, entry = lake.log(limit=1)[0], lake.merge("early")
    assert entry is not None
    assert sorted(change.table for change in entry.changes) == [T, "silver.new"]
    found = ids(lake, MAIN, T) if T in lake.pointers(MAIN) else None
    assert found == (None if what == "drop" else [*range(1, 9)])
    for state in (compacted.id, first):
        lake.restore(state)
        assert (ids(lake, MAIN, T), len(lake.pointers(MAIN))) == ([*range(1, 7)], 1)
        assert len(files_of(lake)) == (1 if state == compacted.id else 2)


def test_a_branch_that_goes_on_after_its_promotion_is_promoted_again(lake: BranchingCatalog) -> None:
    small_files(lake, 1, 4)
    lake.create("dev")
    for n in (10, 11, 12):
        put(lake, "dev", T, numbers(n, n))
        compact_tables(lake)
        assert lake.merge("dev") is not None
    assert ids(lake, MAIN, T) == [*range(1, 7), 10, 11, 12]


def test_branches_without_changes_follow_and_tags_stay(lake: BranchingCatalog) -> None:
    small_files(lake, 1, 4)
    lake.create("dev")
    lake.tag("v1")
    before = lake.pointers("v1")
    compact_tables(lake)
    assert (lake.pointers("dev"), lake.pointers("v1")) == (lake.pointers(MAIN), before)


def test_what_really_conflicts_still_does(lake: BranchingCatalog) -> None:
    small_files(lake, 1, 4)
    lake.create("early")
    put(lake, "early", T, numbers(8, 8))
    promoted(lake, T, numbers(9, 9))
    compact_tables(lake)
    with pytest.raises(PromotionConflictError, match=r"raw\.a"):
        lake.merge("early")
    assert ids(lake, MAIN, T) == [*range(1, 7), 9]


@pytest.mark.parametrize(("times", "possible"), [(1, True), (9, False)])
def test_it_gives_way_to_runs_that_write_in_between(
    lake: BranchingCatalog, tmp_path: Path, times: int, possible: bool
) -> None:
    small_files(lake, 1)
    seen: list[Table] = []

    def commit(table: Table) -> tuple[Any, ...]:
        seen.append(table)
        if len(seen) <= times:
            promoted(lake, T, numbers(9, 9), mode="merge", key=["id"])
        transaction = table.transaction()
        staged = rewrite.Staged(T, table.metadata, table.io)
        rewrite.rewrite(transaction, rewrite.choose(table), staged, tmp_path)
        return transaction._requirements, transaction._updates

    assert maintained(lake, [T], commit) is possible
    assert ids(lake, MAIN, T) == [1, 2, 3, 9]
    assert [branch.name for branch in lake.branches()] == [MAIN]
