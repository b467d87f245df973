"""The promises of quarantine: a row that was set aside stays until it is settled, and is there once."""

import datetime as dt
import itertools
from pathlib import Path
from typing import Any

import dagster as dg
import dlt
import pandas as pd
import pandera.pandas as pap
import pytest
from pyiceberg.types import LongType

from cascade.catalog import check_table_name
from cascade.ingestion import cascade_ingestion, daily, hourly, static
from cascade.ingestion.quarantine import quarantine_table
from support.ingestion import DAY, NEXT, THIRD, Lake

pytestmark = pytest.mark.on_servers("nessie")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, project_dir=tmp_path)


class Sizes(pap.DataFrameModel):
    """Rows whose number is not negative."""

    id: pd.Int64Dtype
    n: pd.Int64Dtype = pap.Field(ge=0)


class Days(Sizes):
    """The same with a time."""

    at: pd.DatetimeTZDtype = pap.Field(nullable=True, dtype_kwargs={"unit": "us", "tz": "UTC"})


class Countries(Sizes):
    """The same by country."""

    country: str


def sizes(rows: list[dict[str, Any]], **options: Any) -> Any:
    @cascade_ingestion(
        **{
            "table_name": "t",
            "partitions": "none",
            "validation_schema": Sizes,
            "on_invalid": "quarantine",
            "max_retries": 0,
            **options,
        }
    )
    def fetch() -> Any:
        return list(rows)

    return fetch


def row(key: Any, n: Any, day: str | None = None) -> dict[str, Any]:
    at = {} if day is None else {"at": dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC)}
    return {"id": key, "n": n, **at}


def days(source: dict[str, list[dict[str, Any]]], *, ranges: bool = True, **options: Any) -> Any:
    common: dict[str, Any] = {
        "table_name": "t",
        "partitions": daily(start=DAY, end="2013-07-31"),
        "partition_column": "at",
        "unique_key": "id",
        "validation_schema": Days,
        "on_invalid": "quarantine",
        "max_retries": 0,
        **options,
    }
    if ranges:

        @cascade_ingestion(**common)
        def fetch(partition_dates: list[str]) -> Any:
            return [r for day in partition_dates for r in source.get(day, [])]

        return fetch

    @cascade_ingestion(**common)
    def fetch_one(partition_date: str) -> Any:
        return source.get(partition_date, [])

    return fetch_one


def aside(lake: Lake, table: str = "quarantine.raw__t") -> list[tuple[Any, ...]]:
    return sorted((r["partition"], r["key"]) for r in lake.rows(table))


# --- without partitions -----------------------------------------------------------------------------------


def test_a_row_of_a_load_that_has_no_value_at_all_is_set_aside(lake: Lake) -> None:
    @cascade_ingestion(table_name="t", partitions="none", on_invalid="quarantine")
    def fetch() -> Any:
        return [{"a": None}]

    assert lake.succeed(fetch)["quarantined_rows"] == 1
    assert [(r["row"], r["reasons"]) for r in lake.rows("quarantine.raw__t")] == [
        ('{"a": null}', ["no column has a value yet"])
    ]


@pytest.mark.parametrize("key", ["id", None])
def test_a_run_without_bad_rows_leaves_the_earlier_ones_in_quarantine(lake: Lake, key: Any) -> None:
    rows = [row(1, -1), row(2, 2)]
    asset = sizes(rows, unique_key=key)
    lake.succeed(asset)
    rows[:] = [row(3, 3)]
    lake.succeed(asset)
    rows.clear()
    lake.succeed(asset)
    assert [r["key"] for r in lake.rows("quarantine.raw__t")] == (["[1]"] if key else [None])


def test_a_row_leaves_quarantine_when_a_row_with_its_key_is_loaded(lake: Lake) -> None:
    rows = [row(1, -1), row(2, -2), row("x", 0)]
    asset = sizes(rows, unique_key="id")
    lake.succeed(asset)
    snapshots = lake.snapshots("quarantine.raw__t")
    rows[:] = [row(2, 2), row(5, 5)]
    found = lake.succeed(asset)
    assert [r["key"] for r in lake.rows("quarantine.raw__t") if r["key"]] == ["[1]"]
    assert (found["extracted_rows"], found["loaded_rows"], found["quarantined_rows"]) == (2, 2, 0)
    rows[:] = [row(9, 9)]  # settles nothing: the quarantine table is not written
    lake.succeed(asset)
    assert lake.snapshots("quarantine.raw__t") == snapshots + 1


def test_the_same_bad_row_again_is_in_quarantine_once_when_it_has_a_key(lake: Lake) -> None:
    asset = sizes([row(1, -1), row(None, 2)], unique_key="id")
    for _ in range(3):
        lake.succeed(asset)
    assert len(lake.rows("quarantine.raw__t")) == 2


def test_replacing_everything_replaces_everything_that_was_set_aside(lake: Lake) -> None:
    rows = [row(1, -1), row(2, 2)]
    asset = sizes(rows, write="replace_partition")
    lake.succeed(asset)
    rows[:] = [row(2, 2)]
    lake.succeed(asset)
    assert lake.rows("quarantine.raw__t") == []


def test_what_a_cursor_has_passed_stays_in_quarantine(lake: Lake) -> None:
    """The source never sends it again: emptied, the row would be in no table."""
    names = ["ok", "bad"]

    @dlt.resource(name="events")
    def events(at: Any = dlt.sources.incremental("id", initial_value=0)) -> Any:  # noqa: B008
        yield [{"id": i, "n": -1 if name == "bad" else i} for i, name in enumerate(names, 1) if i > at.last_value]

    @cascade_ingestion(table_name="t", partitions="none", validation_schema=Sizes, on_invalid="quarantine")
    def fetch() -> Any:
        return events

    lake.succeed(fetch)
    for _ in range(2):
        names.append("ok")
        lake.succeed(fetch)
    assert (len(lake.rows("raw.t")), len(lake.rows("quarantine.raw__t"))) == (3, 1)


# --- with partitions --------------------------------------------------------------------------------------

BAD = {day: [row(i, i, day), row(-i, -1, day)] for i, day in enumerate((DAY, NEXT, THIRD), 1)}


# Without a partition column the decorator refuses a function of partition_dates: nothing would tell a row's partition.
@pytest.mark.parametrize(("ranges", "column"), [(True, "at"), (False, "at"), (False, None)])
def test_each_row_tells_its_own_partition_whatever_range_brought_it(lake: Lake, ranges: bool, column: Any) -> None:
    source = dict(BAD)
    asset = days(source, ranges=ranges, partition_column=column)
    lake.succeed(asset, DAY, THIRD)
    assert [p for p, _ in aside(lake)] == [DAY, NEXT, THIRD]
    source[NEXT] = [row(2, 2, NEXT)]
    lake.succeed(asset, NEXT)  # one day of the range is mended
    assert [p for p, _ in aside(lake)] == [DAY, THIRD]
    lake.succeed(asset, DAY)
    lake.succeed(asset, DAY, NEXT)  # single days, then a range: nothing is there twice
    assert [p for p, _ in aside(lake)] == [DAY, THIRD]


def test_a_row_that_does_not_tell_its_partition_is_kept_until_all_of_its_run_is_loaded_again(lake: Lake) -> None:
    source = {NEXT: [row(2, 2, NEXT), {"id": 7, "n": 7, "at": "soon"}]}
    asset = days(source)
    lake.succeed(asset, DAY, THIRD)
    everything = f"{DAY}..{THIRD}"
    assert aside(lake) == [(everything, "[7]")]
    lake.succeed(asset, DAY, NEXT)  # it comes again, and is there once
    assert aside(lake) == [(f"{DAY}..{NEXT}", "[7]")]
    del source[NEXT][1]
    lake.succeed(asset, DAY)
    assert aside(lake) == [(f"{DAY}..{NEXT}", "[7]")]
    lake.succeed(asset, DAY, THIRD)
    assert aside(lake) == []


def test_partitions_of_one_s_own_are_known_by_their_whole_key(lake: Lake) -> None:
    source = {key: [{"country": key, "id": i, "n": -1}] for i, key in enumerate(["a", "b", "a, b"])}

    @cascade_ingestion(
        table_name="t",
        partitions=static(["a", "b", "a, b"]),
        partition_column="country",
        validation_schema=Countries,
        on_invalid="quarantine",
        unique_key="id",
    )
    def fetch(partition_dates: list[str]) -> Any:
        return [r for key in partition_dates for r in source[key]]

    lake.succeed(fetch, "a", "b")
    source["a, b"] = []
    lake.succeed(fetch, "a, b")
    assert [p for p, _ in aside(lake)] == ["a", "b"]


def test_a_row_that_does_not_tell_which_of_several_keys_is_kept_until_all_of_them_are_loaded(lake: Lake) -> None:
    rows = [{"country": None, "id": 1, "n": "x"}, {"country": '["a"]', "id": 2, "n": -1}]

    @cascade_ingestion(
        table_name="t",
        partitions=static(["a", "b", "c", '["a"]']),
        partition_column="country",
        validation_schema=Countries,
        on_invalid="quarantine",
        unique_key="id",
        max_retries=0,
    )
    def fetch(partition_dates: list[str]) -> Any:
        return [r for r in rows if r["country"] in (None, *partition_dates)]

    lake.succeed(fetch, "a", "b")
    lake.succeed(fetch, "b", '["a"]')  # it comes again, and is there once
    labels = ['["a"]', '["b", "c", "[\\"a\\"]"]']
    assert [p for p, _ in aside(lake)] == labels
    rows.clear()
    lake.succeed(fetch, "a", "c")
    assert [p for p, _ in aside(lake)] == labels
    lake.succeed(fetch, "a", '["a"]')
    assert aside(lake) == []


def test_a_row_that_tells_no_partition_is_set_aside_when_it_breaks_the_contract(lake: Lake) -> None:
    class Timed(Sizes):
        """Here the time is required."""

        at: pd.DatetimeTZDtype = pap.Field(dtype_kwargs={"unit": "us", "tz": "UTC"})

    asset = days({DAY: [row(1, 1, DAY), {"id": 2, "n": 2, "at": None}]}, validation_schema=Timed)
    found = lake.succeed(asset, DAY, NEXT)
    assert (found["loaded_rows"], found["quarantined_rows"]) == (1, 1)
    assert aside(lake) == [(f"{DAY}..{NEXT}", "[2]")]


# --- another key, another run, the same run again ----------------------------------------------------------


def test_a_unique_key_with_more_columns_loads_beside_rows_that_were_set_aside(lake: Lake) -> None:
    rows = [row(1, -1), row(2, 2)]
    lake.succeed(sizes(rows, unique_key="id"))
    lake.succeed(sizes(rows, unique_key=["id", "n"]))
    rows[0] = row(1, 1)
    lake.succeed(sizes(rows, unique_key=["id", "n"]))
    assert sorted(r["key"] for r in lake.rows("quarantine.raw__t")) == ["[1, -1]", "[1]"]  # neither was loaded


def test_a_repeated_attempt_sets_no_row_aside_twice(lake: Lake) -> None:
    """Killed after its commit, an append that loaded nothing is known by what it set aside."""
    rows = [row(1, 1)]
    asset = sizes(rows)
    lake.succeed(asset)
    rows[:] = [row(2, -2)]
    assert [(found.quarantined, found.skipped) for found in (lake.load(asset), lake.load(asset))] == [(1, 0), (0, 1)]
    assert len(lake.rows("quarantine.raw__t")) == 1


def test_what_another_run_sets_aside_meanwhile_is_replaced_with_its_partition(lake: Lake) -> None:
    beside: list[bool] = []

    @cascade_ingestion(
        table_name="t",
        partitions=daily(start=DAY),
        partition_column="at",
        unique_key="id",
        validation_schema=Days,
        on_invalid="quarantine",
    )
    def fetch(partition_date: str) -> Any:
        if beside:
            yield row(1, -1, DAY)  # the other run meets a bad row, which is mended when this one reads it
            return
        beside.append(True)
        lake.load(fetch, DAY)
        yield row(1, 1, DAY)

    lake.load(fetch, DAY)
    assert (len(lake.rows("raw.t")), lake.rows("quarantine.raw__t")) == (1, [])


# --- data and quarantine are one commit --------------------------------------------------------------------


def test_rows_and_what_was_set_aside_are_committed_together_or_not_at_all(lake: Lake) -> None:
    """A row that turns bad must not be both loaded and set aside, whatever happens to the commit."""
    rows = [row(1, -1), row(2, 2)]
    lake.succeed(sizes(rows, unique_key="id"))
    before = lake.lakehouse.catalog.pointers("test")
    rows[:] = [row(2, -2), row(3, 3)]

    @cascade_ingestion(
        table_name="t",
        partitions="none",
        validation_schema=Sizes,
        on_invalid="quarantine",
        unique_key="id",
        max_retries=0,
    )
    def fetch() -> Any:
        yield from rows
        # Another process changes a column of the quarantine table in a way that this load cannot follow.
        table = lake.lakehouse.catalog.open("test").load_table("quarantine.raw__t")
        with table.update_schema(allow_incompatible_changes=True) as update:
            update.delete_column("run")
            update.add_column("run", LongType())

    assert "cannot become" in lake.fail(fetch)
    assert lake.lakehouse.catalog.pointers("test")["raw.t"] == before["raw.t"]
    assert [r["key"] for r in lake.rows("quarantine.raw__t")] == ["[1]"]


def test_the_contract_warns_of_rows_that_were_set_aside_and_names_their_table(lake: Lake) -> None:
    asset = sizes([row(1, -1), row(2, 2)])
    result = lake.run(asset)
    assert (result.success, result.checks) == (True, {"raw/t contract": False})
    assert lake.metadata(asset)["quarantine_table"] == "quarantine.raw__t"
    (said,) = lake._instance.event_log_storage.get_asset_check_execution_history(next(iter(asset.check_keys)), limit=1)
    assert said.evaluation.description == "1 of 2 rows broke it; see quarantine.raw__t."
    assert said.evaluation.severity is dg.AssetCheckSeverity.WARN


def test_the_page_of_a_table_shows_the_columns_of_its_quarantine_before_any_row_is_set_aside() -> None:
    shown = sizes([]).metadata_by_key[dg.AssetKey(["raw", "t"])]
    assert shown["quarantine_table"] == "quarantine.raw__t"
    columns = {column.name: (column.type, column.description) for column in shown["quarantine_columns"].columns}
    assert columns["reasons"] == ("list<string>", "Why it was set aside")
    assert all(kind and description for kind, description in columns.values())


# --- names ------------------------------------------------------------------------------------------------

NAMES = ["raw.orders", "raw.a__b", "raw__a.b", "raw._b", "raw_.b", "raw.b", "raw." + "x" * 120, "raw." + "x" * 121]


def test_every_table_has_a_quarantine_of_its_own() -> None:
    found = [quarantine_table(name) for name in NAMES]
    assert found[0] == "quarantine.raw__orders"
    assert [check_table_name(name) for name in found] == found
    assert all(one != other for one, other in itertools.combinations(found, 2))


def test_hours_are_not_told_apart_by_a_date(lake: Lake) -> None:
    @cascade_ingestion(
        table_name="t", partitions=hourly(start=DAY, end=DAY), partition_column="at", write="replace_partition"
    )
    def fetch(partition_date: str) -> Any:
        return [{"at": dt.date(2013, 7, 1)}]

    assert "of hours of a day must be a timestamp" in lake.fail(fetch, f"{DAY}-00:00")


# --- values that must be there once -------------------------------------------------------------------------


class Once(pap.DataFrameModel):
    """Rows whose number is there once."""

    id: int
    n: pd.Int64Dtype = pap.Field(unique=True, nullable=True)


@pytest.mark.parametrize("sliced", [False, True])
def test_all_rows_that_share_a_unique_value_are_set_aside_once(lake: Lake, sliced: bool) -> None:
    """Nothing says which of them is right; over several batches, and each under its own partition."""
    source = {DAY: [(1, 7), (2, None)], NEXT: [(3, 7), (4, None), (5, 5)]}
    slices = daily(start=DAY, end=NEXT) if sliced else "none"

    def fetch(partition_date: str) -> Any:
        return [row(*pair) for pair in source[partition_date]]

    def everything() -> Any:
        yield from ([row(*pair) for pair in pairs] for pairs in source.values())

    options: dict[str, Any] = {"table_name": "t", "validation_schema": Once, "on_invalid": "quarantine"}
    if not sliced:
        options |= {"unique_key": "id"}
    asset = cascade_ingestion(partitions=slices, **options)(fetch if sliced else everything)
    for _ in range(2):
        found = lake.succeed(asset, *([DAY, NEXT] if sliced else []))
        assert [found[f"{what}_rows"] for what in ("extracted", "loaded", "quarantined")] == [5, 1, 4]
        assert lake.rows("raw.t") == [{"id": 5, "n": 5}]
        set_aside = lake.rows("quarantine.raw__t", order="row")
        assert [r["reasons"] for r in set_aside] == [["`n` must be unique"]] * 4
        assert [r["partition"] for r in set_aside] == ([DAY, DAY, NEXT, NEXT] if sliced else [""] * 4)


def test_more_rows_than_the_limit_share_a_unique_value(lake: Lake) -> None:
    rows = [row(i, 1) for i in range(3)]
    said = lake.fail(sizes(rows, validation_schema=Once, quarantine_limit=2))
    assert ("3 of 3 rows break the contract Once" in said, lake.lakehouse.tables()) == (True, [])


def test_rows_outside_the_partitions_of_the_run_are_set_aside(lake: Lake) -> None:
    source = {DAY: [row(1, 1, DAY), row(2, 2, NEXT), {"id": 3, "n": 3, "at": None}]}
    found = lake.succeed(days(source, ranges=False), DAY)
    assert [found[f"{what}_rows"] for what in ("extracted", "loaded", "quarantined")] == [3, 1, 2]
    assert [r["reasons"] for r in lake.rows("quarantine.raw__t")] == [
        ["column `at`: lies outside the partitions of this run"]
    ] * 2
