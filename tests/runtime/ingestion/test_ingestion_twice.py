"""The promises of a second load: nothing lost and nothing doubled, whatever ran before it or beside it.

Modules: `cascade.ingestion.record`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dlt
import pandas as pd
import pandera.pandas as pap
import pyarrow as pa
import pytest

from cascade.iceberg import head
from cascade.ingestion import cascade_ingestion, daily, load_plan, monthly
from cascade.ingestion.load import load
from support.ingestion import DAY, NEXT, THIRD, Lake, hours

pytestmark = pytest.mark.on_servers("nessie")

DAILY = daily(start=DAY, end="2013-07-31")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, project_dir=tmp_path)


def asset(fetch: Callable[..., Any], **options: Any) -> Any:
    return cascade_ingestion(table_name="t", max_retries=0, **options)(fetch)


def events(section: str = "here", name: str = "events", **hints: Any) -> Any:
    """A dlt resource with a cursor: three events, and those that come later."""

    def rows(at: Any = dlt.sources.incremental("id", initial_value=0)) -> Any:  # noqa: B008
        yield [{"id": n, "at": hours(DAY, n)[0]["at"]} for n in (1, 2, 3) if n > at.last_value]

    return dlt.resource(rows, name=name, section=section, **hints)


def _events() -> Any:
    return events()


# --- a cursor and partitions are two answers to one question ------------------------------------------------


@pytest.mark.parametrize("write", ["append", "merge", "replace_partition"])
def test_a_cursor_is_refused_where_partitions_say_what_is_loaded(lake: Lake, write: Any) -> None:
    """A day that runs again would be emptied, and one behind the cursor would count as loaded."""

    def fetch(partition_date: str) -> Any:
        return events()

    key: Any = {"unique_key": "id"} if write == "merge" else {}
    said = lake.fail(asset(fetch, partitions=DAILY, partition_column="at", write=write, **key), DAY)
    assert "The source keeps a cursor, but the asset has partitions" in said
    assert lake.lakehouse.tables() == []


def test_a_cursor_is_refused_where_each_load_replaces_the_table(lake: Lake) -> None:
    fetch = asset(_events, partitions="none", write="replace_partition")
    assert 'the asset uses write="replace_partition"' in lake.fail(fetch)


def test_a_source_bounded_by_the_partition_keeps_no_cursor_and_is_loaded(lake: Lake) -> None:
    def fetch(partition_date: str) -> Any:
        def rows(at: Any = dlt.sources.incremental("id", initial_value=0, end_value=3)) -> Any:  # noqa: B008
            yield [{"id": n, "at": hours(DAY, n)[0]["at"]} for n in (1, 2, 3)]

        return dlt.resource(rows, name="events")

    for _ in range(2):
        lake.succeed(asset(fetch, partitions=DAILY, partition_column="at"), DAY)
    assert [r["id"] for r in lake.rows("raw.t")] == [1, 2]


@pytest.mark.parametrize("renamed", [{"section": "there"}, {"name": "happenings"}], ids=["file", "resource"])
def test_the_cursor_survives_another_name_of_file_or_resource(lake: Lake, renamed: dict[str, str]) -> None:
    lake.succeed(asset(_events, partitions="none"))
    found = lake.succeed(asset(lambda: events(**renamed), partitions="none"))
    assert (found["extracted_rows"], len(lake.rows("raw.t"))) == (0, 3)


def test_of_two_runs_of_one_cursor_the_second_is_repeated_and_doubles_nothing(lake: Lake) -> None:
    overtaken = []

    def fetch() -> Any:
        yield events()
        if not overtaken:  # another run loads the same rows and moves the cursor while this one is fetching
            overtaken.append(True)
            lake.load(fetch_asset)

    fetch_asset = cascade_ingestion(table_name="t", partitions="none", max_retries=1, retry_delay_seconds=0)(fetch)
    lake.succeed(fetch_asset)
    assert sorted(r["id"] for r in lake.rows("raw.t")) == [1, 2, 3]


# --- what dlt says beside the rows --------------------------------------------------------------------------

HINTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "merge": ({"write_disposition": "merge"}, {}, 'set write="merge"'),
    "merge with a strategy": ({"write_disposition": {"disposition": "merge", "strategy": "scd2"}}, {}, "merge"),
    "replace": ({"write_disposition": "replace"}, {}, 'set write="replace_partition"'),
    "replace under a key": ({"write_disposition": "replace"}, {"unique_key": "id"}, 'the asset write="merge"'),
    "primary key": ({"primary_key": "id"}, {}, "the asset no unique_key: set unique_key=['id']"),
    "another key": ({"primary_key": ["id", "at"]}, {"unique_key": "id"}, "set unique_key=['id', 'at']"),
    "merge key": ({"merge_key": "at"}, {}, "merge_key=['at']"),
    "primary key of a column": ({"columns": {"id": {"primary_key": True}}}, {}, "set unique_key=['id']"),
    "hard delete": ({"columns": {"gone": {"hard_delete": True}}}, {"unique_key": "id"}, "hard_delete on `gone`"),
    "which row wins": ({"columns": {"at": {"dedup_sort": "desc"}}}, {"unique_key": "id"}, 'set order_by="at"'),
    "new columns": ({"schema_contract": "freeze"}, {}, 'set schema_policy="strict"'),
    "rows with new columns": ({"schema_contract": {"columns": "discard_row"}}, {}, "leave such rows out"),
}


@pytest.mark.parametrize(("hints", "options", "says"), HINTS.values(), ids=HINTS.keys())
def test_a_hint_of_dlt_that_contradicts_the_asset_is_refused(
    lake: Lake, hints: dict[str, Any], options: dict[str, Any], says: str
) -> None:
    said = lake.fail(asset(lambda: events(**hints), partitions="none", **options))
    assert ("The dlt resource `events` and the asset contradict each other" in said, says in said) == (True, True)
    assert lake.lakehouse.tables() == []


@pytest.mark.parametrize(
    ("hints", "options"),
    [
        ({"primary_key": "id", "write_disposition": "merge"}, {"unique_key": "id"}),
        ({"primary_key": "id"}, {"write": "append"}),
        ({"write_disposition": "append"}, {"unique_key": "id"}),
        ({"columns": {"at": {"dedup_sort": "desc"}}}, {"unique_key": "id", "order_by": "at"}),
        ({"schema_contract": {"columns": "freeze", "data_type": "freeze"}}, {"schema_policy": "strict"}),
    ],
    ids=["the same", "append by choice", "dlt's default", "order_by", "schema_policy"],
)
def test_a_hint_of_dlt_that_says_the_same_is_fine(lake: Lake, hints: dict[str, Any], options: dict[str, Any]) -> None:
    for _ in range(2):
        lake.succeed(asset(lambda: events(**hints), partitions="none", **options))
    assert len(lake.rows("raw.t")) == 3


# --- the first load, twice at once ---------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"partition_column": "at", "write": "replace_partition"}, {}], ids=str)
def test_one_partition_loaded_twice_at_once_into_a_new_table_is_there_once(lake: Lake, options: dict[str, Any]) -> None:
    beside = []

    def fetch(partition_date: str) -> Any:
        yield from hours(partition_date, 1, 2)
        if not beside:
            beside.append(True)
            load(plan_of(), lake.lakehouse, [DAY], missing_only=False, run_id="other")

    found = asset(fetch, partitions=DAILY, **options)

    def plan_of() -> Any:
        return load_plan(found)

    lake.load(found, DAY)
    assert [r["n"] for r in lake.rows("raw.t")] == [1, 2]


@pytest.mark.parametrize("run_started", [0.0, 1e11])
def test_a_run_that_has_appended_does_not_append_again_however_many_runs_came_after_it(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, run_started: float
) -> None:
    """A run that was created since has nothing to look for in older metadata."""
    monkeypatch.setattr(head, "KEPT_STATES", 2)
    plan = load_plan(asset(lambda: [{"id": 1}], partitions="none", write="append"))
    for run in ("first", "second", "third", "fourth"):
        load(plan, lake.lakehouse, [], missing_only=False, run_id=run)
    again = load(plan, lake.lakehouse, [], missing_only=False, run_id="first", run_started=run_started)
    assert again.skipped == (run_started == 0.0)


# --- options that changed -------------------------------------------------------------------------------------


def _hours(partition_date: str = DAY) -> Any:
    rows = [*hours(partition_date, 1), {"id": "later", "at": hours(DAY, 2)[0]["at"], "n": 2, "gap": 1}]
    return rows[: 2 if partition_date == DAY else 1]


CHANGED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "merge, then append": ({"unique_key": "id"}, {}, "now has neither"),
    "partition_column removed": ({"partition_column": "at"}, {}, "now has neither"),
    "key with one more column": ({"unique_key": "id"}, {"unique_key": ["id", "new"]}, "lack: new"),
    "days, then months": (
        {},
        {"partitions": monthly(start=DAY, end="2013-12-31")},
        "daily UTC by _cascade_partition, and are now monthly",
    ),
    "partitions, then none": ({}, {"partitions": "none"}, "loaded by partitions, which it has no longer"),
    "key with a column that has gaps": ({"unique_key": "id"}, {"unique_key": ["id", "gap"]}, "without a value in gap"),
}


@pytest.mark.parametrize(("before", "after", "says"), CHANGED.values(), ids=CHANGED.keys())
def test_options_under_which_earlier_rows_would_come_twice_are_refused(
    lake: Lake, before: dict[str, Any], after: dict[str, Any], says: str
) -> None:
    common = {"partitions": DAILY}

    def everything() -> Any:
        return _hours()

    lake.succeed(asset(_hours, **{**common, **before}), DAY)
    sliced = after.get("partitions") != "none"
    said = lake.fail(asset(_hours if sliced else everything, **{**common, **after}), *([DAY] if sliced else []))
    assert ("rows of earlier runs would be loaded twice" in said, says in said) == (True, True)
    assert len(lake.rows("raw.t")) == 2


@pytest.mark.parametrize("key", ["f", ["id", "f"]])
def test_a_new_key_of_numbers_that_all_have_a_value_is_fine(lake: Lake, key: Any) -> None:
    rows = pa.table({"id": [1, 2], "f": [1.0, float("nan")]})
    for unique_key in ("id", key):
        lake.succeed(asset(lambda: rows, partitions="none", unique_key=unique_key))
    assert len(lake.rows("raw.t")) == 2


def test_rows_that_a_merge_brought_in_between_are_no_rows_of_an_append(lake: Lake) -> None:
    lake.succeed(asset(_hours, partitions=DAILY), DAY)
    lake.succeed(asset(_hours, partitions=DAILY, unique_key="id"), NEXT)
    said = lake.fail(asset(_hours, partitions=DAILY), NEXT)
    assert "daily UTC by key, and are now daily UTC by _cascade_partition" in said


def test_partitions_told_by_another_column_are_loaded_again(lake: Lake) -> None:
    source = [{"made": hours(DAY, 1)[0]["at"], "sent": hours(NEXT, 1)[0]["at"]}]
    source.append({"made": hours(THIRD, 1)[0]["at"], "sent": hours(DAY, 1)[0]["at"]})

    def by(column: str) -> Any:
        return asset(
            lambda partition_date: [r for r in source if r[column].date().isoformat() == partition_date],
            partitions=DAILY,
            partition_column=column,
        )

    lake.succeed(by("made"), DAY)
    assert lake.load(by("sent"), DAY, missing_only=True).loaded == 1


def test_an_earlier_cursor_is_no_obstacle_to_partitions(lake: Lake) -> None:
    lake.succeed(asset(_events, partitions="none", unique_key="id"))
    sliced = asset(
        lambda partition_date: [{"id": 9, "at": hours(NEXT, 5)[0]["at"]}],
        partitions=DAILY,
        unique_key="id",
        partition_column="at",
    )
    lake.succeed(sliced, NEXT)
    assert sorted(r["id"] for r in lake.rows("raw.t")) == [1, 2, 3, 9]


def test_partitions_of_another_kind_are_loaded_again_and_not_taken_for_the_old_ones(lake: Lake) -> None:
    """`2013-08-01` is a day and a month: one loaded day must not stand for its whole month."""
    common: dict[str, Any] = {"unique_key": "id", "partition_column": "at"}
    lake.succeed(asset(_hours, partitions=daily(start="2013-08-01", end="2013-08-31"), **common), "2013-08-01")
    months = asset(lambda partition_date: hours("2013-08-17", 1), partitions=monthly(start="2013-08-01"), **common)
    assert lake.loaded(months) == []  # what `cascade run` asks for its selection
    assert lake.load(months, "2013-08-01", missing_only=True).loaded == 1
    assert len(lake.rows("raw.t")) == 2


# --- a greater value wins, also over the table's row ---------------------------------------------------------


def test_order_by_also_looks_at_the_row_that_the_table_has(lake: Lake) -> None:
    versions = {DAY: 10, NEXT: 20, THIRD: 20}

    def fetch(partition_date: str) -> Any:
        return [{"id": 1, "version": versions[partition_date], "day": partition_date}]

    found = asset(fetch, partitions=DAILY, unique_key="id", order_by="version")
    lake.succeed(found, NEXT)
    told = lake.succeed(found, DAY)  # a backfill of an older day
    assert lake.rows("raw.t") == [{"id": 1, "version": 20, "day": NEXT}]
    assert (told["extracted_rows"], told["loaded_rows"], told["duplicate_rows"]) == (1, 0, 1)
    lake.succeed(found, THIRD)  # of equals, the one that comes last wins
    assert lake.rows("raw.t") == [{"id": 1, "version": 20, "day": THIRD}]


def test_of_rows_with_one_key_nan_never_wins(lake: Lake) -> None:
    rows = [{"id": 1, "version": v} for v in (1.0, float("nan"), 2.0, float("nan"))]
    lake.succeed(asset(lambda: rows, partitions="none", unique_key="id", order_by="version"))
    assert lake.rows("raw.t") == [{"id": 1, "version": 2.0}]


# --- checks of all rows together -----------------------------------------------------------------------------


class Together(pap.DataFrameModel):
    """Rows that are judged one by one, and all together."""

    n: pd.Int64Dtype = pap.Field(ge=0)

    @pap.dataframe_check
    def each_number_once(cls, frame: Any) -> bool:  # noqa: N805
        return bool(frame["n"].is_unique)

    @pap.dataframe_check
    def enough(cls, frame: Any) -> bool:  # noqa: N805
        return len(frame) >= 120_000


TOGETHER: dict[str, tuple[list[Any], str]] = {
    "rows far apart": ([*range(120_000), 0], "each_number_once"),
    "several batches are enough": ([*range(120_000)], ""),
    "rows set aside are not counted": ([*range(119_999), -1], "enough"),
    "nothing came": ([], "enough"),
    "all rows are set aside": (["x", "y"], "enough"),
    "one row is no row of its own": ([1], "enough"),
}


@pytest.mark.parametrize(("numbers", "says"), TOGETHER.values(), ids=TOGETHER.keys())
def test_checks_of_all_rows_together_see_all_rows_that_are_loaded(lake: Lake, numbers: list[int], says: str) -> None:
    rows = pd.DataFrame({"n": pd.Series(numbers, dtype=object if "x" in numbers[:1] else "int64")})
    found = asset(lambda: rows, partitions="none", validation_schema=Together, on_invalid="quarantine")
    if not says:
        lake.succeed(found)
        return
    assert f"Check {says} failed" in lake.fail(found)
    assert lake.lakehouse.tables() == []


# --- what is said of each partition --------------------------------------------------------------------------


def test_a_partition_s_metadata_are_its_own_and_the_run_s_are_said_once(lake: Lake) -> None:
    source = {DAY: hours(DAY, 1, 2, 3), NEXT: [], THIRD: [*hours(THIRD, 1), *hours(THIRD, 1)]}
    found = asset(
        lambda partition_dates: [r for day in partition_dates for r in source[day]],
        partitions=DAILY,
        partition_column="at",
        unique_key="id",
    )
    lake.succeed(found, DAY, THIRD)
    records = lake._instance.fetch_materializations(found.key, limit=9).records
    told = {r.asset_materialization.partition: r.asset_materialization.metadata for r in records}  # type: ignore[union-attr]
    rows = {day: metadata["dagster/partition_row_count"].value for day, metadata in told.items()}
    assert rows == {DAY: 3, NEXT: 0, THIRD: 1}
    assert [day for day, metadata in told.items() if "extracted_rows" in metadata] == [THIRD]
    assert told[THIRD]["extracted_rows"].value == 5


def test_a_required_column_that_no_row_brings_is_told(lake: Lake) -> None:
    class Model(pap.DataFrameModel):
        """The source renamed `size`."""

        n: pd.Int64Dtype
        size: pd.Int64Dtype = pap.Field(nullable=True)

    found = asset(lambda: [{"n": 1, "sizes": 2}], partitions="none", validation_schema=Model)
    result = lake.run(found)
    assert (result.success, result.checks) == (True, {"raw/t contract": False})
