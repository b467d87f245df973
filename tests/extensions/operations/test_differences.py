"""The promises of `branch diff`: the same rows are called identical, and others counted, by key where there is one.

With `--on-servers` the catalog is Nessie. Modules: `cascade_operations.differences`.
"""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

import cascade_operations as operations
from cascade.catalog import BranchingCatalog
from cascade_operations.differences import compare_rows
from support.lakes import Rows, marking, numbers, promoted, put

_KEY = {"properties": {"cascade.key": '["id"]'}}
_OLD = [{"id": n, "v": "a", "_cascade_ingested_at": 1} for n in range(1, 6)]


def _new(*rows: tuple[int, Any]) -> Rows:
    return [{"id": n, "v": v, "_cascade_ingested_at": 2} for n, v in rows]


@dataclass
class Case:
    """What a branch writes over `_OLD`, and what is said of it."""

    rows: Rows
    said: tuple[object, ...]
    columns: tuple[str, ...] = ()
    write: dict[str, Any] = field(default_factory=lambda: {"mode": "replace"})


CASES = {
    "the same rows, loaded again": Case(_new(*((n, "a") for n in range(1, 6))), ("identical", 5, 5, 0, 0, 0)),
    "one of each": Case(_new((2, "a"), (3, "b"), (4, "a"), (5, "a"), (6, "a")), ("changed", 5, 5, 1, 1, 1)),
    "merged": Case(_new((5, "b"), (6, "a")), ("changed", 5, 6, 1, 0, 1), write={"mode": "merge", "key": ["id"]}),
    "a column more": Case(
        [{**row, "w": None} for row in _new((1, "a"))], ("changed", 5, 1, 0, 4, 0), ("+w",), {"mode": "replace"}
    ),
    "another type": Case(
        _new(*((n, 7) for n in range(1, 6))), ("changed", 5, 5, 0, 0, 5), ("~v",), {"mode": "replace", "exact": True}
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_diff_counts_rows_by_their_key(name: str, lake: BranchingCatalog) -> None:
    case = CASES[name]
    promoted(lake, "raw.a", _OLD, **_KEY)
    rows = pa.Table.from_pylist(case.rows) if name != "a column more" else _with_text(case.rows)
    with marking():
        put(lake, "dev", "raw.a", rows, **case.write)
    (found,) = operations.diff(lake.settings, "dev")
    counts = (found.kind, found.rows_before, found.rows_after, found.added, found.removed, found.changed)
    assert (counts, found.columns) == (case.said, case.columns)


def _with_text(rows: Rows) -> pa.Table:
    types = {"id": pa.int64(), "v": pa.string(), "_cascade_ingested_at": pa.int64(), "w": pa.string()}
    return pa.Table.from_pylist(rows, schema=pa.schema(list(types.items())))


def test_without_a_key_rows_are_added_and_removed(lake: BranchingCatalog) -> None:
    """Of two equal rows one may go."""
    promoted(lake, "raw.a", [{"v": "a"}, {"v": "a"}, {"v": None}])
    put(lake, "dev", "raw.a", [{"v": "a"}, {"v": None}, {"v": "b"}], mode="replace")
    (found,) = operations.diff(lake.settings, "dev")
    assert (found.kind, found.added, found.removed, found.changed) == ("changed", 1, 1, None)


def test_files_that_both_sides_have_are_not_read(lake: BranchingCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    promoted(lake, "raw.a", numbers(1, 1000))
    put(lake, "dev", "raw.a", numbers(2000, 2001))
    (change,) = lake.changes("dev")
    before, after = (lake.load("raw.a", str(state)) for state in (change.before, change.after))
    old = {task.file.file_path for task in before.scan().plan_files()}
    for path in old:
        before.io.delete(path)
    assert compare_rows(before, after, spill_to=lake.settings.data_path / "tmp").added == 2


def test_tables_that_come_and_go_are_counted_whole(lake: BranchingCatalog) -> None:
    promoted(lake, "raw.a", numbers(1, 3))
    put(lake, "dev", "raw.b", numbers(1, 2))
    lake.open("dev").drop_table("raw.a")
    found = operations.diff(lake.settings, "dev")
    assert [(one.table, one.kind, one.added, one.removed) for one in found] == [
        ("raw.a", "dropped", 0, 3),
        ("raw.b", "created", 2, 0),
    ]
