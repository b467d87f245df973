"""The promises of `cascade.iceberg.removal`: marked rows are gone for every reader and writer, and marks stay few."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType

from cascade.catalog import BranchingCatalog
from cascade.engine import query
from cascade.iceberg.read import row_count
from cascade.iceberg.rows import Where
from cascade_maintain.compact import compact_tables
from cascade_maintain.verify import verify_files
from support.lakes import mark_deleted, marking, put, read

T = "raw.a"
SPECS = {
    "one part": UNPARTITIONED_PARTITION_SPEC,
    "parts": PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "part")),
}
#: Rows by their id.
Expected = dict[int, dict[str, Any]]


def rows(ids: range, value: int) -> list[dict[str, Any]]:
    return [{"id": n, "part": f"p{n // 10 % 2}", "v": value} for n in ids]


def table(lake: BranchingCatalog) -> Table:
    return lake.open("dev").load_table(T)


def filled(lake: BranchingCatalog, spec: str) -> Expected:
    """Three loads of 20 rows, and a merge of two rows of each load, which marks them: no file is copied."""
    for first in (0, 20, 40):
        put(lake, "dev", T, rows(range(first, first + 20), 0), spec=SPECS[spec])
    with marking():
        done = put(lake, "dev", T, rows(range(9, 60, 10), 1), "merge", key=["id"])
    assert (done.rows, done.replaced, done.total) == (6, 6, 60)
    return {row["id"]: row for row in (*rows(range(60), 0), *rows(range(9, 60, 10), 1))}


def require(lake: BranchingCatalog, expected: Expected) -> None:
    """All readers see these rows; one file of each partition has marks, and only of files that are there."""
    found = table(lake)
    snapshot = found.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    wanted = [expected[n] for n in sorted(expected)]
    assert read(lake, "dev", T) == wanted
    assert query(lake, "dev", f"SELECT id, part, v FROM {T} ORDER BY id").to_pylist() == wanted
    assert [found.scan().count(), row_count(snapshot)] == [len(wanted)] * 2
    tasks = list(found.scan().plan_files())
    marks = {file for task in tasks for file in task.delete_files}
    assert set(Counter((file.spec_id, file.partition) for file in marks).values()) <= {1}
    summary = [int(snapshot.summary[f"total-{of}"] or 0) for of in ("data-files", "delete-files", "position-deletes")]
    assert summary == [len(tasks), len(marks), sum(file.record_count for file in marks)]
    assert not [*verify_files(lake).damaged]


@pytest.mark.parametrize("spec", SPECS)
def test_a_merge_that_touches_few_rows_of_each_file_marks_them(lake: BranchingCatalog, spec: str) -> None:
    expected = filled(lake, spec)
    require(lake, expected)
    old = table(lake).history()[-2].snapshot_id
    assert query(lake, "dev", f"SELECT sum(v) AS s FROM {T}", at=old).to_pylist() == [{"s": 0}]
    summary = table(lake).current_snapshot().summary  # type: ignore[union-attr]
    added = [summary[f"added-{of}"] for of in ("position-deletes", "delete-files")]  # type: ignore[index]
    assert (added, summary["deleted-data-files"]) == (["6", str(len(SPECS[spec].fields) + 1)], None)  # type: ignore[index]


def _merge(lake: BranchingCatalog, ids: range, value: int, **options: Any) -> Expected:
    put(lake, "dev", T, rows(ids, value), "merge", key=["id"], **options)
    return {row["id"]: row for row in rows(ids, value)}


def _merge_marked(lake: BranchingCatalog, expected: Expected) -> Expected:
    with marking():
        return expected | _merge(lake, range(8, 60, 10), 2)


def _merge_the_same(lake: BranchingCatalog, expected: Expected) -> Expected:
    with marking():
        return expected | _merge(lake, range(9, 60, 10), 2)


def _merge_more_than_marks_may_be(lake: BranchingCatalog, expected: Expected) -> Expected:
    with marking():
        return expected | _merge(lake, range(16), 2) | _merge(lake, range(20, 23), 2)


def _merge_copied(lake: BranchingCatalog, expected: Expected) -> Expected:
    return expected | _merge(lake, range(5, 12), 2)


def _merge_older(lake: BranchingCatalog, expected: Expected) -> Expected:
    """The row with the greater value is marked: it is not there, so what comes does not lose against it."""
    greater = _merge(lake, range(21, 22), 9)
    with marking():
        put(
            lake, "dev", T, [], "replace", replace=lambda _: Where(AlwaysTrue(), "id = 21"), schema=table(lake).schema()
        )
    assert greater[21] not in read(lake, "dev", T)
    return expected | _merge(lake, range(20, 22), -1, order_by="v") | {20: expected[20]}


def _replace_some_marked(lake: BranchingCatalog, expected: Expected) -> Expected:
    with marking():
        return _replace_some(lake, expected)


def _replace_some(lake: BranchingCatalog, expected: Expected) -> Expected:
    some = Where(AlwaysTrue(), "id % 10 IN (3, 9)")
    done = put(lake, "dev", T, rows(range(3, 4), 5), "replace", replace=lambda _: some)
    kept = {n: row for n, row in expected.items() if n % 10 not in (3, 9)}
    assert done.replaced == len(expected) - len(kept)
    return kept | {row["id"]: row for row in rows(range(3, 4), 5)}


def _replace_all(lake: BranchingCatalog, expected: Expected) -> Expected:
    done = put(lake, "dev", T, rows(range(2), 5), "replace")
    assert done.replaced == len(expected)
    return {row["id"]: row for row in rows(range(2), 5)}


def _join_small_files(lake: BranchingCatalog, expected: Expected) -> Expected:
    for n in range(100, 109):
        put(lake, "dev", T, rows(range(n, n + 1), 0))
    assert len([*table(lake).scan().plan_files()]) < 12
    return expected | {row["id"]: row for row in rows(range(100, 109), 0)}


def _widen(lake: BranchingCatalog, expected: Expected) -> Expected:
    put(lake, "dev", T, pa.table({"id": [9], "part": ["p0"], "v": [7]}), "merge", key=["id"])
    with table(lake).update_schema() as update:
        update.add_column("more", LongType())
    with table(lake).update_schema() as update:
        update.delete_column("more")
    return _merge_marked(lake, expected | {9: {"id": 9, "part": "p0", "v": 7}})


def _another_engine(lake: BranchingCatalog, expected: Expected) -> Expected:
    """It adds a file of marks; the next merge makes one of two."""
    file = next(task.file for task in table(lake).scan().plan_files() if task.delete_files)
    with table(lake).io.new_input(file.file_path).open() as stream:
        number = pq.read_table(stream)["id"][0].as_py()
    mark_deleted(table(lake), [(file.file_path, 0)], partition=file.partition)
    return _merge_marked(lake, {n: row for n, row in expected.items() if n != number})


def _compact(lake: BranchingCatalog, expected: Expected) -> Expected:
    lake.merge("dev")
    assert compact_tables(lake).problems == {}
    lake.delete("dev")
    lake.create("dev")
    assert not [task for task in table(lake).scan().plan_files() if task.delete_files]
    return expected


AFTER = {
    "one part": [_merge_marked, _merge_copied, _join_small_files, _compact],
    "parts": [
        *(_merge_marked, _merge_the_same, _merge_more_than_marks_may_be, _merge_copied, _merge_older, _compact),
        *(_replace_some, _replace_some_marked, _replace_all, _join_small_files, _widen, _another_engine),
    ],
}


@pytest.mark.parametrize(("spec", "then"), [(spec, then) for spec in AFTER for then in AFTER[spec]])
def test_what_comes_after_marks_keeps_every_row(lake: BranchingCatalog, spec: str, then: Any) -> None:
    expected = then(lake, filled(lake, spec))
    require(lake, expected)
    require(lake, _merge_marked(lake, expected))
