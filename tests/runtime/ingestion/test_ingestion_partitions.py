"""The promises of partitions: which rows belong to them, which are loaded, and dlt's cursor beside them."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import dlt
import pandas as pd
import pandera.pandas as pa_pandas
import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import DateType, LongType, NestedField, StringType, TimestampType, TimestamptzType

from cascade.catalog import MAIN
from cascade.ingestion import cascade_ingestion, daily, hourly, monthly, static
from cascade.ingestion.partitions import Partitions
from cascade.ingestion.slices import spans
from support.ingestion import DAY, NEXT, THIRD, Lake, hours
from support.lakes import Rows

pytestmark = pytest.mark.on_servers("nessie")

DAILY = daily(start=DAY, end="2013-07-05")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, project_dir=tmp_path)


def asset_of(source: Any, partitions: Partitions = DAILY, **options: Any) -> Any:
    """An asset that loads what the source, a dict or a function, has for its partitions."""
    ask = source.get if isinstance(source, dict) else source

    @cascade_ingestion(
        table_name="t", partitions=partitions, max_retries=0, **{"unique_key": "id", "partition_column": "at"} | options
    )
    def fetch(partition_dates: list[str]) -> Any:
        return [row for key in partition_dates for row in ask(key) or ()]

    return fetch


# --- rows belong to partitions ----------------------------------------------------------------------------

KINDS = {
    "timestamptz": (TimestamptzType(), dt.datetime(2013, 7, 1, tzinfo=dt.UTC), dt.datetime(2013, 7, 2, tzinfo=dt.UTC)),
    "timestamp": (TimestampType(), dt.datetime(2013, 7, 1), dt.datetime(2013, 7, 2)),
    "date": (DateType(), dt.date(2013, 7, 1), dt.date(2013, 7, 2)),
}


@pytest.mark.parametrize(("kind", "inside", "outside"), KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("write", ["merge", "replace_partition"])
def test_a_row_outside_the_run_s_partitions_is_an_error_and_nothing_is_written(
    lake: Lake, kind: Any, inside: Any, outside: Any, write: Any
) -> None:
    schema = Schema(NestedField(1, "id", LongType()), NestedField(2, "at", kind))
    rows = [{"id": 1, "at": inside}]
    asset = asset_of(lambda _: rows, iceberg_schema=schema, write=write)
    lake.succeed(asset, DAY)
    lake.succeed(asset, DAY)
    before = lake.lakehouse.head("raw.t")
    rows.append({"id": 2, "at": outside})
    said = lake.fail(asset, DAY)
    assert "Outside the partitions of this run: 1 row." in said
    assert f"({DAY} .. {DAY})" in said
    assert (lake.lakehouse.head("raw.t"), lake.rows("raw.t")) == (before, [{"id": 1, "at": inside}])


def test_a_row_without_a_time_belongs_to_no_partition(lake: Lake) -> None:
    schema = Schema(NestedField(1, "id", LongType()), NestedField(2, "at", TimestamptzType()))
    assert "Outside the partitions of this run: 1 row." in lake.fail(
        asset_of(lambda _: [{"id": 1, "at": None}], iceberg_schema=schema), DAY
    )


AMSTERDAM, NEW_YORK = "Europe/Amsterdam", "America/New_York"


@pytest.mark.parametrize("zone", [AMSTERDAM, NEW_YORK, "UTC"])
@pytest.mark.parametrize("write", ["merge", "replace_partition"])
def test_a_date_belongs_to_its_own_day_in_every_time_zone(lake: Lake, zone: str, write: Any) -> None:
    schema = Schema(NestedField(1, "id", LongType()), NestedField(2, "at", DateType()))
    day, after = dt.date(2013, 7, 1), dt.date(2013, 7, 2)
    source = {DAY: [{"id": 1, "at": day}], NEXT: [{"id": 2, "at": after}]}
    asset = asset_of(source, daily(start=DAY, end=THIRD, timezone=zone), iceberg_schema=schema, write=write)
    lake.succeed(asset, DAY, NEXT)
    source[DAY] = [{"id": 3, "at": day}]
    lake.succeed(asset, DAY)
    kept = [2, 3] if write == "replace_partition" else [1, 2, 3]
    assert [row["id"] for row in lake.rows("raw.t", order="id")] == kept
    source[DAY] = [{"id": 4, "at": after}]
    assert "Outside the partitions" in lake.fail(asset, DAY)


@pytest.mark.parametrize(("zone", "hour"), [(AMSTERDAM, 22), (NEW_YORK, 4)])
def test_a_day_begins_at_midnight_of_its_time_zone(lake: Lake, zone: str, hour: int) -> None:
    first = dt.datetime(2013, 7, 1, hour, tzinfo=dt.UTC) - dt.timedelta(days=1 if hour > 12 else 0)
    rows = [{"id": 1, "at": first}]
    asset = asset_of(lambda _: rows, daily(start=DAY, end=NEXT, timezone=zone))
    lake.succeed(asset, DAY)
    rows.append({"id": 2, "at": first - dt.timedelta(microseconds=1)})
    assert "Outside the partitions of this run: 1 row." in lake.fail(asset, DAY)


def test_a_partition_may_be_an_hour(lake: Lake) -> None:
    asset = asset_of(lambda key: hours(DAY, int(key[11:13])), hourly(start=DAY, end=DAY))
    lake.succeed(asset, f"{DAY}-03:00", f"{DAY}-05:00")
    assert [row["n"] for row in lake.rows("raw.t")] == [3, 4, 5]


def test_a_partition_may_be_a_month(lake: Lake) -> None:
    asset = asset_of(lambda _: hours("2013-07-31", 23), monthly(start="2013-07-01", end="2013-08-31"))
    lake.succeed(asset, "2013-07-01")
    assert "Outside the partitions" in lake.fail(asset, "2013-08-01")


@pytest.mark.parametrize("write", ["merge", "replace_partition"])
def test_a_partition_may_be_a_key_of_one_s_own(lake: Lake, write: Any) -> None:
    schema = Schema(NestedField(1, "id", LongType()), NestedField(2, "at", StringType()))
    source: dict[str, Rows] = {"nl": [{"id": 1, "at": "nl"}], "it's": [{"id": 2, "at": "it's"}]}
    asset = asset_of(source, static(["nl", "be", "it's"]), iceberg_schema=schema, write=write)
    lake.succeed(asset, "it's")
    lake.succeed(asset, "nl")
    lake.succeed(asset, "it's")
    assert [row["id"] for row in lake.rows("raw.t")] == [1, 2]
    source["nl"] = [{"id": 3, "at": "be"}]
    assert "Outside the partitions" in lake.fail(asset, "nl")


def test_a_partition_column_that_is_no_time_is_refused(lake: Lake) -> None:
    said = lake.fail(asset_of(lambda key: [{"id": 1, "at": key}]), DAY)
    assert "must be a timestamp or a date, not string" in said


def test_neighbours_are_one_range_of_time() -> None:
    definition = dg.DailyPartitionsDefinition(start_date=DAY, end_date="2013-08-01")
    days = [dt.datetime(2013, 7, n, tzinfo=dt.UTC) for n in (1, 2, 3, 4, 5)]
    ends = [("2013-07-04", "2013-07-04"), (DAY, DAY), (NEXT, NEXT)]
    assert spans(definition, ends) == [(DAY, NEXT, days[0], days[2]), ("2013-07-04", "2013-07-04", days[3], days[4])]
    held = [("2013-07-01", "2013-07-04"), (NEXT, NEXT)]  # a partition that is loaded again lies inside of a range
    assert spans(definition, held) == [(DAY, "2013-07-04", days[0], days[4])]


# --- which partitions are loaded --------------------------------------------------------------------------


def test_what_is_loaded_is_recorded_empty_partitions_included(lake: Lake) -> None:
    asset = asset_of({DAY: hours(DAY, 1)})
    lake.succeed(asset, DAY, NEXT)
    lake.succeed(asset, "2013-07-05")
    assert lake.loaded(asset) == [DAY, NEXT, "2013-07-05"]
    assert lake.loaded(asset, MAIN) == []


def test_the_record_travels_with_the_promotion(lake: Lake) -> None:
    asset = asset_of({DAY: hours(DAY, 1)})
    lake.succeed(asset, DAY, NEXT)
    lake.lakehouse.catalog.merge("test")
    assert lake.loaded(asset, MAIN) == [DAY, NEXT]


def test_a_failed_load_records_nothing(lake: Lake) -> None:
    asset = asset_of({DAY: hours(NEXT, 1)})
    lake.fail(asset, DAY)
    assert lake.loaded(asset) == []


def test_missing_only_leaves_alone_what_is_there(lake: Lake) -> None:
    asked: list[str] = []

    def source(key: str) -> Rows:
        asked.append(key)
        return hours(key, 1)

    asset = asset_of(source)
    lake.load(asset, NEXT, missing_only=True)
    result = lake.load(asset, DAY, NEXT, THIRD, missing_only=True)
    assert asked == [NEXT, DAY, THIRD]
    assert (result.partitions, result.skipped, result.total) == ([DAY, THIRD], 1, 3)


def test_missing_only_with_nothing_missing_fetches_and_commits_nothing(lake: Lake) -> None:
    asset = asset_of({DAY: hours(DAY, 1)})
    first = lake.load(asset, DAY)
    result = lake.load(asset, DAY, missing_only=True)
    assert (result.partitions, result.skipped, result.total) == ([], 1, 1)
    assert result.snapshot_id == first.snapshot_id == lake.lakehouse.head("raw.t")


@pytest.mark.parametrize(
    ("later", "loaded"),
    [
        (daily(start="2013-06-01", end="2013-07-31"), [DAY, NEXT, THIRD]),
        (daily(start=NEXT, end="2013-07-31"), [NEXT, THIRD]),
        (daily(start=DAY, end=NEXT), [DAY, NEXT]),
    ],
    ids=["earlier_start", "later_start", "earlier_end"],
)
def test_what_is_loaded_is_known_when_the_range_of_partitions_changes(
    lake: Lake, later: Partitions, loaded: list[str]
) -> None:
    lake.succeed(asset_of({}), DAY, THIRD)
    assert lake.loaded(asset_of({}, later)) == loaded


def test_a_key_that_is_declared_between_two_loaded_ones_is_not_loaded(lake: Lake) -> None:
    lake.succeed(asset_of({}, static(["be", "nl"])), "be", "nl")
    assert lake.loaded(asset_of({}, static(["be", "de", "nl"]))) == ["be", "nl"]


def test_a_year_of_days_is_recorded_in_few_words(lake: Lake) -> None:
    asset = asset_of({}, daily(start="2013-01-01", end="2013-12-31"))
    lake.succeed(asset, "2013-01-01", "2013-12-31")
    recorded = lake.lakehouse.table("raw.t").properties["cascade.loaded-partitions"]
    assert (len(lake.loaded(asset)), len(recorded) < 100) == (365, True)


# --- the cursor of dlt ------------------------------------------------------------------------------------


class Events(pa_pandas.DataFrameModel):
    """Events whose names differ."""

    id: pd.Int64Dtype
    name: str = pa_pandas.Field(unique=True)


class Source:
    """A source that remembers from where it was asked."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.asked: list[int] = []

    def asset(self, **options: Any) -> dg.AssetsDefinition:
        @dlt.resource(name="events")
        def events(at: Any = dlt.sources.incremental("id", initial_value=0)) -> Iterator[Rows]:  # noqa: B008
            self.asked.append(at.last_value)
            yield [{"id": n, "name": name} for n, name in enumerate(self.names, 1) if n >= at.last_value]

        @cascade_ingestion(table_name="events", partitions="none", unique_key="id", max_retries=0, **options)
        def fetch() -> Any:
            return events

        found: dg.AssetsDefinition = fetch
        return found


def test_the_cursor_of_a_source_goes_on_where_the_last_commit_ended(lake: Lake) -> None:
    source = Source("a", "b")
    assert lake.succeed(source.asset())["extracted_rows"] == 2
    source.names += ["c"]
    assert lake.succeed(source.asset())["extracted_rows"] == 1
    assert source.asked == [0, 2]
    assert [row["name"] for row in lake.rows("raw.events")] == ["a", "b", "c"]


def test_the_cursor_is_never_ahead_of_the_data_when_a_load_fails_after_fetching(lake: Lake) -> None:
    """The peer's next run succeeds with these rows lost."""
    source = Source("a", "b")
    asset = source.asset(validation_schema=Events)
    lake.succeed(asset)
    source.names += ["same", "same"]
    assert "must be unique" in lake.fail(asset)
    source.names[-1] = "other"
    lake.succeed(asset)
    assert source.asked == [0, 2, 2]
    assert [row["name"] for row in lake.rows("raw.events")] == ["a", "b", "same", "other"]


def test_the_cursor_belongs_to_the_branch(lake: Lake) -> None:
    source = Source("a")
    asset = source.asset()
    lake.succeed(asset)
    lake.lakehouse.catalog.merge("test")
    source.names += ["b"]
    lake.succeed(asset)
    lake.lakehouse.catalog.delete("test")  # what was not promoted is fetched again
    lake.succeed(asset)
    assert source.asked == [0, 1, 1]
    assert [row["name"] for row in lake.rows("raw.events")] == ["a", "b"]
