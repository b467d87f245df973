"""The promises of `cascade.iceberg.write`: one snapshot a write, only affected files, nothing half.

Modules: `cascade.iceberg.staging`.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import assign_fresh_schema_ids
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform

from cascade.catalog import BranchingCatalog
from cascade.errors import CatalogError, SchemaMismatchError
from cascade.iceberg.rows import Where, between, one_of
from cascade.iceberg.schema import schema_from_arrow
from cascade.iceberg.write import commit, stage, write
from support.lakes import data_files, ids, numbers, put, read

T = "raw.a"


def table(lake: BranchingCatalog) -> Table:
    return lake.load(T, lake.pointers("dev")[T])


def paths(lake: BranchingCatalog) -> set[str]:
    return {task.file.file_path for task in table(lake).scan().plan_files()}


def ab(*pairs: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"a": a, "b": b} for a, b in pairs]


# --- files ------------------------------------------------------------------------------------------------


def test_only_columns_whose_values_come_again_have_a_dictionary(lake: BranchingCatalog) -> None:
    """Rows that lie side by side are alike: rows from all over a file tell."""
    rows = range(20_000)
    columns = {
        "measured": [n / 3 for n in rows],
        "name": [f"name {n}" for n in rows],
        "day": [n // 5_000 for n in rows],
        "kind": [f"kind {n % 50}" for n in rows],
        "tags": [[f"tag {n % 3}"] for n in rows],
    }
    put(lake, "dev", T, pa.table(columns))
    (path,) = data_files(lake)
    with table(lake).io.new_input(path).open() as file:
        group = pq.read_metadata(file).row_group(0)
    found = {group.column(n).path_in_schema: group.column(n).has_dictionary_page for n in range(group.num_columns)}
    assert found == {"measured": False, "name": False, "day": True, "kind": True, "tags.list.element": True}
    assert table(lake).scan().to_arrow().to_pydict() == columns


# --- modes ------------------------------------------------------------------------------------------------


def test_the_first_write_makes_the_table(lake: BranchingCatalog) -> None:
    result = put(lake, "dev", T, numbers(1, 3))
    assert (result.rows, result.duplicates, result.replaced, result.total) == (3, 0, 0, 3)
    assert result.snapshot_id == table(lake).current_snapshot().snapshot_id  # type: ignore[union-attr]


def test_append_adds(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, numbers(1, 2))
    result = put(lake, "dev", T, numbers(2, 3))
    assert (ids(lake, "dev", T), result.total) == ([1, 2, 2, 3], 4)


def test_merge_replaces_rows_of_one_key_and_adds_the_others(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, ab((1, "old"), (2, "old")), "merge", key=["a"])
    result = put(lake, "dev", T, ab((2, "new"), (3, "new")), "merge", key=["a"])
    assert read(lake, "dev", T) == ab((1, "old"), (2, "new"), (3, "new"))
    assert (result.rows, result.replaced, result.total) == (2, 1, 3)


def test_merge_by_several_columns(lake: BranchingCatalog) -> None:
    old = [{"a": a, "b": b, "c": "old"} for a in (1, 2) for b in (1, 2)]
    put(lake, "dev", T, old, "merge", key=["a", "b"])
    put(lake, "dev", T, [{"a": 1, "b": 2, "c": "new"}], "merge", key=["a", "b"])
    assert [row["c"] for row in read(lake, "dev", T)].count("new") == 1
    assert table(lake).scan().count() == 4


def test_merging_the_same_rows_again_changes_no_content(lake: BranchingCatalog) -> None:
    for _ in range(3):
        put(lake, "dev", T, ab((1, "x"), (2, "y")), "merge", key=["a"])
    assert read(lake, "dev", T) == ab((1, "x"), (2, "y"))


def test_replace_without_a_filter_replaces_everything(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, numbers(1, 5))
    result = put(lake, "dev", T, numbers(9, 9), "replace")
    assert (ids(lake, "dev", T), result.replaced, result.total) == ([9], 5, 1)


def test_replace_makes_room_only_where_the_filter_says(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, numbers(1, 6))
    result = put(
        lake, "dev", T, numbers(30, 30), "replace", replace=lambda _: Where(between("id", 3, 4), "id IN (3, 4)")
    )
    assert (ids(lake, "dev", T), result.replaced) == ([1, 2, 5, 6, 30], 2)


def test_replacing_with_no_rows_only_takes_away(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, numbers(1, 3))
    none = pa.table({"id": pa.array([], pa.int64())})
    put(lake, "dev", T, none, "replace", replace=lambda _: one_of("id", [2]))
    assert ids(lake, "dev", T) == [1, 3]


def test_rows_whose_filter_is_null_stay(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, ab((1, "x"), (2, None)))
    put(lake, "dev", T, ab((3, "z")), "replace", replace=lambda _: Where(AlwaysTrue(), "b = 'x'"))
    assert read(lake, "dev", T) == ab((2, None), (3, "z"))


@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
def test_every_write_is_one_snapshot_however_many_batches(lake: BranchingCatalog, mode: Any) -> None:
    lake.create("dev")
    batches = [pa.table({"id": [n, n + 1]}) for n in range(5)]
    for n in (1, 2):
        write(lake, "dev", T, batches, schema=schema_from_arrow(batches[0].schema), mode=mode, key=["id"])
        assert len(table(lake).snapshots()) == n


@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
def test_no_rows_make_a_table_all_the_same(lake: BranchingCatalog, mode: Any) -> None:
    result = put(lake, "dev", T, pa.table({"id": pa.array([], pa.int64())}), mode, key=["id"])
    assert (result.rows, result.total, ids(lake, "dev", T)) == (0, 0, [])


# --- duplicates -------------------------------------------------------------------------------------------


def test_of_rows_with_one_key_the_last_stays(lake: BranchingCatalog) -> None:
    rows = ab((1, "first"), (2, "only"), (1, "last"))
    result = put(lake, "dev", T, rows, "merge", key=["a"])
    assert read(lake, "dev", T) == ab((1, "last"), (2, "only"))
    assert (result.rows, result.duplicates) == (2, 1)


def test_zero_with_a_sign_is_the_same_key_as_zero_and_nan_as_nan(lake: BranchingCatalog) -> None:
    """Rows are told apart by a hash of their key first; equal keys must have one hash."""
    rows = ab((0.0, 1), (-0.0, 2), (float("nan"), 3), (-float("nan"), 4), (1.0, 5))
    result = put(lake, "dev", T, rows, "merge", key=["a"])
    assert (result.rows, result.duplicates) == (3, 2)


def test_the_last_row_stays_across_batches_too(lake: BranchingCatalog) -> None:
    lake.create("dev")
    batches = [pa.Table.from_pylist(ab((n % 7, n))) for n in range(50)]
    result = write(lake, "dev", T, batches, schema=schema_from_arrow(batches[0].schema), mode="merge", key=["a"])
    assert read(lake, "dev", T) == ab((0, 49), (1, 43), (2, 44), (3, 45), (4, 46), (5, 47), (6, 48))
    assert (result.rows, result.duplicates) == (7, 43)


def test_the_last_row_stays_across_partitions_too(lake: BranchingCatalog) -> None:
    """The file of the last row's partition may be the older one."""
    rows = ab((1, "y"), (2, "x"), (2, "y"), (1, "x"))
    schema = schema_from_arrow(pa.Table.from_pylist(rows).schema)
    identity = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "b"))
    options: dict[str, Any] = {"key": ["a"], "schema": assign_fresh_schema_ids(schema), "spec": identity}
    result = put(lake, "dev", T, rows, "merge", **options)
    assert read(lake, "dev", T) == ab((1, "x"), (2, "y"))
    assert (result.duplicates, len(paths(lake))) == (2, 2)


@pytest.mark.parametrize(
    ("values", "kept"), [([3, 9, 5], 9), ([None, 1, None], 1), ([2, 2, 1], 2)], ids=["greatest", "not_null", "tie"]
)
def test_order_by_says_which_row_stays(lake: BranchingCatalog, values: list[Any], kept: int) -> None:
    rows = [{"a": 1, "b": v, "c": n} for n, v in enumerate(values)]
    put(lake, "dev", T, rows, "merge", key=["a"], order_by="b")
    (row,) = read(lake, "dev", T)
    assert row["b"] == kept
    assert row["c"] == max(n for n, v in enumerate(values) if v == kept)


def test_staged_rows_that_are_left_out_leave_no_files(lake: BranchingCatalog) -> None:
    lake.create("dev")
    rows = pa.Table.from_pylist(ab((1, "x"), (1, "y"), (2, "z")))
    with stage(lake, "dev", T, [rows], schema=schema_from_arrow(rows.schema), mode="append") as staged:
        staged.keep("count(*) OVER (PARTITION BY a) = 1")
        (result,) = commit([staged])
    assert read(lake, "dev", T) == ab((2, "z"))
    assert (result.rows, result.duplicates, data_files(lake)) == (1, 0, paths(lake))


# --- only what is affected is touched ---------------------------------------------------------------------


def test_a_merge_rewrites_only_files_that_hold_incoming_keys(lake: BranchingCatalog) -> None:
    for first in (0, 100, 200):
        put(lake, "dev", T, numbers(first, first + 9))
    before = paths(lake)
    put(lake, "dev", T, numbers(105, 105), "merge", key=["id"])
    assert len(before & paths(lake)) == 2


def test_a_merge_of_new_keys_rewrites_nothing(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, [{"id": n} for n in range(0, 20, 2)])
    before = paths(lake)
    put(lake, "dev", T, [{"id": n} for n in range(1, 20, 2)], "merge", key=["id"])
    assert before < paths(lake)


def test_a_replace_leaves_files_outside_the_filter_alone(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, numbers(0, 9))
    put(lake, "dev", T, numbers(100, 109))
    before = paths(lake)
    put(lake, "dev", T, numbers(0, 3), "replace", replace=lambda _: Where(between("id", 0, 9), "id <= 9"))
    assert len(before & paths(lake)) == 1


# --- nothing half -----------------------------------------------------------------------------------------


def _breaking() -> Iterator[pa.Table]:
    yield pa.table({"id": list(range(1000))})
    raise ConnectionError("the source is gone")


@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
def test_a_source_that_fails_leaves_no_files_and_no_snapshot(lake: BranchingCatalog, mode: Any) -> None:
    put(lake, "dev", T, numbers(1, 1))
    pointers, files = lake.pointers("dev"), data_files(lake)
    with pytest.raises(ConnectionError, match="the source is gone"):
        write(
            lake,
            "dev",
            T,
            _breaking(),
            schema=schema_from_arrow(table(lake).scan().to_arrow().schema),
            mode=mode,
            key=["id"],
        )
    assert (lake.pointers("dev"), data_files(lake)) == (pointers, files)


def test_a_refused_commit_leaves_no_files(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, numbers(1, 1))
    files = data_files(lake)
    with pytest.raises(ZeroDivisionError):
        put(lake, "dev", T, numbers(2, 2), properties=lambda _: {"x": str(1 / 0)})
    with pytest.raises(CatalogError, match="never written directly"):
        put(lake, "main", T, numbers(1, 1))
    assert data_files(lake) == files


def test_duplicates_leave_no_files_of_their_own(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, ab((1, "x"), (1, "y")), "merge", key=["a"])
    assert data_files(lake) == paths(lake)


@pytest.mark.parametrize("name", ["../../x", "a", "raw.a;b"])
def test_a_name_that_is_no_table_writes_nothing(lake: BranchingCatalog, name: str) -> None:
    with pytest.raises(CatalogError, match="is not the name of a table"):
        put(lake, "dev", name, numbers(1, 1))
    assert data_files(lake) == set()


def test_properties_travel_in_the_commit_and_are_asked_when_all_rows_are_seen(lake: BranchingCatalog) -> None:
    lake.create("dev")
    seen = 0

    def batches() -> Iterator[pa.Table]:
        nonlocal seen
        for n in range(3):
            seen += 1
            yield pa.table({"id": [n]})

    schema = schema_from_arrow(pa.schema([("id", pa.int64())]))
    write(
        lake,
        "dev",
        T,
        batches(),
        schema=schema,
        mode="append",
        properties=lambda standing: {"seen": str(seen), "before": str(len(standing))},
        snapshot_properties={"cascade.run-id": "r1"},
    )
    assert table(lake).properties["seen"] == "3"
    assert table(lake).current_snapshot().summary["cascade.run-id"] == "r1"  # type: ignore[union-attr, index]


# --- turns ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [True, False])
def test_a_writer_that_lost_its_turn_plans_again(lake: BranchingCatalog, exists: bool) -> None:
    """The locks' server may restart between plan and commit: the rows of who was faster make room, as ever."""
    if exists:
        put(lake, "dev", T, ab((1, "first")), "merge", key=["a"])
    overtaken = []

    def planning(_properties: object) -> dict[str, str]:
        """It is called when the state of the table is known that the plan is for."""
        if not overtaken:
            overtaken.append(True)
            put(lake, "dev", T, ab((1, "faster"), (2, "faster"), (3, "faster")), "merge", key=["a"])
        return {}

    result = put(lake, "dev", T, ab((2, "slower"), (4, "slower")), "merge", key=["a"], properties=planning)
    assert overtaken
    assert read(lake, "dev", T) == ab((1, "faster"), (2, "slower"), (3, "faster"), (4, "slower"))
    assert (result.rows, result.replaced, result.total) == (2, 1, 4)


def _staged_pair(lake: BranchingCatalog, rows: list[dict[str, Any]]) -> Any:
    data = pa.Table.from_pylist(rows)
    both = contextlib.ExitStack()
    options: Any = {"schema": schema_from_arrow(data.schema), "mode": "append"}
    return both, [both.enter_context(stage(lake, "dev", name, [data], **options)) for name in (T, "aside.t")]


@pytest.mark.parametrize("first", [True, False], ids=["new tables", "existing tables"])
def test_two_tables_move_by_one_commit(lake: BranchingCatalog, first: bool) -> None:
    put(lake, "dev", "raw.other", numbers(1, 1))
    if not first:
        put(lake, "dev", T, numbers(0, 0))
        put(lake, "dev", "aside.t", numbers(0, 0))
    both, stagings = _staged_pair(lake, numbers(1, 3))
    with both:
        results = commit(stagings)
    assert [r.rows for r in results] == [3, 3]
    assert ids(lake, "dev", T) == ids(lake, "dev", "aside.t") == ([1, 2, 3] if first else [0, 1, 2, 3])


def test_of_two_tables_none_moves_when_one_is_refused(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, numbers(0, 0))
    put(lake, "dev", "aside.t", numbers(0, 0))
    before, files = lake.pointers("dev"), data_files(lake)
    both, stagings = _staged_pair(lake, numbers(1, 3))
    with both:
        with lake.open("dev").load_table("aside.t").update_schema() as update:
            update.rename_column("id", "number")
        moved = lake.pointers("dev")["aside.t"]
        with pytest.raises(SchemaMismatchError, match="Another run changed"):
            commit(stagings)
    assert lake.pointers("dev") == {**before, "aside.t": moved}
    assert data_files(lake) == files
