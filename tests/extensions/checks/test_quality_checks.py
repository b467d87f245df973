"""The promises of the checks built into `cascade.quality`.

Modules: `cascade_checks.failing_rows`, `cascade_checks.row_checks`, `cascade_checks.table_checks`.
"""

import datetime as dt
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster_shared.utils.warnings import disable_dagster_warnings

from cascade.lakehouse import Lakehouse
from cascade.quality import (
    Check,
    accepted_values,
    cascade_quality,
    custom_sql,
    freshness,
    in_range,
    matches,
    not_null,
    reconciles,
    row_count,
    unique,
)
from support.lakes import settings_in
from support.quality import WEATHER, run_check, run_checks, values_of, write_rows

# What a check asks, Trino answers as DuckDB does.
pytestmark = pytest.mark.on_servers("nessie")


@pytest.fixture
def lakehouse(tmp_path: Path) -> Lakehouse:
    return Lakehouse(settings_in(tmp_path), "dev")


@pytest.fixture
def weather(lakehouse: Lakehouse) -> Lakehouse:
    write_rows(lakehouse, "raw.weather", WEATHER)
    return lakehouse


ROW_CHECKS: dict[str, tuple[Check, int]] = {
    "not_null counts a row once": (not_null("origin", "temp"), 2),
    "not_null passes without nulls": (not_null("time_hour"), 0),
    "not_null on a keyword": (not_null("order"), 1),
    "not_null on a name with quotes": (not_null('what\'s "this"'), 0),
    "unique counts all that share": (unique("time_hour"), 2),
    "unique composite": (unique("origin", "time_hour"), 0),
    "unique leaves nulls alone": (unique("order"), 2),
    "in_range: NaN is outside, null is not": (in_range("temp", -80, 140), 2),
    "in_range: NaN is outside without maximum": (in_range("temp", -80), 1),
    "in_range: NaN is outside without minimum": (in_range("temp", maximum=1000.5), 1),
    "in_range includes its ends": (in_range("temp", 70.5, 200), 1),
    "in_range of decimals": (in_range("amount", Decimal("0.1"), Decimal("0.2")), 1),
    "in_range of a float against decimals": (in_range("amount", 0.1, 0.2), 1),
    "in_range of dates": (in_range("day", dt.date(2013, 7, 1), dt.date(2013, 7, 2)), 1),
    "in_range from a date on": (in_range("day", minimum=dt.date(2013, 7, 2)), 3),
    "in_range of moments": (in_range("time_hour", maximum=dt.datetime(2013, 7, 1, 1, tzinfo=dt.UTC)), 1),
    "in_range of moments elsewhere": (
        in_range("time_hour", dt.datetime(2013, 7, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2)))),
        0,
    ),
    "accepted_values": (accepted_values("origin", ["EWR"]), 1),
    "accepted_values of a set": (accepted_values("origin", {"EWR", "JFK"}), 0),
    "accepted_values escapes": (accepted_values('what\'s "this"', ["it's", "a"]), 2),
    "accepted_values of numbers": (accepted_values("order", [2, 3]), 1),
    "matches the whole value": (matches("origin", "E"), 2 + 1),
    "matches": (matches("origin", "[A-Z]{3}"), 0),
    "matches alternatives as a whole": (matches("origin", "EWR|JF"), 1),
    "matches no trailing newline": (matches('what\'s "this"', r"a|b|é|it's"), 1),
    "matches numbers as text": (matches("order", r"\d"), 0),
    "custom_sql": (custom_sql("mine", 'select * from raw.weather where "order" = 2;'), 2),
    "custom_sql with a comment": (custom_sql("mine", "select 1 from raw.weather -- all"), 4),
    "custom_sql with a with": (
        custom_sql("mine", "with w as (select * from raw.weather) select * from w"),
        4,
    ),
    "custom_sql with one column twice": (custom_sql("mine", "select temp, temp from raw.weather"), 4),
}


@pytest.fixture(scope="module")
def row_results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dg.AssetCheckEvaluation]:
    lakehouse = Lakehouse(settings_in(tmp_path_factory.mktemp("project")), "dev")
    write_rows(lakehouse, "raw.weather", WEATHER)
    checks = [replace(check, name=f"check_{i}") for i, (check, _) in enumerate(ROW_CHECKS.values())]

    @cascade_quality(asset="raw/weather", checks=checks)
    def group() -> None: ...

    found = run_checks(lakehouse, group)
    return {title: found[check.name] for title, check in zip(ROW_CHECKS, checks, strict=True)}


@pytest.mark.parametrize("title", ROW_CHECKS)
def test_a_check_counts_the_rows_that_fail(row_results: dict[str, dg.AssetCheckEvaluation], title: str) -> None:
    evaluation, (_, failing) = row_results[title], ROW_CHECKS[title]
    figures = values_of(evaluation)
    assert (figures.get("failing_rows"), figures.get("checked_rows")) == (failing, 4), evaluation.description
    assert evaluation.passed == (failing == 0)
    assert figures["fraction"] == failing / 4
    assert "```sql" in figures["sql"]


def test_a_failing_check_says_in_one_sentence_what_is_wrong(lakehouse: Lakehouse) -> None:
    write_rows(lakehouse, "raw.weather", pa.table({"temp": [999.0] * 3 + [70.0] * 1197}))
    evaluation = run_check(lakehouse, in_range("temp", -80, 140))
    assert evaluation.description == (
        "3 of 1,200 rows of raw.weather have `temp` outside -80..140 (0.25 %, allowed 0 %)"
    )


def test_a_few_failing_rows_are_shown_and_no_more(lakehouse: Lakehouse) -> None:
    write_rows(lakehouse, "raw.weather", pa.table({"id": list(range(50)), "text": ["x" * 1_000_000] * 49 + [None]}))
    sample = run_check(lakehouse, in_range("id", maximum=9)).metadata["sample"]
    assert isinstance(sample, dg.TableMetadataValue)
    assert len(sample.records) == 5
    assert all(int(str(record.data["id"])) > 9 and len(str(record.data["text"])) < 300 for record in sample.records)
    keys = run_check(lakehouse, unique("text")).metadata["sample"]
    assert isinstance(keys, dg.TableMetadataValue)
    assert [record.data["rows_with_this_key"] for record in keys.records] == ["49"]


@pytest.mark.parametrize(("tolerance", "passed"), [(0.0, False), (0.249, False), (0.25, True), (1, True)])
def test_a_tolerance_is_a_fraction_of_the_rows(weather: Lakehouse, tolerance: float, passed: bool) -> None:
    evaluation = run_check(weather, not_null("origin", tolerance=tolerance))
    assert evaluation.passed is passed
    assert values_of(evaluation)["tolerance"] == tolerance


@pytest.mark.parametrize(
    "check",
    [
        not_null("origin"),
        unique("origin"),
        in_range("temp", 0),
        accepted_values("origin", ["x"]),
        matches("origin", "x"),
    ],
    ids=lambda check: check.name,
)
def test_an_empty_table_passes_checks_on_rows(lakehouse: Lakehouse, check: Check) -> None:
    write_rows(lakehouse, "raw.weather", WEATHER.slice(0, 0))
    assert run_check(lakehouse, check).passed


@pytest.mark.parametrize(
    ("check", "passed"),
    [
        (row_count(minimum=4, maximum=4), True),
        (row_count(minimum=5), False),
        (row_count(maximum=3), False),
        (row_count(minimum=0), True),
        (row_count(minimum=1, partition_column="day"), True),  # a run without partitions: the whole table
    ],
)
def test_row_count_keeps_its_bounds(weather: Lakehouse, check: Check, passed: bool) -> None:
    assert run_check(weather, check).passed is passed


def test_an_empty_table_fails_a_minimum_number_of_rows(lakehouse: Lakehouse) -> None:
    write_rows(lakehouse, "raw.weather", WEATHER.slice(0, 0))
    evaluation = run_check(lakehouse, row_count(minimum=1))
    assert not evaluation.passed
    assert evaluation.description == "raw.weather has 0 rows, expected at least 1"


def _range(first: str, last: str) -> dict[str, str]:
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


DAILY = dg.DailyPartitionsDefinition("2013-07-01")
ELSEWHERE = dg.DailyPartitionsDefinition("2013-06-30", timezone="America/Los_Angeles")
HOURLY = dg.HourlyPartitionsDefinition("2013-07-01-00:00")
with disable_dagster_warnings():
    SINGLE_RUN = dg.BackfillPolicy.single_run()
PARTITIONS = {
    "full day": (DAILY, "day", {"dagster/partition": "2013-07-01"}, {}),
    "full day by timestamp": (DAILY, "time_hour", {"dagster/partition": "2013-07-01"}, {}),
    "timestamps of days elsewhere": (
        ELSEWHERE,
        "time_hour",
        _range("2013-06-30", "2013-07-01"),
        {"2013-07-01": 0},
    ),
    "dates of days elsewhere": (ELSEWHERE, "day", _range("2013-06-30", "2013-07-01"), {"2013-06-30": 0}),
    "empty day": (DAILY, "day", {"dagster/partition": "2013-07-02"}, {"2013-07-02": 0}),
    "range with a gap": (DAILY, "time_hour", _range("2013-07-01", "2013-07-03"), {"2013-07-02": 0}),
    "full hour": (HOURLY, "time_hour", {"dagster/partition": "2013-07-01-01:00"}, {}),
    "empty hour": (
        HOURLY,
        "time_hour",
        _range("2013-07-01-00:00", "2013-07-01-02:00"),
        {"2013-07-01-02:00": 0},
    ),
    "month": (
        dg.MonthlyPartitionsDefinition("2013-01-01"),
        "day",
        _range("2013-06-01", "2013-07-01"),
        {"2013-06-01": 0},
    ),
    "static": (dg.StaticPartitionsDefinition(["EWR", "LGA"]), "origin", _range("EWR", "LGA"), {"LGA": 0}),
    "no own partitions": (None, "day", _range("2013-07-01", "2013-07-03"), {"2013-07-02": 0}),
}


@pytest.mark.parametrize(("partitions", "column", "tags", "wrong"), PARTITIONS.values(), ids=PARTITIONS.keys())
def test_every_partition_of_the_run_keeps_the_bounds(
    weather: Lakehouse, partitions: Any, column: str, tags: dict[str, str], wrong: dict[str, int]
) -> None:
    """A minimum that an empty partition passes would promote a day without data."""

    with disable_dagster_warnings():

        @dg.asset(key=["raw", "weather"], partitions_def=partitions, backfill_policy=SINGLE_RUN)
        def asset() -> None: ...

    @cascade_quality(asset="raw/weather", checks=[row_count(minimum=1, partition_column=column)])
    def rows() -> None: ...

    evaluation = run_checks(weather, rows, assets=[asset], tags=tags)["row_count"]
    assert evaluation.passed == (not wrong), evaluation.description
    assert values_of(evaluation)["failing_partitions"] == len(wrong)
    for key, count in wrong.items():
        assert f"{key} has {count}" in (evaluation.description or "")


def test_checks_alone_take_the_partitions_of_their_run_for_days(weather: Lakehouse) -> None:
    check = row_count(minimum=1, partition_column="time_hour")
    evaluation = run_check(weather, check, tags=_range("2013-07-01", "2013-07-03"))
    assert "1 of 3 partitions of raw.weather do not have at least 1 row: 2013-07-02 has 0" in str(
        evaluation.description
    )


@pytest.mark.parametrize(
    ("hours_old", "passed", "severity"), [(0.5, True, "WARN"), (2, False, "WARN"), (30, False, "ERROR")]
)
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_freshness_warns_and_then_fails(
    lakehouse: Lakehouse, hours_old: float, passed: bool, severity: str, zone: str | None
) -> None:
    now = dt.datetime.now(dt.UTC)
    newest = pa.array([now - dt.timedelta(hours=hours_old), now - dt.timedelta(days=9)], pa.timestamp("us", zone))
    write_rows(lakehouse, "raw.weather", pa.table({"at": newest}))
    evaluation = run_check(lakehouse, freshness("at", 1, 24))
    assert (evaluation.passed, evaluation.severity.value) == (passed, severity), evaluation.description
    assert not evaluation.blocking


def test_a_table_without_rows_is_not_fresh(lakehouse: Lakehouse) -> None:
    write_rows(lakehouse, "raw.weather", WEATHER.slice(0, 0))
    evaluation = run_check(lakehouse, freshness("time_hour", fail_hours=24))
    assert not evaluation.passed
    assert evaluation.description == "raw.weather has no `time_hour` at all"


@pytest.mark.parametrize(
    ("expression", "tolerance", "passed"),
    [
        ("count(*)", 0.0, False),
        ("count(*)", 0.5, True),
        ("count(*)", 0.24, False),
        ("max(origin)", 0.0, True),
        ("max(day)", 0.0, False),
        ("sum(amount)", 0.0, False),
        ("sum(amount) - sum(amount)", 0.0, True),
        ("max(CASE WHEN false THEN temp END)", 0.0, True),
    ],
)
def test_reconciles_compares_an_aggregate_with_another_table(
    weather: Lakehouse, expression: str, tolerance: float, passed: bool
) -> None:
    write_rows(weather, "bronze.weather", WEATHER.slice(0, 3))
    check = reconciles("raw/weather", expression, tolerance=tolerance)
    evaluation = run_check(weather, check, asset="bronze/weather")
    assert evaluation.passed is passed, evaluation.description
    assert evaluation.check_name == "reconciles_raw_weather"


def test_a_reconciliation_waits_for_both_tables() -> None:
    @cascade_quality(asset="bronze/weather", checks=[reconciles("raw.weather")])
    def group() -> None: ...

    assert {dep.asset_key.to_user_string() for spec in group.check_specs for dep in spec.additional_deps} == {
        "raw/weather"
    }


def test_reconciles_says_both_values(weather: Lakehouse) -> None:
    write_rows(weather, "bronze.weather", WEATHER.slice(0, 3))
    evaluation = run_check(weather, reconciles("raw.weather"), asset="bronze/weather")
    assert evaluation.description == ("count(*) is 3 on bronze.weather and 4 on raw.weather (25 % apart, allowed 0 %)")
