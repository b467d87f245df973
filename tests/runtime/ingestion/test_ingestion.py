"""The promises of a load through `@cascade_ingestion`: every row in, once, in one commit, or nothing.

Modules: `cascade.ingestion.asset`, `cascade.ingestion.incoming`, `cascade.ingestion.plan`,
`cascade.ingestion.report`.
"""

import datetime as dt
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa_pandas
import polars as pl
import pyarrow as pa
import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform
from pyiceberg.types import DecimalType, DoubleType, ListType, LongType, NestedField, StringType, TimestamptzType

from cascade.ingestion import cascade_ingestion, daily
from cascade.names import BRANCH_METADATA, SNAPSHOT_METADATA
from support.ingestion import DAY, NEXT, THIRD, Lake, hours
from support.lakes import data_files

pytestmark = pytest.mark.on_servers("nessie")

HOURS = Schema(
    NestedField(1, "id", StringType()), NestedField(2, "at", TimestamptzType()), NestedField(3, "n", LongType())
)
DAILY = daily(start=DAY, end="2013-07-31")


class Hours(pa_pandas.DataFrameModel):
    """Hours with a number that must not be negative."""

    id: str = pa_pandas.Field(nullable=False)
    at: pd.DatetimeTZDtype = pa_pandas.Field(dtype_kwargs={"unit": "us", "tz": "UTC"})
    n: int = pa_pandas.Field(ge=0)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, project_dir=tmp_path)


def daily_hours(source: dict[str, Any], **options: Any) -> Any:
    """An asset that loads what the source holds for each day."""
    options = {"unique_key": "id", "partitions": DAILY, "partition_column": "at", "iceberg_schema": HOURS} | options

    @cascade_ingestion(table_name="hours", max_retries=0, **options)
    def fetch(partition_date: str) -> Any:
        return source.get(partition_date)

    return fetch


def everything(rows: Any, **options: Any) -> Any:
    """An asset without partitions that loads rows."""

    @cascade_ingestion(table_name="t", partitions="none", max_retries=0, **options)
    def fetch() -> Any:
        return rows() if callable(rows) else rows

    return fetch


# --- what a function may be and return --------------------------------------------------------------------


def test_a_function_of_a_date_is_called_for_each_partition_in_order(lake: Lake) -> None:
    calls = []

    @cascade_ingestion(table_name="t", partitions=DAILY)
    def fetch(partition_date: str) -> list[dict[str, str]]:
        calls.append(partition_date)
        return [{"day": partition_date}]

    lake.succeed(fetch, DAY, THIRD)
    assert calls == [DAY, NEXT, THIRD]
    assert lake.rows("raw.t") == [{"day": DAY}, {"day": NEXT}, {"day": THIRD}]


def test_a_function_of_dates_is_called_once_with_all_of_them(lake: Lake) -> None:
    calls = []

    @cascade_ingestion(table_name="t", partitions=DAILY, partition_column="at", unique_key="id")
    def fetch(partition_dates: list[str]) -> Any:
        calls.append(partition_dates)
        return [row for day in partition_dates for row in hours(day, 1)]

    lake.succeed(fetch, DAY, NEXT)
    assert (calls, len(lake.rows("raw.t"))) == ([[DAY, NEXT]], 2)


def test_a_function_gets_the_resources_and_the_context_that_it_names(lake: Lake) -> None:
    @cascade_ingestion(table_name="t", partitions="none")
    def fetch(greeting: str, context: Any) -> list[dict[str, str]]:
        return [{"word": greeting, "asset": context.asset_key.to_user_string()}]

    lake.succeed(fetch, resources={"greeting": "hello"})
    assert lake.rows("raw.t") == [{"word": "hello", "asset": "raw/t"}]


ROWS = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
KINDS: dict[str, Any] = {
    "list": lambda: ROWS,
    "generator": lambda: iter(ROWS),
    "pages": lambda: iter([ROWS[:1], [], ROWS[1:]]),
    "table": lambda: pa.Table.from_pylist(ROWS),
    "batches": lambda: pa.Table.from_pylist(ROWS).to_batches(),
    "pandas": lambda: pd.DataFrame(ROWS),
    "polars": lambda: pl.DataFrame(ROWS),
}


@pytest.mark.parametrize("rows", KINDS.values(), ids=KINDS.keys())
def test_rows_of_every_kind_are_loaded(lake: Lake, rows: Any) -> None:
    lake.succeed(everything(rows, unique_key="id"))
    assert lake.rows("raw.t") == ROWS


@pytest.mark.parametrize("nothing", [None, [], iter(()), pd.DataFrame(), pa.table({})], ids=lambda v: type(v).__name__)
def test_nothing_is_a_load_that_succeeds_and_says_so(lake: Lake, nothing: Any) -> None:
    found = lake.succeed(everything(nothing, iceberg_schema=HOURS, unique_key="id"))
    assert (found["extracted_rows"], found["loaded_rows"], lake.rows("raw.t")) == (0, 0, [])


def test_rows_may_come_after_an_empty_first_load_without_a_schema(lake: Lake) -> None:
    lake.succeed(everything(None, unique_key="id"))
    lake.succeed(everything(ROWS, unique_key="id"))
    assert lake.rows("raw.t") == ROWS


EVERYDAY = Schema(
    NestedField(1, "order", LongType()),
    NestedField(2, "wind_speed", DoubleType()),
    NestedField(3, "amount", DecimalType(10, 2)),
    NestedField(4, "tags", ListType(5, StringType(), element_required=False)),
    NestedField(6, "seen_at", TimestamptzType()),
    NestedField(7, "count", LongType()),
)


def test_everyday_data_is_loaded_as_it_is_meant(lake: Lake) -> None:
    """camelCase, ints in float columns, nullable ints, exact decimals, nested lists, ISO times, a key called order."""
    rows: list[dict[str, Any]] = [
        {"order": 1, "windSpeed": 3, "amount": Decimal("0.10"), "tags": ["🌦️", None], "seenAt": "2013-07-01T12:00:00Z"},
        {"order": 2, "windSpeed": 3.5, "amount": "1234.56", "tags": [], "seenAt": dt.datetime(2013, 7, 1), "count": 7},
    ]
    lake.succeed(everything(rows, unique_key="order", iceberg_schema=EVERYDAY))
    noon = dt.datetime(2013, 7, 1, 12, tzinfo=dt.UTC)
    values = [tuple(row.values()) for row in lake.rows("raw.t")]
    assert values == [
        (1, 3.0, Decimal("0.10"), ["🌦️", None], noon, None),
        (2, 3.5, Decimal("1234.56"), [], noon.replace(hour=0), 7),
    ]


# --- one commit, and what it says -------------------------------------------------------------------------


def test_a_range_is_one_run_and_one_snapshot(lake: Lake) -> None:
    asset = daily_hours({day: hours(day, 1, 2) for day in (DAY, NEXT, THIRD)})
    found = lake.succeed(asset, DAY, THIRD)
    assert (lake.snapshots("raw.hours"), len(lake.rows("raw.hours")), found["partitions_loaded"]) == (1, 6, 3)


def test_every_row_says_when_it_was_loaded(lake: Lake) -> None:
    before = dt.datetime.now(dt.UTC)
    lake.succeed(everything(ROWS))
    times = [row["_cascade_ingested_at"] for row in lake.rows("raw.t", ours=True)]
    assert all(before <= time <= dt.datetime.now(dt.UTC) for time in times)


def test_the_materialization_tells_what_happened(lake: Lake) -> None:
    rows = [*hours(DAY, 1, 2, 3), *hours(DAY, 3), {"id": "x", "at": "soon", "n": 1}]
    asset = daily_hours({DAY: rows}, on_invalid="quarantine")
    found = lake.succeed(asset, DAY)
    names = ("extracted_rows", "loaded_rows", "quarantined_rows", "duplicate_rows", "dagster/row_count")
    assert [found[name] for name in names] == [5, 3, 1, 1, 3]
    head = lake.lakehouse.head("raw.hours")
    assert (found[SNAPSHOT_METADATA], found[BRANCH_METADATA]) == (str(head), "test")
    assert {"fetch_seconds", "commit_seconds", "total_seconds"} <= found.keys()
    assert [record.data["n"] for record in found["preview"].records] == ["1", "2", "3", "3"]


@pytest.mark.parametrize("limit", [100, 1])
def test_extracted_is_loaded_and_quarantined_and_duplicates_whatever_comes(lake: Lake, limit: int) -> None:
    def rows() -> Iterator[list[dict[str, Any]]]:
        for n in range(0, 3000, 500):
            yield [{"id": None if i % 97 == 0 else str(i % 700), "n": i, "at": None} for i in range(n, n + 500)]

    found = lake.succeed(everything(rows, unique_key="id", iceberg_schema=HOURS, on_invalid="quarantine"))
    parts = [found[name] for name in ("loaded_rows", "quarantined_rows", "duplicate_rows")]
    assert found["extracted_rows"] == 3000 == sum(parts)
    assert parts[1] == len([i for i in range(3000) if i % 97 == 0])
    assert lake.query("SELECT max(n) AS n FROM raw.t WHERE id = '99'") == [{"n": 2899}]


def test_running_again_changes_no_content(lake: Lake) -> None:
    asset = daily_hours({DAY: hours(DAY, 1, 2), NEXT: hours(NEXT, 1)})
    seen = []
    for _ in range(3):
        lake.succeed(asset, DAY, NEXT)
        seen.append(lake.rows("raw.hours"))
    assert seen[0] == seen[1] == seen[2]


def test_partition_spec_partitions_the_files(lake: Lake) -> None:
    spec = PartitionSpec(PartitionField(2, 1000, DayTransform(), "day"))
    lake.succeed(daily_hours({DAY: hours(DAY, 1), NEXT: hours(NEXT, 1)}, partition_spec=spec), DAY, NEXT)
    table = lake.lakehouse.table("raw.hours")
    assert [str(field.transform) for field in table.spec().fields] == ["day"]
    assert len(list(table.scan().plan_files())) == 2


def test_partition_spec_names_columns_by_the_declared_ids_whatever_they_are(lake: Lake) -> None:
    spread = Schema(*(field.model_copy(update={"field_id": 10 * field.field_id}) for field in reversed(HOURS.fields)))
    spec = PartitionSpec(PartitionField(20, 1000, DayTransform(), "day"))
    fetch = daily_hours({DAY: hours(DAY, 1), NEXT: hours(NEXT, 1)}, partition_spec=spec, iceberg_schema=spread)
    lake.succeed(fetch, DAY, NEXT)
    table = lake.lakehouse.table("raw.hours")
    (field,) = table.spec().fields
    assert table.schema().find_column_name(field.source_id) == "at"
    assert len(list(table.scan().plan_files())) == 2


# --- keys and modes ---------------------------------------------------------------------------------------


def test_of_rows_with_one_key_the_last_stays_also_over_several_pages(lake: Lake) -> None:
    def pages() -> Iterator[list[dict[str, Any]]]:
        yield [{"id": 1, "name": "old"}, {"id": 2, "name": "b"}]
        yield [{"id": 1, "name": "new"}]

    found = lake.succeed(everything(pages, unique_key="id"))
    assert lake.rows("raw.t") == [{"id": 1, "name": "new"}, {"id": 2, "name": "b"}]
    assert found["duplicate_rows"] == 1


def test_order_by_says_which_row_stays_instead(lake: Lake) -> None:
    rows = [{"id": 1, "version": 2}, {"id": 1, "version": 3}, {"id": 1, "version": 1}]
    lake.succeed(everything(rows, unique_key="id", order_by="version"))
    assert lake.rows("raw.t") == [{"id": 1, "version": 3}]


def test_a_key_of_several_columns_names_a_row(lake: Lake) -> None:
    rows = [{"a": a, "b": b, "n": a * b} for a in (1, 2) for b in (1, 2)]
    for _ in range(2):
        lake.succeed(everything(rows, unique_key=["a", "b"]))
    assert lake.rows("raw.t") == rows


@pytest.mark.parametrize("key", ["id", ["id", "n"]])
def test_a_key_without_a_value_is_refused_and_nothing_is_written(lake: Lake, key: Any) -> None:
    rows = [*hours(DAY, 1), {"id": None, "at": hours(DAY, 2)[0]["at"], "n": 2}]
    said = lake.fail(daily_hours({DAY: rows}, unique_key=key), DAY)
    assert "`id`: is part of the key and must not be null" in said
    assert lake.lakehouse.tables() == []


def test_append_adds(lake: Lake) -> None:
    for _ in range(2):
        lake.succeed(everything(ROWS, write="append"))
    assert len(lake.rows("raw.t")) == 4


def test_what_the_source_deleted_goes_with_replace_partition(lake: Lake) -> None:
    source = {DAY: hours(DAY, 1, 2, 3), NEXT: hours(NEXT, 1)}
    asset = daily_hours(source, write="replace_partition")
    lake.succeed(asset, DAY, NEXT)
    source[DAY] = hours(DAY, 2)
    found = lake.succeed(asset, DAY)
    assert [row["id"] for row in lake.rows("raw.hours")] == [f"{DAY} 2", f"{NEXT} 1"]
    assert (found["replaced_rows"], lake.snapshots("raw.hours")) == (3, 2)


def test_an_empty_day_replaces_its_rows_by_none(lake: Lake) -> None:
    source: dict[str, Any] = {DAY: hours(DAY, 1), NEXT: hours(NEXT, 1)}
    asset = daily_hours(source, write="replace_partition", unique_key=None)
    lake.succeed(asset, DAY, NEXT)
    del source[DAY]
    lake.succeed(asset, DAY)
    assert [row["id"] for row in lake.rows("raw.hours")] == [f"{NEXT} 1"]


@pytest.mark.parametrize("first", [None, hours(DAY, 1)], ids=["empty", "rows"])
def test_replace_partition_needs_no_declared_schema(lake: Lake, first: Any) -> None:
    source = {DAY: first, NEXT: hours(NEXT, 1)}
    asset = daily_hours(source, write="replace_partition", iceberg_schema=None)
    for days in ([DAY], [DAY, NEXT], [NEXT]):
        lake.succeed(asset, *days)
    assert len(lake.rows("raw.hours")) == (1 if first is None else 2)


def test_replacing_an_asset_without_partitions_replaces_everything(lake: Lake) -> None:
    for rows in (ROWS, ROWS[1:]):
        lake.succeed(everything(rows, write="replace_partition"))
    assert lake.rows("raw.t") == ROWS[1:]


# --- columns ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["strict", "drop_extra"])
@pytest.mark.parametrize("options", [{}, {"partition_column": "at"}], ids=["tagged", "by column"])
def test_inferred_columns_are_those_that_the_policy_is_about(lake: Lake, policy: Any, options: dict[str, Any]) -> None:
    source = {DAY: hours(DAY, 1), NEXT: [{**row, "gust": 9} for row in hours(NEXT, 1)]}

    @cascade_ingestion(table_name="t", partitions=daily(start=DAY), schema_policy=policy, max_retries=0, **options)
    def fetch(partition_date: str) -> Any:
        return source[partition_date]

    lake.succeed(fetch, DAY)
    if policy == "strict":
        assert "columns that the table does not have: `gust`" in lake.fail(fetch, NEXT)
    else:
        assert lake.succeed(fetch, NEXT)["dropped_columns"] == ["gust"]
    assert "gust" not in lake.rows("raw.t")[0]


@pytest.mark.parametrize("policy", ["strict", "additive", "drop_extra"])
def test_a_new_column_of_the_source_is_refused_added_or_left_out(lake: Lake, policy: Any) -> None:
    rows = [{**row, "gust": 9} for row in hours(DAY, 1)]
    asset = daily_hours({DAY: rows, NEXT: hours(NEXT, 1)}, schema_policy=policy)
    lake.succeed(asset, NEXT)
    if policy == "strict":
        assert "gust" in lake.fail(asset, DAY)
        return
    found = lake.succeed(asset, DAY)
    assert ("gust" in lake.rows("raw.hours")[0]) is (policy == "additive")
    assert found.get("dropped_columns") == (["gust"] if policy == "drop_extra" else None)


def test_a_column_that_was_added_once_stays_when_the_source_drops_it(lake: Lake) -> None:
    asset = daily_hours({DAY: [{**row, "gust": 9} for row in hours(DAY, 1)], NEXT: hours(NEXT, 1)})
    lake.succeed(asset, DAY)
    lake.succeed(asset, NEXT)
    assert [row["gust"] for row in lake.rows("raw.hours")] == [9, None]


# --- nothing half -----------------------------------------------------------------------------------------


def test_a_source_that_breaks_after_some_pages_leaves_nothing(lake: Lake) -> None:
    def pages() -> Iterator[Any]:
        yield ROWS
        raise ConnectionError("the source is gone")

    lake.succeed(everything(ROWS))
    before, files = lake.lakehouse.head("raw.t"), data_files(lake.lakehouse.catalog)
    assert "the source is gone" in lake.fail(everything(pages))
    assert (lake.lakehouse.head("raw.t"), data_files(lake.lakehouse.catalog)) == (before, files)


def test_main_is_never_written(lake: Lake) -> None:
    lake.succeed(everything(ROWS))
    assert lake.lakehouse.catalog.pointers("main") == {}


def test_two_loads_of_one_table_at_the_same_time_both_count(lake: Lake) -> None:
    """The second one runs from beginning to end while the first one is fetching."""

    @cascade_ingestion(
        table_name="hours", unique_key="id", partitions=DAILY, partition_column="at", iceberg_schema=HOURS
    )
    def fetch(partition_date: str) -> Any:
        yield from hours(partition_date, 1)
        if partition_date == DAY:
            lake.load(fetch, NEXT)

    lake.load(fetch, DAY)
    assert [row["id"] for row in lake.rows("raw.hours")] == [f"{DAY} 1", f"{NEXT} 1"]
    assert lake.loaded(fetch) == [DAY, NEXT]


# --- the contract -----------------------------------------------------------------------------------------

BAD = [*hours(DAY, 1), {**hours(DAY, 2)[0], "n": -5}]


def test_rows_that_break_the_contract_leave_a_failed_check_and_nothing_else(lake: Lake) -> None:
    asset = daily_hours({DAY: BAD}, iceberg_schema=None, validation_schema=Hours)
    result = lake.run(asset, partitions=DAY)
    assert (result.success, result.checks) == (False, {"raw/hours contract": False})
    assert "1 of 2 rows break the contract Hours; nothing was written" in result.errors[0]
    assert lake.lakehouse.tables() == []


def test_rows_that_keep_the_contract_pass_its_check(lake: Lake) -> None:
    asset = daily_hours({DAY: hours(DAY, 1)}, iceberg_schema=None, validation_schema=Hours)
    assert lake.run(asset, partitions=DAY).checks == {"raw/hours contract": True}


def test_without_validation_rows_are_not_checked(lake: Lake) -> None:
    asset = daily_hours({DAY: BAD}, iceberg_schema=None, validation_schema=Hours, validate=False)
    lake.succeed(asset, DAY)
    assert len(lake.rows("raw.hours")) == 2


def test_quarantine_sets_rows_aside_with_the_reasons(lake: Lake) -> None:
    asset = daily_hours({DAY: BAD}, iceberg_schema=None, validation_schema=Hours, on_invalid="quarantine")
    lake.succeed(asset, DAY)
    assert [row["n"] for row in lake.rows("raw.hours")] == [1]
    (row,) = lake.rows("quarantine.raw__hours")
    assert (row["partition"], '"n": -5' in row["row"], len(row["reasons"])) == (DAY, True, 1)


def test_a_row_set_aside_by_the_contract_is_json_even_with_nan(lake: Lake) -> None:
    rows = [{**row, "x": float("nan")} for row in BAD]
    lake.succeed(everything(rows, validation_schema=Hours, on_invalid="quarantine"))
    (row,) = lake.rows("quarantine.raw__t")
    assert json.loads(row["row"], parse_constant=pytest.fail)["x"] == "nan"


def test_a_later_run_takes_mended_rows_out_of_quarantine(lake: Lake) -> None:
    source = {DAY: BAD, NEXT: [{**hours(NEXT, 2)[0], "n": -1}]}
    asset = daily_hours(source, iceberg_schema=None, validation_schema=Hours, on_invalid="quarantine")
    for day in (DAY, DAY, NEXT):
        lake.succeed(asset, day)
    assert [row["partition"] for row in lake.rows("quarantine.raw__hours")] == [DAY, NEXT]
    source[DAY] = hours(DAY, 1, 2)
    lake.succeed(asset, DAY)
    assert [row["partition"] for row in lake.rows("quarantine.raw__hours")] == [NEXT]


@pytest.mark.parametrize(
    ("limits", "success"),
    [
        ({"quarantine_limit": 3}, True),
        ({"quarantine_limit": 2}, False),
        ({"quarantine_limit": 0}, False),
        ({"quarantine_fraction": 0.75}, True),
        ({"quarantine_fraction": 0.74}, False),
        ({"quarantine_limit": 3, "quarantine_fraction": 0}, False),
    ],
)
def test_more_rows_than_the_limit_are_not_set_aside_but_fail(lake: Lake, limits: dict[str, Any], success: bool) -> None:
    rows = [{**row, "n": n} for row, n in zip(hours(DAY, 1, 2, 3, 4), (-1, -1, -1, 4), strict=True)]
    asset = daily_hours({DAY: rows}, iceberg_schema=None, validation_schema=Hours, on_invalid="quarantine", **limits)
    assert lake.run(asset, partitions=DAY).success is success
    assert lake.lakehouse.tables() == (["quarantine.raw__hours", "raw.hours"] if success else [])


# --- columns that grow ------------------------------------------------------------------------------------


def _nested(*fields: str) -> pa.DataType:
    return pa.struct([(name, pa.int64()) for name in fields])


def test_a_new_field_of_a_struct_is_a_new_column_of_the_table(lake: Lake) -> None:
    """In a later load, in a later page of a load beside a new column, and inside a list."""
    kind = pa.list_(_nested("a", "b"))
    first = pa.table({"id": [1], "v": [{"a": 1}], "w": [[{"a": 1}]]})
    wider = pa.table({"id": [2], "v": [{"a": 3, "b": 4}], "w": [[{"a": 5}]], "x": ["new"]})
    widest = pa.table({"id": [3], "v": [{"c": 7}], "w": pa.array([[{"a": 5, "b": 6}]], kind)})
    lake.succeed(everything([first, wider], unique_key="id"))
    lake.succeed(everything([widest, first], unique_key="id"))
    assert lake.rows("raw.t", order="id") == [
        {"id": 1, "v": {"a": 1, "b": None, "c": None}, "w": [{"a": 1, "b": None}], "x": None},
        {"id": 2, "v": {"a": 3, "b": 4, "c": None}, "w": [{"a": 5, "b": None}], "x": "new"},
        {"id": 3, "v": {"a": None, "b": None, "c": 7}, "w": [{"a": 5, "b": 6}], "x": None},
    ]


def test_an_inferred_decimal_has_room_for_later_loads_and_says_so_when_it_has_none(lake: Lake) -> None:
    for credit in ("12.5", "123456.78", "0.000000001"):
        lake.succeed(everything([{"id": credit, "credit": Decimal(credit)}], unique_key="id"))
    assert [row["credit"] for row in lake.rows("raw.t", order="credit")] == list(
        map(Decimal, ("0.000000001", "12.5", "123456.78"))
    )
    error = lake.fail(everything([{"id": "x", "credit": Decimal("0.0000000001")}], unique_key="id"))
    assert "is not a decimal(38, 9) (it has more digits than the type holds)" in error
    assert "iceberg_schema=" in error


def test_an_undeclared_column_widens_with_the_data_and_old_rows_are_kept(lake: Lake) -> None:
    """In the files of the merge too, which hold the narrow type."""

    def rows(*ids: int, kinds: list[pa.DataType], values: list[Any]) -> pa.Table:
        columns = [pa.array([value] * len(ids), kind) for kind, value in zip(kinds, values, strict=True)]
        return pa.table({"id": list(ids), "i": columns[0], "f": columns[1], "d": columns[2]})

    narrow = rows(1, 2, kinds=[pa.int32(), pa.float32(), pa.decimal128(5, 2)], values=[7, 0.5, Decimal("1.25")])
    large = [2**40, 0.1, Decimal("123456.78")]
    wide = rows(2, 3, kinds=[pa.int64(), pa.float64(), pa.decimal128(12, 2)], values=large)
    for table in (narrow, wide):
        lake.succeed(everything(table, unique_key="id"))
    assert [list(row.values()) for row in lake.rows("raw.t", order="id")] == [
        [1, 7, 0.5, Decimal("1.25")],
        [2, *large],
        [3, *large],
    ]


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.struct([("a", pa.int64())])], ids=str)
def test_a_key_that_cannot_be_compared_is_refused_at_the_first_load(lake: Lake, kind: pa.DataType) -> None:
    rows = pa.table({"id": pa.array([[1]] if pa.types.is_list(kind) else [{"a": 1}], kind), "n": [1]})
    assert "which cannot be a key" in lake.fail(everything(rows, unique_key="id"))
