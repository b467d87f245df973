"""The promises of rows that come back from quarantine: once, against the contract of now, and never over newer ones.

Modules: `cascade_operations.aside`, `cascade_operations.replay`.
"""

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pap
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cascade.errors import CascadeError, ContractError, UsageError
from cascade.ingestion import cascade_ingestion, daily, load_plan
from cascade.ingestion.quarantine import quarantine_table
from cascade.ingestion.record import table_of
from cascade_operations.aside import Chosen, choose, match, read_aside, read_rows, values_of, write_rows
from cascade_operations.replay import Replayed, columns_of, replay
from support.ingestion import DAY, NEXT, THIRD, Lake

pytestmark = pytest.mark.on_servers("nessie")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, project_dir=tmp_path)


class Sizes(pap.DataFrameModel):
    """Rows whose number is not negative."""

    id: pd.Int64Dtype
    n: pd.Int64Dtype = pap.Field(ge=0)


class Wide(pap.DataFrameModel):
    """The same, with less asked of the number."""

    id: pd.Int64Dtype
    n: pd.Int64Dtype = pap.Field(ge=-10)


class Days(Sizes):
    """Rows with a time."""

    at: pd.DatetimeTZDtype = pap.Field(nullable=True, dtype_kwargs={"unit": "us", "tz": "UTC"})


class Single(Days):
    """Rows whose number is there once in a load."""

    n: pd.Int64Dtype = pap.Field(ge=0, unique=True)


class Many(Days):
    """Loads of at least two rows."""

    class Config:
        """What all rows together must fulfil."""

    @pap.dataframe_check
    def enough(cls, frame: Any) -> bool:  # noqa: N805
        """Count the rows."""
        return len(frame) >= 2


def row(key: Any, n: Any, day: str = DAY) -> dict[str, Any]:
    return {"id": key, "n": n, "at": dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC)}


def days(source: dict[str, list[dict[str, Any]]], **options: Any) -> Any:
    common: dict[str, Any] = {
        "table_name": "t",
        "partitions": daily(start=DAY, end="2013-07-31"),
        "partition_column": "at",
        "validation_schema": Days,
        "on_invalid": "quarantine",
        "max_retries": 0,
        **options,
    }

    @cascade_ingestion(**common)
    def fetch(partition_date: str) -> Any:
        return source.get(partition_date, [])

    return fetch


def whole(rows: list[dict[str, Any]], **options: Any) -> Any:
    common: dict[str, Any] = {"validation_schema": Sizes, "on_invalid": "quarantine", "max_retries": 0, **options}

    @cascade_ingestion(table_name="t", partitions="none", **common)
    def fetch() -> Any:
        return [{"id": one["id"], "n": one["n"]} for one in rows]

    return fetch


def waiting(lake: Lake) -> Any:
    return read_aside(table_of(lake.lakehouse.catalog, "test", quarantine_table("raw.t")))


def again(lake: Lake, asset: Any, mend: Any = None, rows: Any = None, **options: Any) -> Replayed:
    """Load rows from quarantine again, each changed by a function."""
    plan = load_plan(asset)
    columns = columns_of(plan, table_of(lake.lakehouse.catalog, "test", "raw.t"))
    chosen = [Chosen(one, values_of(one, columns)) for one in (waiting(lake) if rows is None else rows)]
    if mend:
        chosen = [replace(one, values={**one.values, **mend(one.values)}, source="file mended.csv") for one in chosen]
    return replay(plan, lake.lakehouse, chosen, run_id=options.pop("run_id", "again"), **options)


def loaded(lake: Lake) -> list[tuple[Any, Any]]:
    return sorted((r["id"], r["n"]) for r in lake.rows("raw.t"))


def counts(done: Replayed) -> tuple[int, int, int, int]:
    result = done.result
    assert result.extracted == result.loaded + result.quarantined + result.duplicates
    assert result.quarantined == len(done.failed)
    return result.extracted, result.loaded, result.quarantined, result.duplicates


# --- what comes back --------------------------------------------------------------------------------------

WAYS: dict[str, dict[str, Any]] = {
    "merge": {"unique_key": "id"},
    "append": {"write": "append"},
    "append_tagged": {"write": "append", "partition_column": None},
    "replace_partition": {"write": "replace_partition"},
    "replace_partition_with_key": {"write": "replace_partition", "unique_key": "id"},
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_mended_rows_are_added_to_their_partitions_once(way: dict[str, Any], lake: Lake) -> None:
    """The rest of a partition stays; a second time loads nothing; loading the partition again replaces all of it."""
    source = {DAY: [row(1, 1), row(2, -2)], NEXT: [row(3, 3, NEXT), row(4, -4, NEXT), row(5, "x", NEXT)]}
    asset = days(source, **way)
    lake.succeed(asset, DAY, NEXT)
    held, before = lake.loaded(asset), lake.snapshots("raw.t")
    done = again(lake, asset, lambda values: {"n": 7} if values["id"] != 4 else {"n": -5})
    assert counts(done) == (3, 2, 1, 0)
    assert loaded(lake) == [(1, 1), (2, 7), (3, 3), (5, 7)]
    assert [json.loads(one.row)["id"] for one in waiting(lake)] == [4]
    assert (lake.snapshots("raw.t"), lake.loaded(asset)) == (before + 1, held)
    mended = [one for one in waiting(lake) if one.source == "file mended.csv"]
    assert [json.loads(one.row)["n"] for one in mended] == [-5]
    source[NEXT] = [row(3, 33, NEXT)]
    lake.succeed(asset, NEXT)
    assert loaded(lake) == [(1, 1), (2, 7), (3, 33), *([(5, 7)] if way == WAYS["merge"] else [])]
    assert waiting(lake) == []


def test_the_same_rows_a_second_time_change_nothing(lake: Lake) -> None:
    """A run that was killed after its commit is repeated, or a file is given twice."""
    asset = whole([row(1, 1), row(2, -2)])
    lake.succeed(asset)
    rows = waiting(lake)
    for number in range(2):
        done = again(lake, asset, lambda _: {"n": 2}, rows=rows, run_id=f"r{number}")
        assert counts(done) == ((1, 1, 0, 0) if number == 0 else (0, 0, 0, 0))
    assert loaded(lake) == [(1, 1), (2, 2)]
    assert lake.snapshots("raw.t") == 2


def test_equal_rows_are_rows_of_their_own(lake: Lake) -> None:
    """Without a key nothing says that they are one."""
    asset = whole([row(2, -2)] * 3)
    lake.succeed(asset)
    rows = waiting(lake)
    assert len({one.id for one in rows}) == 3
    again(lake, asset, lambda _: {"n": 2}, rows=rows[:2])
    assert (loaded(lake), len(waiting(lake))) == ([(2, 2), (2, 2)], 1)
    again(lake, asset, lambda _: {"n": 3})
    assert (loaded(lake), waiting(lake)) == ([(2, 2), (2, 2), (2, 3)], [])


def test_rows_as_they_are_pass_under_a_contract_that_asks_less(lake: Lake) -> None:
    rows = [row(1, -1), row(2, -20), row("x", 3)]
    lake.succeed(whole(rows))
    first = {one.row: one for one in waiting(lake)}
    done = again(lake, whole(rows, validation_schema=Wide))
    assert counts(done) == (3, 1, 2, 0)
    assert loaded(lake) == [(1, -1)]
    stayed = waiting(lake)
    assert [one.at for one in stayed] == [first[one.row].at for one in stayed]
    assert [one.run for one in stayed] == [first[one.row].run for one in stayed]
    assert sorted("; ".join(one.reasons) for one in stayed) == [
        "column `id`: 'x' is not a long",
        "column `n`: check greater_than_or_equal_to(-10) failed for -20",
    ]


def test_rows_that_fail_as_before_make_no_commit(lake: Lake) -> None:
    asset = whole([row(1, 1), row(2, -2)])
    lake.succeed(asset)
    assert counts(again(lake, asset)) == (1, 0, 1, 0)
    assert lake.snapshots("quarantine.raw__t") == 1


def test_a_dry_run_says_the_same_and_writes_nothing(lake: Lake, tmp_path: Path) -> None:
    asset = whole([row(1, 1), row(2, -2), row(3, -3)])
    lake.succeed(asset)

    def mend(values: dict[str, Any]) -> dict[str, Any]:
        return {"n": 2} if values["id"] == 2 else {}

    assert counts(again(lake, asset, mend, dry_run=True)) == (2, 1, 1, 0)
    assert (loaded(lake), len(waiting(lake)), lake.snapshots("raw.t")) == ([(1, 1)], 2, 1)
    assert counts(again(lake, asset, mend)) == (2, 1, 1, 0)


def test_every_kind_of_value_comes_back_as_it_was(lake: Lake) -> None:
    """They are kept as JSON, which has no bytes, decimals or times."""
    values = {
        "id": 1,
        "camelCase": "é😀\n'\"",
        "blob": b"\x00\xff'",
        "price": pa.scalar("12345678901234567.89").cast(pa.decimal128(20, 2)).as_py(),
        "at": dt.datetime(2024, 3, 31, 1, 59, 59, 999999, tzinfo=dt.UTC),
        "day": dt.date(1969, 12, 31),
        "big": 2**62 + 1,
        "real": 0.1 + 0.2,
        "tags": ["a", None, "b"],
        "place": {"cityName": "Ürümqi", "zip": 7},
        "none": None,
    }
    rows = [{**values, "n": 1}, {**values, "id": 2, "n": "x"}]

    def load(contract: Any = None) -> Any:
        @cascade_ingestion(table_name="t", partitions="none", on_invalid="quarantine", max_retries=0)
        def fetch() -> Any:
            return pa.Table.from_pylist([rows[0]]) if contract is None else rows[1:]

        return fetch

    lake.succeed(load())
    lake.succeed(load("second"))
    again(lake, load(), lambda _: {"n": 1})
    first, second = sorted(lake.rows("raw.t"), key=lambda r: r["id"])
    assert {**second, "id": 1} == first


# --- what is newer stays ----------------------------------------------------------------------------------


def test_a_row_that_was_loaded_later_is_not_replaced(lake: Lake) -> None:
    source = {DAY: [row(1, -1)], NEXT: [row(1, 5, NEXT), row(2, 2, NEXT)]}
    asset = days(source, unique_key="id")
    lake.succeed(asset, DAY)
    lake.succeed(asset, NEXT)
    for dry_run in (True, False):
        assert counts(again(lake, asset, lambda _: {"n": 4}, dry_run=dry_run)) == (1, 0, 0, 1)
    assert (loaded(lake), waiting(lake)) == ([(1, 5), (2, 2)], [])


def test_the_greatest_value_of_order_by_wins_as_in_a_load(lake: Lake) -> None:
    source = {DAY: [row(1, -1, DAY), row(2, -1, DAY)], NEXT: [row(1, 5, NEXT)]}
    asset = days(source, unique_key="id", order_by="at")
    lake.succeed(asset, DAY)
    lake.succeed(asset, NEXT)
    for dry_run in (True, False):
        assert counts(again(lake, asset, lambda _: {"n": 4}, dry_run=dry_run)) == (2, 1, 0, 1)
    assert loaded(lake) == [(1, 5), (2, 4)]


def test_a_key_is_one_row_of_a_partition(lake: Lake) -> None:
    """Had the mended row come with its load, one of the two would have been left out."""
    source = {DAY: [row(1, -1), row(1, 8)], NEXT: [row(1, 9, NEXT)]}
    asset = days(source, write="replace_partition", unique_key="id")
    for day in (DAY, NEXT):
        lake.succeed(asset, day)
    assert counts(again(lake, asset, lambda _: {"n": 4})) == (1, 0, 0, 1)
    assert loaded(lake) == [(1, 8), (1, 9)]


def test_of_several_rows_with_one_key_the_last_one_set_aside_wins(lake: Lake) -> None:
    source = {DAY: [row(1, -1)], NEXT: [row(1, -2, NEXT)]}
    asset = days(source, unique_key="id")
    lake.succeed(asset, NEXT)
    lake.succeed(asset, DAY)
    assert counts(again(lake, asset, lambda values: {"n": -values["n"]})) == (2, 1, 0, 1)
    assert loaded(lake) == [(1, 1)]


# --- what is refused --------------------------------------------------------------------------------------


def test_what_all_rows_of_a_partition_must_fulfil_holds_with_those_that_come_back(lake: Lake) -> None:
    asset = days({DAY: [row(1, 1), row(2, -2)], NEXT: [row(3, 4, NEXT)]}, validation_schema=Single)
    lake.succeed(asset, DAY, NEXT)
    with pytest.raises(ContractError, match=r"`n` must be unique, and would be there twice: 1"):
        again(lake, asset, lambda _: {"n": 1})
    assert (loaded(lake), len(waiting(lake))) == ([(1, 1), (3, 4)], 1)
    again(lake, asset, lambda _: {"n": 4})  # that one is of another day
    assert loaded(lake) == [(1, 1), (2, 4), (3, 4)]


def test_a_check_of_a_whole_load_sees_the_partition(lake: Lake) -> None:
    asset = days({DAY: [row(1, 1), row(2, 2), row(3, -3)]}, validation_schema=Many)
    lake.succeed(asset, DAY)
    assert counts(again(lake, asset, lambda _: {"n": 3})) == (1, 1, 0, 0)


@pytest.mark.parametrize("day", [NEXT, THIRD])
def test_a_row_cannot_move_to_another_partition(day: str, lake: Lake) -> None:
    """Loading its own partition again would not replace it."""
    asset = days({DAY: [row(1, 1), row(2, -2)]})
    lake.succeed(asset, DAY)
    assert counts(again(lake, asset, lambda _: row(2, 2, day))) == (1, 0, 1, 0)
    assert loaded(lake) == [(1, 1)]
    assert [(one.partition, one.reasons) for one in waiting(lake)] == [
        (DAY, ("column `at`: lies outside the partitions of this run",))
    ]


def test_a_row_of_a_partition_that_is_gone_is_refused(lake: Lake) -> None:
    lake.succeed(days({DAY: [row(2, -2)]}), DAY)
    asset = days({}, partitions=daily(start=NEXT, end=THIRD))
    with pytest.raises(UsageError, match=f"of the partition '{DAY}', which the asset does not have"):
        again(lake, asset)


def test_rows_are_not_taken_out_twice(lake: Lake) -> None:
    """Another writer of the branch came first: its commit decides."""
    asset = whole([row(1, 1), row(2, -2)])
    lake.succeed(asset)
    plan, rows = load_plan(asset), waiting(lake)
    again(lake, asset, lambda _: {"n": 2})
    assert counts(replay(plan, lake.lakehouse, [Chosen(rows[0], {"id": 2, "n": 3})], run_id="late"))[0] == 0
    assert loaded(lake) == [(1, 1), (2, 2)]


# --- files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_file_of_rows_is_mended_and_comes_back(ending: str, lake: Lake, tmp_path: Path) -> None:
    """Rows that cannot be cast have the names of the source, those that break the contract the table's."""
    rows = [row(1, -1), row(None, 2), {"id": 3, "n": 'a,"b"\n', "at": ""}]
    asset = days({DAY: [{name.upper(): value for name, value in one.items()} for one in rows]}, unique_key="id")
    lake.succeed(asset, DAY)
    plan = load_plan(asset)
    columns, rows = columns_of(plan, lake.lakehouse.table("raw.t")), waiting(lake)
    file = tmp_path / ("rows.jsonl" if ending == "parquet" else f"rows.{ending}")
    write_rows(file, rows, columns)
    found = read_rows(file, columns)
    assert sorted(found[0]) == ["_cascade_id", "at", "id", "n"]
    assert {json.dumps(one["n"]) for one in found} >= {json.dumps('a,"b"\n')}
    for one in found:
        one.update(id=one["id"] or 9, n=5, at=f"{DAY}T00:00:00+00:00")
    if ending == "parquet":
        file = tmp_path / "rows.parquet"
        pq.write_table(pa.Table.from_pylist([{**one, "id": int(one["id"])} for one in found]), file)
        found = read_rows(file, columns)
    chosen, unknown = match(rows, found, ("id",), columns, file)
    assert unknown == 0
    assert counts(replay(plan, lake.lakehouse, chosen, run_id="again")) == (3, 3, 0, 0)
    assert (loaded(lake), waiting(lake)) == ([(1, 5), (3, 5), (9, 5)], [])


FILES: dict[str, tuple[str, str, str]] = {
    "by_key": ("rows.csv", "id,n,at\n1,5,2013-07-01\n", ""),
    "key_as_text": ("rows.jsonl", '{"id": "1", "n": 5, "at": null}\n', ""),
    "lacking": ("rows.csv", "id,n\n1,5\n", "it lacks `at`"),
    "strange": ("rows.csv", "id,n,at,m\n1,5,2013-07-01,1\n", "neither the table nor its rows have `m`"),
    "no_key": ("rows.csv", "n,at\n5,2013-07-01\n", "Nothing tells which rows in quarantine"),
    "twice": ("rows.csv", "id,n,at\n1,5,\n1,6,\n", "The file has rows twice: [1]"),
    "ending": ("rows.xlsx", "id\n", "rows.xlsx is no file of rows"),
    "no_json": ("rows.jsonl", "{", "The file cannot be read"),
    "no_object": ("rows.jsonl", "[1]\n", "each line must be one object"),
}


@pytest.mark.parametrize(("name", "text", "problem"), FILES.values(), ids=FILES)
def test_a_file_that_does_not_fit_is_refused(name: str, text: str, problem: str, lake: Lake, tmp_path: Path) -> None:
    asset = days({DAY: [row(1, -1), row(2, 2)]}, unique_key="id")
    lake.succeed(asset, DAY)
    plan = load_plan(asset)
    columns, file = columns_of(plan, lake.lakehouse.table("raw.t")), tmp_path / name
    file.write_text(text)
    if not problem:
        chosen, unknown = match(waiting(lake), read_rows(file, columns), plan.unique_key, columns, file)
        assert ([one.row.key for one in chosen], unknown) == (["[1]"], 0)
        return
    with pytest.raises(CascadeError) as refused:
        match(waiting(lake), read_rows(file, columns), plan.unique_key, columns, file)
    assert problem in str(refused.value)


def test_rows_are_chosen_by_partition_run_and_reason(lake: Lake) -> None:
    asset = days({DAY: [row(1, -1), row(2, "x")], NEXT: [row(3, -3, NEXT)]})
    lake.succeed(asset, DAY, NEXT)
    rows = waiting(lake)
    assert len(choose(rows)) == 3
    assert [json.loads(one.row)["id"] for one in choose(rows, partition=NEXT)] == [3]
    assert [json.loads(one.row)["id"] for one in choose(rows, reason="NOT A long")] == [2]
    assert len(choose(rows, run=rows[0].run[:8])) == 3
    assert choose(rows, run="zzz") == []
