"""What a transformation in Python promises: rows in the form that its function asks for, a table as all others are.

Modules: `cascade_transform.decorator`.
"""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pandera.pandas as pap
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cascade import cascade_ingestion, cascade_transform
from cascade.errors import DefinitionError
from cascade.ingestion.partitions import daily
from support.ingestion import DAY, NEXT, Lake, hours

pytestmark = pytest.mark.on_servers("nessie")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, project_dir=tmp_path)


@cascade_ingestion(table_name="events", unique_key="id", partition_column="at", partitions=daily(start=DAY))
def events(partition_dates: list[str]) -> Any:
    return [row for day in partition_dates for row in hours(day, 1, 2)]


@cascade_ingestion(table_name="names", unique_key="n", partitions="none")
def names() -> Any:
    return [{"n": 1, "name": "one"}, {"n": 2, "name": "two"}]


def _arrow(events: pa.Table) -> Any:
    return events.append_column("twice", pc.multiply(events["n"], 2))


def _bare(events) -> Any:  # type: ignore[no-untyped-def]
    return _arrow(events)


def _pandas(events: pd.DataFrame) -> Any:
    return events.assign(twice=events["n"] * 2)


def _polars(events: pl.DataFrame) -> Any:
    return events.with_columns(twice=pl.col("n") * 2)


def _lazy(events: "pl.LazyFrame") -> Any:
    return events.with_columns(twice=pl.col("n") * 2)


def _duckdb(events: duckdb.DuckDBPyRelation) -> Any:
    return events.project("*, n * 2 AS twice")


def _dicts(raw__events: pa.Table) -> Any:
    for row in raw__events.to_pylist():
        yield row | {"twice": row["n"] * 2}


_FORMS = (_arrow, _bare, _pandas, _polars, _lazy, _duckdb, _dicts)


def test_a_table_comes_in_every_form_and_goes_in_every_form(lake: Lake) -> None:
    lake.succeed(events, DAY)
    for function in _FORMS:
        table = f"silver.of{function.__name__}"
        lake.succeed(cascade_transform(table=table, reads=["raw.events"], key="id")(function))
        expected = [row | {"twice": row["n"] * 2} for row in hours(DAY, 1, 2)]
        assert lake.rows(table, order="n") == expected, function.__name__


def test_partitions_read_their_own_rows_and_other_tables_whole(lake: Lake) -> None:
    came: list[tuple[list[str], int, int]] = []

    @cascade_transform(
        table="silver.named", reads=["raw.events", "raw.names"], partitions=daily(start=DAY), partition_column="at"
    )
    def named(partition_dates: list[str], events: pl.DataFrame, names: pl.DataFrame) -> Any:
        came.append((partition_dates, events.height, names.height))
        return events.join(names, on="n")

    lake.succeed(names)
    lake.succeed(events, DAY, NEXT)
    lake.succeed(named, NEXT)
    lake.succeed(named, DAY, NEXT)
    lake.succeed(named, DAY)  # once more: its rows are replaced
    assert came == [([NEXT], 2, 2), ([DAY, NEXT], 4, 2), ([DAY], 2, 2)]
    assert [(row["id"], row["name"]) for row in lake.rows("silver.named", order="id")] == [
        (f"{day} {n}", word) for day in (DAY, NEXT) for n, word in ((1, "one"), (2, "two"))
    ]
    assert lake.loaded(named) == [DAY, NEXT]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [2]),
        ({"write": "replace"}, [2]),
        ({"write": "append"}, [1, 2]),
        ({"key": "n"}, [1, 2]),
        ({"key": "n", "write": "replace"}, [2]),
    ],
    ids=str,
)
def test_what_a_table_holds_after_two_runs(lake: Lake, options: dict[str, Any], expected: list[int]) -> None:
    given = iter((1, 2))

    @cascade_transform(table="silver.one", reads=["raw.names"], **options)
    def one(names: pa.Table) -> Any:
        return names.filter(pc.field("n") == next(given))

    lake.succeed(names)
    lake.succeed(one)
    lake.succeed(one)
    assert [row["n"] for row in lake.rows("silver.one", order="n")] == expected


class Named(pap.DataFrameModel):
    """Rows with a short name."""

    n: int
    name: str = pap.Field(str_length={"max_value": 3})


def test_the_contract_and_the_quarantine_are_those_of_an_ingestion(lake: Lake) -> None:
    lake.succeed(names)

    def longer(names: pd.DataFrame) -> Any:
        return names.assign(name=names["name"] * names["n"])

    strict = cascade_transform(table="silver.strict", reads=["raw.names"], validation_schema=Named)(longer)
    assert "1 of 2 rows break the contract Named" in lake.fail(strict)
    assert "silver.strict" not in lake.lakehouse.tables()
    aside = cascade_transform(
        table="silver.aside", reads=["raw.names"], validation_schema=Named, on_invalid="quarantine"
    )(longer)
    metadata = lake.succeed(aside)
    assert lake.rows("silver.aside") == [{"n": 1, "name": "one"}]
    assert len(lake.rows("quarantine.silver__aside")) == 1
    assert metadata["quarantined_rows"] == 1


def test_wrong_columns_are_named(lake: Lake) -> None:
    lake.succeed(names)

    @cascade_transform(table="silver.wrong", reads=["raw.names"], validation_schema=Named)
    def wrong(names: pl.DataFrame) -> Any:
        return names.rename({"name": "nom"})

    said = lake.fail(wrong)
    assert "column `name`" in said
    assert "silver.wrong" in said


def test_it_reads_the_branch_of_its_run_and_stands_behind_what_it_reads(lake: Lake) -> None:
    @cascade_transform(table="silver.copy", reads=["raw.events", "raw.names"], group="made")
    def copy(context: dg.AssetExecutionContext, events: pa.Table, raw__names: pa.Table) -> Any:
        """Copies."""
        context.log.info("copying")
        return events

    assert {key.to_user_string() for key in copy.dependency_keys} == {"raw/events", "raw/names"}
    (spec,) = copy.specs
    assert (spec.group_name, spec.description, spec.key) == ("made", "Copies.", dg.AssetKey(["silver", "copy"]))
    lake.succeed(names)
    lake.succeed(events, DAY)
    lake.succeed(copy)
    assert len(lake.rows("silver.copy")) == 2
    assert lake.lakehouse.catalog.pointers("main") == {}


def _two(a: pa.Table, b: pa.Table) -> Any: ...
def _wrong(events: dict[str, int]) -> Any: ...
def _unknown(events: "Frame") -> Any: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        (_two, {"reads": ["raw.a"], "tabel": 1}, "no option tabel"),
        (_two, {"reads": ["raw.c"]}, "no parameter takes raw.c: name one `c`"),
        (_two, {"reads": ["raw.a", "old.a"]}, "no parameter takes old.a: name one `old__a`"),
        (_two, {"reads": "raw.a"}, "must be a list of tables"),
        (_two, {"reads": []}, "must be a list of tables"),
        (_two, {"reads": ["raw.a", "silver.b"], "table": "silver.b"}, "silver.b reads itself"),
        (_two, {"reads": ["raw.a"], "write": "replaces"}, "write='replaces' is not one of replace, merge, append"),
        (_two, {"reads": ["raw.a"], "write": "merge"}, 'write="merge" needs key'),
        (_two, {"reads": ["raw.a"], "partitions": "daily"}, "partitions need partition_column"),
        (_two, {"reads": ["a"]}, "namespace"),
        (_wrong, {"reads": ["raw.events"]}, "a table comes as pyarrow.Table, pandas.DataFrame"),
        (_unknown, {"reads": ["raw.events"]}, "cannot be resolved: name 'Frame' is not defined"),
    ],
    ids=lambda one: getattr(one, "__name__", str(one))[:40],
)
def test_what_is_wrong_is_said_at_definition(function: Callable[..., Any], options: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        cascade_transform(**({"table": "silver.t"} | options))(function)
    assert said in str(caught.value)


def test_times_of_partitions_without_their_column(lake: Lake) -> None:
    """A table without the partition column is read whole, also by a partitioned transformation."""

    @cascade_transform(
        table="silver.days", reads=["raw.names"], partitions=daily(start=DAY), partition_column="day", key="n"
    )
    def days(partition_date: str, names: pl.DataFrame) -> Any:
        return names.with_columns(day=pl.lit(dt.date.fromisoformat(partition_date)))

    lake.succeed(names)
    lake.succeed(days, DAY, NEXT)
    assert {row["day"] for row in lake.rows("silver.days")} == {dt.date.fromisoformat(NEXT)}
