"""The promise of everyday data: each row is loaded exactly, set aside with the reason, or left out as a duplicate.

One table of cases through `@cascade_ingestion`, all in a few runs of Dagster; what the tables hold is read by the
engine. What is told of a load is in its metadata: extracted = loaded + quarantined + de-duplicated.
"""

import csv
import datetime as dt
import enum
import io
import json
import math
import uuid
from collections import OrderedDict
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import dlt
import numpy as np
import pandas as pd
import pandera.pandas as pap
import pandera.polars as plp
import polars as pl
import pyarrow as pa
import pytest
from pydantic import BaseModel
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField

from support.everyday import Case, Ran, becomes, column, kept, of_day, pages, refused
from support.ingestion import DAY, Lake

pytestmark = pytest.mark.on_servers("nessie", shared=True)

UTC, NEW_YORK = dt.UTC, ZoneInfo("America/New_York")
NAN, INF = math.nan, math.inf
NOON = dt.datetime(2013, 7, 1, 12)
AWARE = NOON.replace(tzinfo=UTC)
TZ, NAIVE = pa.timestamp("us", "UTC"), pa.timestamp("us")
FIRST, LAST = dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999)
MEGABYTE = "🌦️x" * 250_000
ONE = {"id": 1, "v": "a"}


class Level(enum.IntEnum):
    """A number with a name."""

    LOW = 1


class Pair(NamedTuple):
    """A row of a database driver."""

    id: int
    v: str


class Model(BaseModel):
    """A row that was parsed."""

    id: int
    v: str


class Orders(pap.DataFrameModel):
    """A contract with everything that is usual."""

    id: int = pap.Field(unique=True, coerce=True)
    state: str = pap.Field(isin=["new", "paid"], nullable=True)
    code: str = pap.Field(str_matches=r"^[A-Z]{2}$", nullable=True)
    amount: float = pap.Field(ge=0, nullable=True)

    class Config:
        coerce = True

    @pap.dataframe_check
    def paid_has_an_amount(cls, rows: pd.DataFrame) -> Any:  # noqa: N805
        return (rows["state"] != "paid") | rows["amount"].notna()


def order(key: Any, state: Any = "new", code: Any = "AB", amount: Any = 1.0) -> dict[str, Any]:
    return {"id": key, "state": state, "code": code, "amount": amount}


POLARS = plp.DataFrameSchema(
    {"id": plp.Column(pl.Int64, plp.Check.gt(0)), "at": plp.Column(pl.Datetime, nullable=True)}
)


REQUIRED = Schema(NestedField(1, "v", LongType(), required=True))


def v(*values: Any) -> list[dict[str, Any]]:
    return [{"v": value} for value in values]


def arrow(*values: Any, kind: Any = None) -> pa.Table:
    return pa.table({"v": pa.array(list(values), kind)})


def csv_rows(text: str) -> Any:
    return csv.DictReader(io.StringIO(text))


def half_way() -> Any:
    yield [ONE]
    raise ConnectionError("the source is gone")


def frames() -> Any:
    yield {"id": 1, "v": "a"}
    yield pd.DataFrame({"id": [2], "v": ["b"]})
    yield pl.DataFrame({"v": ["c"], "id": [3]})
    yield [pa.table({"id": [4], "v": ["d"]}), None, []]


def one_dict_again_and_again() -> Any:
    row: dict[str, Any] = {}
    for row["id"], row["v"] in enumerate("abcd", 1):
        yield row


ABCD = [{"id": n, "v": text} for n, text in enumerate("abcd", 1)]

# --- values -----------------------------------------------------------------------------------------------------

VALUES: dict[str, Case] = {
    "nullable ints": kept({"id": 1, "v": None}, {"id": 2, "v": 3}),
    "ints in a column of floats": becomes(v(1, 2.5), v(1.0, 2.5)),
    "ints of floats as pandas makes them": becomes(v(1.0, None, 3), v(1, None, 3), **column(pa.int64())),
    "nan and infinity": kept(*v(NAN, INF, -INF, None, 1.5)),
    "negative zero": kept(*v(-0.0, 1.0)),
    "a denormal and the greatest double": kept(*v(5e-324, 1.7976931348623157e308)),
    "the ends of 64 bits": kept(*v(-(2**63), 2**63 - 1)),
    "ints beyond 64 bits": becomes(v(1, 2**63), v("1", str(2**63))),
    "ints beyond 64 bits in a long": becomes(v(1, 2**63, -(2**63) - 1), v(1), aside=2, **column(pa.int64())),
    "unsigned 64 bits": becomes(arrow(2**64 - 1, kind=pa.uint64()), v(Decimal(2**64 - 1))),
    "an int that a double cannot hold": becomes(v(1.5, 2**53 + 1), v(1.5), aside=1, **column(pa.float64())),
    "exact decimals": kept(*v(Decimal("0.1"), Decimal("-1234567890123456789.000000001"), Decimal("1E+3"))),
    "decimals with too many digits": becomes(
        v(Decimal("1.25"), Decimal("1.255"), "1.2", 1.1, Decimal("1000")),
        v(Decimal("1.25"), Decimal("1.2"), Decimal("1.1")),
        aside=2,
        **column(pa.decimal128(5, 2)),
    ),
    "a decimal that is no number": becomes(v(Decimal("NaN"), Decimal("1.5")), v("NaN", "1.5")),
    "booleans as text": becomes(v("true", "FALSE", "yes", "", 1), v(True, False), aside=3, **column(pa.bool_())),
    "booleans beside ints": becomes(v(True, 1, "x"), v("true", "1", "x")),
    "numbers as people write them": becomes(
        v("1", " 2.5 ", "1,234.50", "1.234,5", "1_000", "007", "12%", "", "1e3", "-"),
        v(1.0, 2.5, 1000.0),
        aside=7,
        **column(pa.float64()),
    ),
    "text that looks like numbers stays text": kept(*v("007", "1,234.50", "1e3", "NaN", "null")),
    "empty text, blanks and null": kept(*v("", " ", "\t\n", None, "x")),
    "emoji and other scripts": kept(*v("🌦️", "日本", "é", "e\u0301", "\u202eabc", "\ufeff", "a'b\"c`d\\")),
    "a zero character in text": kept(*v("a\x00b", "a")),
    "half a character": becomes(v("a", "\ud800"), v("a"), aside=1),
    "text of a megabyte": kept(*v(MEGABYTE, "x")),
    "bytes": kept(*v(b"\x00\xff", b"", None)),
    "bytes in text": becomes(v("a", b"b", b"\xff"), v("a", "b"), aside=1),
    "uuids": becomes(v(uuid.UUID(int=5)), v("00000000-0000-0000-0000-000000000005")),
    "members of an enum": becomes(v(Level.LOW, 2), v(1, 2)),
    "numpy's numbers": becomes(v(np.int8(1), np.uint16(2), np.bool_(True)), v("1", "2", "true")),
    "numpy's floats": becomes(v(np.float32(0.5), np.float64(0.1)), v(0.5, 0.1)),
    "numpy's arrays": becomes(v(np.array([1, 2]), None), v([1, 2], None)),
    "mixed types": becomes(v(1, "x", None, 2.5, [1], {"a": 1}), v("1", "x", None, "2.5", "[1]", '{"a": 1}')),
    "sets and tuples": becomes(v({2, 1}, (1,), frozenset()), v("[1, 2]", "[1]", "[]")),
    "an object without a text": becomes(v("a", object(), len), v("a"), aside=2),
    "json, nested": becomes(v({"b": [1, {"c": None}], "a": NAN}), v('{"a": "nan", "b": [1, {"c": null}]}')),
    "json with big numbers": becomes(
        lambda: [json.loads('{"id": 12345678901234567890, "v": 1e400}'), json.loads('{"id": 1, "v": -0.0}')],
        [{"id": "12345678901234567890", "v": INF}, {"id": "1", "v": -0.0}],
    ),
    "nested lists": kept(*v([1, None, 2], [], None)),
    "nested lists of two kinds": becomes(v([1], ["x"]), v("[1]", '["x"]')),
    "structs": becomes(arrow({"a": 1}, None), v({"a": 1}, None)),
    "structs in lists": becomes(pl.DataFrame({"v": [[{"a": 1}], []]}), v([{"a": 1}], [])),
    "a declared struct of dicts": becomes(
        v({"theX": 1}, {"theX": "2"}, {}, None, {"theX": "y"}),
        v({"the_x": 1}, {"the_x": 2}, {"the_x": None}, None),
        aside=1,
        **column(pa.struct([("the_x", pa.int64())])),
    ),
}

# --- times ------------------------------------------------------------------------------------------------------

TIMES: dict[str, Case] = {
    "dates from the first to the last": kept(*v(FIRST.date(), LAST.date(), None)),
    "naive times from the first to the last": kept(*v(FIRST, LAST)),
    "aware times from the first to the last": kept(*v(FIRST.replace(tzinfo=UTC), LAST.replace(tzinfo=UTC))),
    "times of years that Python lacks": becomes(
        arrow(10**12, 0, kind=pa.timestamp("s")), v(dt.datetime(1970, 1, 1)), aside=1
    ),
    "dates of years that Python lacks": becomes(
        pa.table({"v": pa.array([10**7, 0], pa.int32()).cast(pa.date32())}), v(dt.date(1970, 1, 1)), aside=1
    ),
    "aware times become UTC": becomes(v(NOON.replace(tzinfo=NEW_YORK)), v(dt.datetime(2013, 7, 1, 16, tzinfo=UTC))),
    "naive and aware times": becomes(v(NOON, NOON.replace(tzinfo=NEW_YORK)), v(NOON, NOON.replace(hour=16))),
    "naive times in a zoned column": becomes(v(NOON, AWARE), v(AWARE, AWARE), **column(TZ)),
    "the hour that comes twice": becomes(
        v(*(dt.datetime(2024, 11, 3, 1, 30, tzinfo=NEW_YORK, fold=fold) for fold in (0, 1))),
        v(*(dt.datetime(2024, 11, 3, hour, 30, tzinfo=UTC) for hour in (5, 6))),
        unique_key="v",
    ),
    "the hour that does not exist": becomes(
        v(dt.datetime(2024, 3, 10, 2, 30, tzinfo=NEW_YORK)), v(dt.datetime(2024, 3, 10, 7, 30, tzinfo=UTC))
    ),
    "a change of clock from pandas": becomes(
        pd.DataFrame({"v": pd.date_range("2024-11-03 00:30", periods=3, freq="h", tz="America/New_York")}),
        v(*(dt.datetime(2024, 11, 3, hour, 30, tzinfo=UTC) for hour in (4, 5, 6))),
    ),
    "iso text over a change of clock": becomes(
        v("2024-03-10T01:59:59-05:00", "2024-03-10T03:00:00-04:00", "2024-03-10 07:00", "2024-03-10T07:00:00Z", "soon"),
        v(dt.datetime(2024, 3, 10, 6, 59, 59, tzinfo=UTC), *[dt.datetime(2024, 3, 10, 7, tzinfo=UTC)] * 3),
        aside=1,
        **column(TZ),
    ),
    "iso text that nobody declared stays text": kept(*v("2024-03-10T02:30:00-05:00", "2024-03-10")),
    "seconds since 1970": becomes(v(1372680000, 1372680000.5, True, AWARE), v(AWARE), aside=3, **column(TZ)),
    "dates beside times": becomes(v(NOON.date(), NOON), v("2013-07-01", "2013-07-01T12:00:00")),
    "times in a column of dates": becomes(
        v("2013-07-01", NOON.replace(hour=0), NOON, "2013-07-01T05:00"),
        v(*[NOON.date()] * 2),
        aside=2,
        **column(pa.date32()),
    ),
    "nanoseconds": becomes(
        pl.DataFrame({"v": pl.Series([1, -1]).cast(pl.Datetime("ns"))}),
        v(dt.datetime(1970, 1, 1), dt.datetime(1969, 12, 31, 23, 59, 59, 999999)),
    ),
    "times of day": kept(*v(dt.time(0), dt.time(23, 59, 59, 999999))),
    "spans of time": becomes(v(dt.timedelta(days=1, seconds=3)), v("1 day, 0:00:03")),
}

# --- shapes -----------------------------------------------------------------------------------------------------

SHAPES: dict[str, Case] = {
    "nothing": becomes(None, []),
    "an empty page": becomes(pages([]), []),
    "an empty frame": becomes(pl.DataFrame({"v": []}), []),
    "one row": becomes(ONE, [ONE]),
    "a generator of all kinds": becomes(frames, ABCD),
    "one dict that is filled again and again": becomes(one_dict_again_and_again, ABCD),
    "a reader": becomes(lambda: pa.Table.from_pylist(ABCD).to_reader(1), ABCD),
    "batches": becomes(lambda: pa.Table.from_pylist(ABCD).to_batches(2), ABCD),
    "a lazy frame": becomes(pl.LazyFrame(ABCD), ABCD),
    "a resource": becomes(dlt.resource(ABCD, name="rows"), ABCD),
    "models, tuples, mappings": becomes([Model(id=1, v="a"), Pair(2, "b"), OrderedDict(ABCD[2]), ABCD[3]], ABCD),
    "rows of itertuples": becomes(lambda: pd.DataFrame(ABCD).itertuples(index=False), ABCD),
    "dictionaries and categories": becomes(pd.DataFrame({"v": pd.Categorical(["a", "b", "a"])}), v("a", "b", "a")),
    "pandas' missing values": becomes(
        pd.DataFrame({"id": pd.array([1, None], "Int64"), "v": [NAN, 1.5]}),
        [{"id": 1, "v": None}, {"id": None, "v": 1.5}],
    ),
    "pandas' objects": becomes(
        pd.DataFrame({"v": pd.Series([NAN, 1, pd.NA, "x", pd.NaT, Decimal("1.5")], dtype=object)}),
        v(None, "1", None, "x", None, "1.5"),
    ),
    "a csv": becomes(
        lambda: csv_rows('id,v\n1,\n2,"x,\ny"\n3\n'),
        [{"id": "1", "v": ""}, {"id": "2", "v": "x,\ny"}, {"id": "3", "v": None}],
    ),
    "a csv with a mark of its encoding": becomes(
        lambda: csv_rows("\ufeffid,v\n1,a\n1,b\n"), [{"id": "1", "v": "b"}], twice=1, unique_key="id"
    ),
    "a csv with declared columns": becomes(
        lambda: csv_rows("v\n1\n2.0\n\nx\n"), v(1, 2), aside=1, **column(pa.int64())
    ),
    "json lines": becomes(
        lambda: map(json.loads, ['{"id": 1}', '{"v": true, "id": 2}']), [{"id": 1, "v": None}, {"id": 2, "v": True}]
    ),
    "a row without columns": becomes([{}, ONE], [dict.fromkeys(ONE), ONE]),
    "rows without any value": becomes([{}, {"v": None}], [], aside=2),
    "a source that raises half-way": refused(half_way, "the source is gone"),
    "a source that raises half-way, under quarantine": refused(half_way, "the source is gone", on_invalid="quarantine"),
    "text": refused("abc", "cannot be read as rows"),
    "a column that comes later": becomes(
        pages(pa.table({"id": [1]}), pa.table({"v": ["a"], "id": [2]})), [{"id": 1, "v": None}, {"id": 2, "v": "a"}]
    ),
    "columns in another order": becomes(
        pages(pa.table({"id": [1], "v": ["a"]}), pa.table({"v": ["b"], "id": [2]})), ABCD[:2]
    ),
    "a column of nulls that gets values": becomes(
        pages(pa.table({"id": [1], "v": pa.nulls(1)}), [{"id": 2, "v": "b"}]), [{"id": 1, "v": None}, ABCD[1]]
    ),
    "a column of nulls": becomes([{"id": 1, "v": None}], [{"id": 1}]),
    "another type in a later page": becomes(pages(arrow(1), arrow(1.5), arrow("2"), arrow("x")), v(1, 2), aside=2),
    "text, then anything": becomes(
        pages(arrow("a"), arrow(1), arrow(True), arrow(NOON)), v("a", "1", "true", "2013-07-01T12:00:00")
    ),
    "a field that comes later": becomes(
        pages(arrow({"a": 1}), [{"v": {"a": 2, "b": "x"}}]), v({"a": 1, "b": None}, {"a": 2, "b": "x"})
    ),
}

# --- keys -------------------------------------------------------------------------------------------------------


def versions(*pairs: Any, **options: Any) -> dict[str, Any]:
    return {"rows": [{"id": key, "v": value} for key, value in pairs], "unique_key": "id", **options}


KEYS: dict[str, Case] = {
    "a page that comes twice, with a key": becomes(pages(ABCD, ABCD), ABCD, twice=4, unique_key="id"),
    "a page that comes twice, without": becomes(pages(ABCD, ABCD), ABCD * 2),
    "null keys": becomes([{"id": None, "v": "x"}, *ABCD], ABCD, aside=1, unique_key="id"),
    "null keys without quarantine": refused(
        [{"id": None}, ONE], "`id`: is part of the key and must not be null", unique_key="id"
    ),
    "a part of a key is null": becomes(
        [{"id": 1, "v": None}, {"id": 1, "v": "a"}, {"id": 1, "v": "b"}, {"id": 1, "v": "b"}],
        [{"id": 1, "v": "a"}, {"id": 1, "v": "b"}],
        aside=1,
        twice=1,
        unique_key=["id", "v"],
    ),
    "keys that are no number": becomes(
        **versions((NAN, 1), (NAN, 2), (1.0, 3)), holds=[{"id": NAN, "v": 2}, {"id": 1.0, "v": 3}], twice=1
    ),
    "keys of two zeros": becomes(**versions((0.0, 1), (-0.0, 2)), holds=[{"id": -0.0, "v": 2}], twice=1),
    "keys 1 and '1'": becomes(**versions((1, "a"), ("1", "b")), holds=[{"id": "1", "v": "b"}], twice=1),
    "keys that differ in case or blanks": becomes(
        **versions(*((key, 1) for key in ("a", "A", "a ", ""))),
        holds=[{"id": key, "v": 1} for key in ("a", "A", "a ", "")],
    ),
    "keys of bytes": becomes(**versions((b"\x00", 1), (b"\x00", 2)), holds=[{"id": b"\x00", "v": 2}], twice=1),
    "keys of booleans": becomes(
        **versions((True, 1), (False, 2), (True, 3)), holds=[{"id": True, "v": 3}, {"id": False, "v": 2}], twice=1
    ),
    "keys of decimals": becomes(
        **versions((Decimal("1.0"), 1), (Decimal("1.00"), 2)), holds=[{"id": Decimal(1), "v": 2}], twice=1
    ),
    "keys of moments": becomes(
        **versions((AWARE, 1), (NOON.replace(hour=8, tzinfo=NEW_YORK), 2)), holds=[{"id": AWARE, "v": 2}], twice=1
    ),
    "keys of json": becomes(
        **versions(({"a": 1, "b": 2}, 1), ({"b": 2, "a": 1}, 2)), holds=[{"id": '{"a": 1, "b": 2}', "v": 2}], twice=1
    ),
    "a key that the source spells otherwise": becomes(
        [{"orderId": 1, "v": 1}, {"orderId": 1, "v": 2}], [{"order_id": 1, "v": 2}], twice=1, unique_key="orderId"
    ),
    "a tie of the order": becomes(
        [{"id": 1, "n": 1, "v": "a"}, {"id": 1, "n": 1, "v": "b"}],
        [{"id": 1, "n": 1, "v": "b"}],
        twice=1,
        unique_key="id",
        order_by="n",
    ),
    "nulls in the order": becomes(
        [{"id": 1, "n": None}, {"id": 1, "n": 1}, {"id": 1, "n": None}, {"id": 1, "n": 0}],
        [{"id": 1, "n": 1}],
        twice=3,
        unique_key="id",
        order_by="n",
    ),
    "a key that no row has": refused([ONE], "no column `key`", unique_key="key"),
}

# --- contracts and partitions -----------------------------------------------------------------------------------

CHECKED: dict[str, Case] = {
    "rows that keep the contract": kept(order(1), order(2, None, None, None), validation_schema=Orders),
    "rows that are coerced": becomes([order("3", amount="2")], [order(3, amount=2.0)], validation_schema=Orders),
    "rows that break the contract": becomes(
        [
            order(1),
            order(2, "lost"),
            order(3, code="ab"),
            order(4, amount=-1),
            order(None),
            order(5, "paid", "AB", None),
            order("x"),
            order(6, 1),
        ],
        [order(1)],
        aside=7,
        validation_schema=Orders,
    ),
    "rows that break the contract without quarantine": refused(
        [order(1), order(2, "lost")], "1 of 2 rows break the contract Orders", validation_schema=Orders
    ),
    "values that must be unique": becomes(
        [order(1), order(1), order(2)], [order(2)], aside=2, validation_schema=Orders
    ),
    "a contract of polars": becomes(
        [{"id": 1, "at": "2013-07-01T12:00:00+02:00"}, {"id": 0, "at": None}, {"id": 2, "at": "x"}],
        [{"id": 1, "at": NOON.replace(hour=10)}],
        aside=2,
        validation_schema=POLARS,
    ),
    "a column that may not be null": becomes(v(1, None), v(1), aside=1, iceberg_schema=REQUIRED),
    "a day": of_day(kept({"id": 1, "at": AWARE}, partition_column="at", unique_key="id")),
    "rows of another day": of_day(
        refused([{"at": AWARE}, {"at": AWARE + dt.timedelta(1)}], "Outside the partitions", partition_column="at")
    ),
    "rows of another day, under quarantine": of_day(
        becomes(
            [{"at": AWARE}, {"at": AWARE + dt.timedelta(1)}, {"at": None}],
            [{"at": AWARE}],
            aside=2,
            partition_column="at",
        )
    ),
    "a day that is spelt otherwise": of_day(
        becomes([{"madeAt": NOON}], [{"made_at": NOON}], partition_column="madeAt", write="replace_partition")
    ),
    "a day in text": of_day(refused([{"at": DAY}], "must be a timestamp or a date", partition_column="at")),
}


def _hours(day: str, zone: str) -> tuple[list[dict[str, Any]], dt.datetime]:
    """Each hour of a day of a zone, and the moment that is not of it any more."""
    begin, end = (
        (dt.datetime.fromisoformat(day) + dt.timedelta(days)).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
        for days in (0, 1)
    )
    hours = (end - begin) // dt.timedelta(hours=1)
    return [{"id": n, "at": begin + n * dt.timedelta(hours=1)} for n in range(hours)], end


CLOCKS = [
    ("2024-03-10", "America/New_York", 23),
    ("2024-11-03", "America/New_York", 25),
    ("2018-11-04", "America/Sao_Paulo", 23),
]
for day, zone, length in CLOCKS:
    rows, after = _hours(day, zone)
    assert len(rows) == length
    CHECKED[f"a day of {length} hours in {zone}"] = of_day(
        becomes([*rows, {"id": 99, "at": after}], rows, aside=1, partition_column="at", unique_key="id"), day, zone
    )

CASES = {**VALUES, **TIMES, **SHAPES, **KEYS, **CHECKED}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, _own_machine: None) -> Ran:
    folder = tmp_path_factory.mktemp("everyday")
    return Ran(Lake(folder, project_dir=folder), CASES, "e")


@pytest.mark.parametrize("name", CASES)
def test_each_row_is_there_exactly_or_set_aside_or_a_duplicate(ran: Ran, name: str) -> None:
    ran.judge(name)
