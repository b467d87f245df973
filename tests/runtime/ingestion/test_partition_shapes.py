"""Dagster's own partitions are filled exactly: static, of time, dynamic, and of two dimensions."""

import datetime as dt
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from cascade.catalog import MAIN
from cascade.errors import DefinitionError
from cascade.ingestion import cascade_ingestion
from cascade.ingestion.partitions import daily, static
from cascade.ingestion.record import kind_of
from support.ingestion import DAY, NEXT, Lake
from support.lakes import Rows

pytestmark = pytest.mark.on_servers("nessie")

DAYS = dg.DailyPartitionsDefinition(start_date=DAY, end_date="2013-07-05")
SHOPS = dg.DynamicPartitionsDefinition(name="shops")
LANDS = dg.StaticPartitionsDefinition(["nl", "be"])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, project_dir=tmp_path)


# Partitions, columns that tell them, and a range of them (first, last): what one run fills.
SHAPES: dict[str, tuple[Any, Any, tuple[str, str], list[str]]] = {
    "static": (LANDS, "part", ("nl", "be"), ["nl", "be"]),
    "dynamic": (SHOPS, "part", ("it's", "a..b"), ["it's", "a..b"]),
    "days as written": (
        dg.DailyPartitionsDefinition(start_date="30.06.2013", end_date="05.07.2013", fmt="%d.%m.%Y"),
        "day",
        ("30.06.2013", "02.07.2013"),
        ["30.06.2013", "01.07.2013", "02.07.2013"],
    ),
    "years": (
        dg.TimeWindowPartitionsDefinition(cron_schedule="0 0 1 1 *", start="2011-01-01", fmt="%Y-%m-%d"),
        "day",
        ("2011-01-01", "2012-01-01"),
        ["2011-01-01", "2012-01-01"],
    ),
    "time x static": (
        dg.MultiPartitionsDefinition({"date": DAYS, "land": LANDS}),
        {"date": "day", "land": "part"},
        (f"{DAY}|nl", f"{NEXT}|be"),
        [f"{DAY}|nl", f"{DAY}|be", f"{NEXT}|nl", f"{NEXT}|be"],
    ),
    "static x static": (
        dg.MultiPartitionsDefinition({"b": LANDS, "a": dg.StaticPartitionsDefinition(["x", "y"])}),
        {"b": "part", "a": "other"},
        ("x|nl", "y|be"),
        ["x|nl", "x|be", "y|nl", "y|be"],
    ),
    "time x dynamic": (
        dg.MultiPartitionsDefinition({"shop": SHOPS, "at": DAYS}),
        {"shop": "part", "at": "day"},
        (f"{DAY}|one", f"{NEXT}|two"),
        [f"{DAY}|one", f"{DAY}|two", f"{NEXT}|one", f"{NEXT}|two"],
    ),
}


def rows_of(definition: Any, columns: Any, key: str, number: int) -> Rows:
    """One row of a partition, with the columns that tell it."""
    several = isinstance(columns, dict)
    parts = dict(zip(sorted(columns), key.split("|"), strict=True)) if several else {"": key}
    row: dict[str, Any] = {"id": f"{key} {number}"}
    for name, part in parts.items():
        of = definition.get_partitions_def_for_dimension(name) if several else definition
        time = isinstance(of, dg.TimeWindowPartitionsDefinition)
        row[columns[name] if several else columns] = (
            of.time_window_for_partition_key(part).start.date() if time else part
        )
    return [row]


@pytest.mark.parametrize("how", ["merge", "by column", "tagged"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_fills_its_partitions_and_one_that_runs_again_replaces_its_own_rows(
    lake: Lake, shape: str, how: str
) -> None:
    definition, columns, span, keys = SHAPES[shape]
    number = 1
    options: dict[str, dict[str, Any]] = {
        "merge": {"unique_key": "id"},
        "by column": {"write": "replace_partition", "partition_column": columns},
        "tagged": {"write": "replace_partition"},
    }

    @cascade_ingestion(table_name="t", partitions=definition, max_retries=0, **options[how])
    def fetch(partition_key: str, context: dg.AssetExecutionContext) -> Any:
        assert str(context.partition_key) == partition_key
        return rows_of(definition, columns, partition_key, number)

    lake.succeed(fetch, *span)
    assert lake.loaded(fetch) == sorted(keys)
    number = 2
    lake.succeed(fetch, keys[-1])
    found = sorted(row["id"] for row in lake.rows("raw.t"))
    stays = [f"{keys[-1]} 1"] if how == "merge" else []
    assert found == sorted([*(f"{key} 1" for key in keys[:-1]), f"{keys[-1]} 2", *stays])
    result = lake.load(fetch, *keys, missing_only=True)
    assert (result.partitions, result.skipped) == ([], len(keys))


def test_rows_outside_of_the_run_are_refused_in_each_dimension(lake: Lake) -> None:
    rows: Rows = []

    @cascade_ingestion(
        table_name="t",
        partitions=dg.MultiPartitionsDefinition({"date": DAYS, "land": LANDS}),
        partition_column={"date": "day", "land": "land"},
        unique_key="id",
        max_retries=0,
    )
    def fetch(partition_dates: list[str]) -> Any:
        return rows

    day, after = dt.date(2013, 7, 1), dt.date(2013, 7, 2)
    rows[:] = [{"id": 1, "day": day, "land": "nl"}, {"id": 2, "day": day, "land": "be"}]
    said = lake.fail(fetch, f"{DAY}|nl")
    assert "Outside the partitions of this run: 1 row." in said
    assert "column day|land, for example 2013-07-01|be" in said
    rows[1] |= {"day": after, "land": "nl"}
    assert "for example 2013-07-02|nl" in lake.fail(fetch, f"{DAY}|nl")
    lake.succeed(fetch, f"{DAY}|nl", f"{NEXT}|nl")
    assert lake.loaded(fetch) == [f"{DAY}|nl", f"{NEXT}|nl"]


def test_the_record_of_two_dimensions_travels_with_the_promotion(lake: Lake) -> None:
    @cascade_ingestion(
        table_name="t", partitions=dg.MultiPartitionsDefinition({"date": DAYS, "land": LANDS}), unique_key="id"
    )
    def fetch(partition_key: str) -> Any:
        return [{"id": partition_key}]

    lake.load(fetch, f"{DAY}|be", f"{DAY}|nl")
    lake.load(fetch, f"{NEXT}|nl")
    assert lake.lakehouse.table("raw.t").properties["cascade.partitions"] == "date: daily UTC, land: static by key"
    lake.lakehouse.catalog.merge("test")
    assert lake.loaded(fetch, MAIN) == [f"{DAY}|be", f"{DAY}|nl", f"{NEXT}|nl"]


def test_a_call_knows_its_key_its_dimensions_and_its_time(lake: Lake) -> None:
    seen: list[Any] = []

    @cascade_ingestion(
        table_name="t", partitions=dg.MultiPartitionsDefinition({"date": DAYS, "land": LANDS}), unique_key="id"
    )
    def fetch(context: Any) -> Any:
        seen.append((context.partition_key.keys_by_dimension, context.partition_time_window.start, context.run.run_id))
        assert context.partition_keys == [context.partition_key]  # else each call would give the rows of all
        assert context.partition_key_range.start == context.partition_key_range.end == context.partition_key
        return [{"id": context.partition_key}]

    lake.succeed(fetch, f"{DAY}|nl", f"{NEXT}|nl")
    assert [keys for keys, _, _ in seen] == [{"date": day, "land": "nl"} for day in (DAY, NEXT)]
    assert [start.date().isoformat() for _, start, _ in seen] == [DAY, NEXT]
    assert len({run for _, _, run in seen}) == 1


def test_keys_move_from_static_to_dynamic_partitions_and_are_not_loaded_again(lake: Lake) -> None:
    def asset(partitions: Any) -> Any:
        @cascade_ingestion(table_name="t", partitions=partitions, unique_key="id")
        def fetch(partition_key: str) -> Any:
            return [{"id": partition_key}]

        return fetch

    lake.succeed(asset(static(["nl", "be"])), "nl", "be")
    assert lake.loaded(asset(SHOPS)) == ["be", "nl"]  # no storage of Dagster is asked
    assert lake.loaded(asset(static(["nl"]))) == ["nl"]


def test_what_one_of_two_dimensions_is_told_by_is_set_aside_by_partition(lake: Lake) -> None:
    @cascade_ingestion(
        table_name="t",
        partitions=dg.MultiPartitionsDefinition({"date": DAYS, "land": LANDS}),
        partition_column={"date": "day", "land": "land"},
        write="replace_partition",
        on_invalid="quarantine",
    )
    def fetch(partition_dates: list[str]) -> Any:
        lands = {key.split("|")[1] for key in partition_dates}
        return [{"id": n, "day": dt.date(2013, 7, 1), "land": land} for n, land in enumerate(sorted(lands | {"fr"}))]

    lake.succeed(fetch, f"{DAY}|nl", f"{DAY}|be")
    aside = lake.query("SELECT partition, reasons FROM quarantine.raw__t")
    assert [row["partition"] for row in aside] == [f'["{DAY}|nl", "{DAY}|be"]']
    assert "column `day, land`: lies outside the partitions of this run" in str(aside[0]["reasons"])
    assert [row["land"] for row in lake.rows("raw.t", order="land")] == ["be", "nl"]
    lake.succeed(fetch, f"{DAY}|nl", f"{DAY}|be")
    assert len(lake.query("SELECT * FROM quarantine.raw__t")) == 1


class _Own(dg.PartitionsDefinition[str]):
    def get_partition_keys(self, *_: Any, **__: Any) -> list[str]:
        return ["a"]

    def get_paginated_partition_keys(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


class _Static(dg.StaticPartitionsDefinition):
    pass


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a class of one's own": (
        _Own(),
        {},
        "no run knows which rows belong to partitions of _Own; use those of Dagster itself",
    ),
    "a subclass": (_Static(["a"]), {}, "partitions of _Static"),
    "no list": (["a", "b"], {}, r"partitions=\['a', 'b'\] is not one of hourly"),
    "one column for two": (
        dg.MultiPartitionsDefinition({"date": DAYS, "land": LANDS}),
        {"partition_column": "day"},
        r"must name a column for each dimension \(date, land\)",
    ),
    "a column too few": (
        dg.MultiPartitionsDefinition({"date": DAYS, "land": LANDS}),
        {"partition_column": {"date": "day"}},
        r"must name a column for each dimension \(date, land\)",
    ),
    "two columns for one": (LANDS, {"partition_column": {"land": "land"}}, r"a column for each dimension \(none\)"),
}


@pytest.mark.parametrize(("partitions", "options", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_no_run_can_fill_is_refused_where_it_is_defined(partitions: Any, options: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said) as caught:

        @cascade_ingestion(partitions=partitions, **options)
        def fetch(partition_key: str) -> None: ...

    assert caught.value.where == "@cascade_ingestion on `fetch`"


KINDS = {
    "daily UTC": DAYS,
    "daily Europe/Amsterdam": dg.DailyPartitionsDefinition(start_date=DAY, timezone="Europe/Amsterdam"),
    "0 6 * * * UTC": dg.DailyPartitionsDefinition(start_date=DAY, hour_offset=6),
    "daily UTC %d.%m.%Y": dg.DailyPartitionsDefinition(start_date="01.07.2013", fmt="%d.%m.%Y"),
    "static": SHOPS,
    "date: daily UTC, land: static": dg.MultiPartitionsDefinition({"land": LANDS, "date": DAYS}),
}


@pytest.mark.parametrize(("kind", "definition"), KINDS.items(), ids=KINDS.keys())
def test_a_key_means_one_thing_in_each_kind(kind: str, definition: Any) -> None:
    assert kind_of(definition) == kind


def test_our_own_words_make_definitions_of_dagster() -> None:
    @cascade_ingestion(partitions=daily(start=DAY, end="2013-07-04"))
    def fetch(partition_key: str) -> None: ...

    assert fetch.partitions_def == DAYS
    assert static(["nl", "be"]) == LANDS
