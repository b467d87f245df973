"""The promises of twenty situations that broke the nearest peer: one table, an outcome each.

The first twenty of the list are those of a data team's bad days, in its order; the runs of each come one after another.
"""

import datetime as dt
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import dlt
import pandas as pd
import pandera.pandas as pap
import polars as pl
import pyarrow as pa
import pytest

from cascade.ingestion import cascade_ingestion, daily
from support.everyday import FIGURES, plain
from support.ingestion import DAY, NEXT, Lake
from support.lakes import Rows

pytestmark = pytest.mark.on_servers("nessie", shared=True)

NOON = dt.datetime(2013, 7, 1, 12)
A, B, C = {"id": 1, "v": "a"}, {"id": 2, "v": "b"}, {"id": 3, "v": "c"}


@dataclass(frozen=True)
class Situation:
    """Runs of one asset, and what they leave.

    Attributes:
        runs: What the source gives in each run: rows, or a function that makes them.
        holds: The rows of the table after them.
        options: Options of the asset.
        later: Those that change after the first run.
        fails: What the error of a run says, by the run's number, from 0.
        left_out: Rows that the last run leaves out, because another one has the same key.
        days: The partition of each run; none for an asset without partitions.
        check: Whether the contract's check passed, after the last run; `None` without a contract.
    """

    runs: tuple[Any, ...]
    holds: Rows
    options: dict[str, Any] = field(default_factory=dict)
    later: dict[str, Any] = field(default_factory=dict)
    fails: dict[int, str] = field(default_factory=dict)
    left_out: int = 0
    days: tuple[str, ...] = ()
    check: bool | None = None


def broken(*pages: Any) -> Callable[[], Iterator[Any]]:
    """A source that is gone after some pages."""

    def pages_and_an_error() -> Iterator[Any]:
        yield from pages
        raise ConnectionError("the source is gone")

    return pages_and_an_error


def since(*rows: Any, gone: bool = False) -> Callable[[], Any]:
    """A source that gives what is newer than its cursor, and may be gone after that."""

    def incremental() -> Any:
        @dlt.resource(name="rows")
        def resource(cursor: Any = dlt.sources.incremental("id", initial_value=0)) -> Any:  # noqa: B008  # as dlt has it
            yield [row for row in rows if row["id"] > (cursor.last_value or 0)]
            if gone:
                raise ConnectionError("the source is gone")

        return resource()

    return incremental


class Guests(pap.DataFrameModel):
    """A contract."""

    id: int
    v: str = pap.Field(str_length={"max_value": 3})


class Later(Guests):
    """The same, with a field more."""

    age: pd.Int64Dtype = pap.Field(nullable=True)


class Measured(pap.DataFrameModel):
    """A contract that coerces."""

    id: int = pap.Field(coerce=True)
    v: float = pap.Field(coerce=True, nullable=True)
    at: dt.datetime = pap.Field(coerce=True, nullable=True)


KEY = {"unique_key": "id"}
BY_DAY: dict[str, Any] = {"partition_column": "at", "write": "replace_partition"}
MONDAY, TUESDAY = {**A, "at": NOON}, {**B, "at": NOON + dt.timedelta(days=1)}

SITUATIONS: dict[str, Situation] = {
    "1 the source is gone after the cursor moved": Situation(
        (since(A), since(A, B, gone=True), since(A, B, C)),
        [A, B, C],
        {"write": "append"},
        fails={1: "the source is gone"},
    ),
    "2 it is gone after half of a day": Situation(
        (broken([MONDAY]), []), [], BY_DAY, fails={0: "the source is gone"}, days=(DAY, DAY)
    ),
    "3 it is gone when a day is replaced": Situation(
        ([MONDAY], broken([])), [MONDAY], BY_DAY, fails={1: "the source is gone"}, days=(DAY, DAY)
    ),
    "4 an appended day runs again": Situation(([A, B], [A, B]), [A, B], {"write": "append"}, days=(DAY, DAY)),
    "5 the source deletes": Situation(
        ([MONDAY, {**C, "at": NOON}], [TUESDAY], [MONDAY]), [MONDAY, TUESDAY], BY_DAY, days=(DAY, NEXT, DAY)
    ),
    "6 an empty day": Situation(([A], None, []), [A], KEY, days=(DAY, NEXT, NEXT)),
    "7 keys that come twice": Situation(([A, A, B],), [A, B], KEY, left_out=1),
    "8 a key in two files": Situation(
        (lambda: iter([pa.Table.from_pylist([A, B]), pa.Table.from_pylist([{**A, "v": "new"}])]),),
        [{**A, "v": "new"}, B],
        KEY,
        left_out=1,
    ),
    "9 nested lists": Situation(
        ([{"id": 1, "v": [1, None], "w": [[1], []]}],), [{"id": 1, "v": [1, None], "w": "[[1], []]"}], KEY
    ),
    "10 arrow and frames": Situation((pa.Table.from_pylist([A]), pl.DataFrame([B]), pd.DataFrame([C])), [A, B, C], KEY),
    "11 a list of dicts": Situation(([A, B],), [A, B]),
    "12 a new column": Situation(
        ([A], [{**B, "more": 1}]),
        [{**A, "more": None}, {**B, "more": 1}],
        {**KEY, "validation_schema": Guests},
        check=True,
    ),
    "13 a new field of the model": Situation(
        ([A, B], [{**C, "age": 1}, B]),
        [{**A, "age": None}, {**B, "age": None}, {**C, "age": 1}],
        {**KEY, "validation_schema": Guests},
        later={"validation_schema": Later},
        check=True,
    ),
    "14 ints in floats, missing ints, times": Situation(
        ([{"id": 1, "v": 1}, {"id": 2, "v": 2.5, "at": "2013-07-01T12:00"}, {"id": 3, "v": None, "at": NOON}],),
        [{"id": 1, "v": 1.0, "at": None}, {"id": 2, "v": 2.5, "at": NOON}, {"id": 3, "v": None, "at": NOON}],
        {"validation_schema": Measured},
        check=True,
    ),
    "15 what is coerced is written": Situation(
        ([{"id": "7", "v": "1.5", "at": NOON}],),
        [{"id": 7, "v": 1.5, "at": NOON}],
        {"validation_schema": Measured},
        check=True,
    ),
    "16 camelCase": Situation(
        ([{"userId": 1, "lastName": "x"}],), [{"user_id": 1, "last_name": "x"}], {"unique_key": "userId"}
    ),
    "17 decimals": Situation(([{"id": 1, "v": Decimal("0.1")}],), [{"id": 1, "v": Decimal("0.1")}], KEY),
    "18 a failed contract leaves its result": Situation(
        ([A], [{**B, "v": "long"}]),
        [A],
        {**KEY, "validation_schema": Guests},
        fails={1: "check str_length"},
        check=False,
    ),
    "19 a failed validation writes nothing": Situation(
        ([A], [B, {**C, "v": "long"}]),
        [A],
        {**KEY, "validation_schema": Guests},
        fails={1: "1 of 2 rows break the contract Guests"},
        check=False,
    ),
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, _own_machine: None) -> Lake:
    folder = tmp_path_factory.mktemp("situations")
    return Lake(folder, project_dir=folder)


def _asset(table: str, sources: Iterator[Any], options: dict[str, Any], *, sliced: bool) -> Any:
    def rows() -> Any:
        source = next(sources)
        return source() if callable(source) else source

    def fetch() -> Any:
        return rows()

    def fetch_day(partition_date: str) -> Any:
        return rows()

    partitions = daily(start=DAY, end=NEXT) if sliced else "none"
    chosen = {"partitions": partitions, "max_retries": 0, **options}
    return cascade_ingestion(table_name=table, **chosen)(fetch_day if sliced else fetch)


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_bad_day_has_its_outcome(lake: Lake, name: str) -> None:
    case, table = SITUATIONS[name], f"s{list(SITUATIONS).index(name)}"
    sources = iter(case.runs)
    for number, days in enumerate(case.days or itertools.repeat("", len(case.runs))):
        asset = _asset(table, sources, case.options | (case.later if number else {}), sliced=bool(case.days))
        result = lake.run(asset, partitions=days or None)
        if says := case.fails.get(number, ""):
            assert (result.success, says in str(result.errors)) == (False, True), result.errors
            continue
        assert result.success, result.errors
        extracted, loaded, aside, twice = (lake.metadata(asset)[figure] for figure in FIGURES)
        assert (extracted, aside) == (loaded + twice, 0)
    if len(case.runs) - 1 not in case.fails:
        assert lake.metadata(asset)["duplicate_rows"] == case.left_out
    if case.check is not None:
        assert result.checks == {f"raw/{table} contract": case.check}
    held = lake.rows(f"raw.{table}") if f"raw.{table}" in lake.lakehouse.tables() else []
    by_name = [[dict(sorted(row.items())) for row in rows] for rows in (held, case.holds)]
    assert sorted(map(str, map(plain, by_name[0]))) == sorted(map(str, map(plain, by_name[1])))


def test_20_of_two_loads_at_once_both_count(lake: Lake) -> None:
    """The second commits while the first one is fetching: the first plans again, on what is there then."""
    inner = _asset("s20", iter([[B]]), KEY, sliced=False)

    def meanwhile() -> Any:
        yield A
        lake.load(inner)

    assert lake.run(_asset("s20", iter([meanwhile]), KEY, sliced=False)).success
    assert lake.rows("raw.s20") == [A, B]
