"""The promises of `cascade.ingestion.rows`, `cast` and `text`.

Modules: `cascade.ingestion.cast`, `cascade.ingestion.values`, `cascade_forms.frames`.
"""

import dataclasses
import datetime
import decimal
import enum
import json
import math
import sys
import uuid
from collections import ChainMap, deque
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pendulum
import polars as pl
import pyarrow as pa
import pytest
from pydantic import BaseModel

from cascade.errors import IngestionError, SchemaMismatchError
from cascade.ingestion.forms import FetchContext
from cascade.ingestion.rows import Batch, Policy, to_batches
from cascade.ingestion.text import json_text, snake_case

UTC = datetime.UTC
NEW_YORK = datetime.timezone(datetime.timedelta(hours=-5))
NOON = datetime.datetime(2013, 7, 1, 12)
TZ = pa.timestamp("us", "UTC")
NAIVE = pa.timestamp("us")
SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string())])
ROWS = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "c"}]


def _batches(fetched: object, schema: pa.Schema | None = SCHEMA, policy: Policy = "strict", **more: Any) -> list[Batch]:
    context = FetchContext(rows_per_batch=more.pop("rows_per_batch", 50_000))
    return list(to_batches(fetched, schema=schema, policy=policy, context=context, **more))


def _rows(fetched: object, schema: pa.Schema | None = SCHEMA, policy: Policy = "strict") -> list[dict[str, Any]]:
    batches = _batches(fetched, schema, policy)
    assert not [batch.rejected for batch in batches if batch.rejected]
    return [row for batch in batches for row in batch.rows.to_pylist()]


def _one(value: object, target: pa.DataType) -> Any:
    return _rows([{"x": value}], pa.schema([("x", target)]))[0]["x"]


def _generator() -> Iterator[dict[str, Any]]:
    yield from ROWS


def _pages() -> Iterator[list[dict[str, Any]]]:
    yield ROWS[:2]
    yield []
    yield ROWS[2:]


@dataclasses.dataclass
class Person:
    """A row as a dataclass."""

    id: int
    name: str


class Named(NamedTuple):
    """A row as a named tuple, as SQLAlchemy and `itertuples` give it."""

    id: int
    name: str


class Model(BaseModel):
    """A row as a model of pydantic."""

    id: int
    name: str


TABLE = pa.Table.from_pylist(ROWS)
SHAPES: dict[str, Any] = {
    "dataclasses": lambda: [Person(**row) for row in ROWS],
    "named_tuples": lambda: [Named(**row) for row in ROWS],
    "pydantic": lambda: [Model(**row) for row in ROWS],
    "mappings": lambda: [ChainMap(row) for row in ROWS],
    "list": lambda: ROWS,
    "generator": _generator,
    "pages": _pages,
    "tuple": lambda: tuple(ROWS),
    "table": lambda: TABLE,
    "tables": lambda: [TABLE.slice(0, 1), None, TABLE.slice(1)],
    "batch": lambda: TABLE.to_batches()[0],
    "reader": TABLE.to_reader,
    "pandas": lambda: pd.DataFrame(ROWS),
    "pandas_pages": lambda: (pd.DataFrame([row]) for row in ROWS),
    "pandas_index": lambda: pd.DataFrame(ROWS).set_index("id"),
    "polars": lambda: pl.DataFrame(ROWS),
    "lazy": lambda: pl.LazyFrame(ROWS),
    "mixture": lambda: [ROWS[0], pd.DataFrame(ROWS[1:2]), [TABLE.slice(2)]],
}


@pytest.mark.parametrize("fetched", SHAPES.values(), ids=SHAPES)
def test_every_shape_of_rows_is_loaded(fetched: Any) -> None:
    assert _rows(fetched()) == ROWS


@pytest.mark.parametrize("fetched", SHAPES.values(), ids=SHAPES)
def test_every_shape_of_rows_can_be_inferred(fetched: Any) -> None:
    assert _rows(fetched(), None) == ROWS


@pytest.mark.parametrize(
    "fetched",
    [None, [], iter(()), [[], None], TABLE.slice(0, 0), pd.DataFrame()],
    ids=lambda value: type(value).__name__,
)
def test_nothing_gives_no_batch(fetched: object) -> None:
    assert _batches(fetched) == []


def test_one_dict_is_one_row() -> None:
    assert _rows(ROWS[0]) == ROWS[:1]


@pytest.mark.parametrize(
    "fetched", ["text", 3, [1], [[ROWS[0], "x"]], object()], ids=lambda value: type(value).__name__
)
def test_what_is_no_rows_is_refused_by_its_type(fetched: object) -> None:
    with pytest.raises(IngestionError, match=r"`builtins\.\w+`, which cannot be read as rows"):
        _batches(fetched)


def test_a_form_that_no_installed_package_brings_is_refused_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Iterating over a source of dlt would give its rows, and lose its cursor."""
    found = type("DltResource", (list,), {"__module__": "dlt.extract.resource"})(ROWS)
    monkeypatch.setattr("sys.path", [folder for folder in sys.path if "site-packages" not in folder])
    with pytest.raises(IngestionError, match="cannot be read as rows") as caught:
        _batches(found)
    assert "install the package that brings the form `dlt.DltResource` (cascade.forms); installed are none" in str(
        caught.value
    )


@pytest.mark.parametrize("fetched", SHAPES.values(), ids=SHAPES)
def test_frames_are_cut_and_pages_are_joined(fetched: Any) -> None:
    batches = _batches(fetched(), rows_per_batch=2)
    assert max(batch.rows.num_rows for batch in batches) <= 2
    assert [row for batch in batches for row in batch.rows.to_pylist()] == ROWS


def test_small_pages_are_joined_up_to_the_limit() -> None:
    for page in (ROWS, TABLE, pl.DataFrame(ROWS)):
        assert [b.rows.num_rows for b in _batches((page for _ in range(10)), rows_per_batch=12)] == [
            12,
            12,
            6,
        ]


def test_rows_are_drawn_only_as_batches_are_asked_for() -> None:
    drawn = []

    def fetch() -> Iterator[dict[str, Any]]:
        for row in ROWS:
            drawn.append(row)
            yield row

    next(to_batches(fetch(), schema=SCHEMA, policy="strict", context=FetchContext(rows_per_batch=1)))
    assert drawn == ROWS[:1]


def test_columns_come_in_the_order_and_type_of_the_schema_and_missing_ones_are_null() -> None:
    schema = pa.schema([("b", pa.int32()), pa.field("a", pa.float32(), metadata={"PARQUET:field_id": "7"}), ("c", TZ)])
    (batch,) = _batches([{"a": 1, "b": 2}, {"b": 3}], schema)
    assert batch.rows.schema.equals(schema, check_metadata=True)
    assert batch.rows.to_pylist() == [{"b": 2, "a": 1.0, "c": None}, {"b": 3, "a": None, "c": None}]


# --- values -----------------------------------------------------------------------------------------------


class State(str, enum.Enum):  # noqa: UP042  the older spelling is what models have
    """What pydantic's `model_dump()` gives."""

    A = "a"


class Level(enum.IntEnum):
    """A number with a name."""

    LOW = 1


class Colour(enum.Enum):
    """A plain one, whose value may be anything."""

    RED = datetime.date(2013, 7, 1)


class Int64(int):
    """As a driver of MongoDB gives it."""


GOOD: dict[str, tuple[object, pa.DataType, object]] = {
    "int_of_a_driver": (Int64(5), pa.int64(), 5),
    "dataclass_in_text": (Person(1, "a"), pa.string(), '{"id": 1, "name": "a"}'),
    "dataclass_in_struct": (Person(1, "a"), pa.struct(SCHEMA), {"id": 1, "name": "a"}),
    "models_in_json": ({"who": [Model(id=1, name="a")]}, pa.string(), '{"who": [{"id": 1, "name": "a"}]}'),
    "mapping_in_json": ([ChainMap({"a": 1})], pa.string(), '[{"a": 1}]'),
    "sequences_in_text": ([deque([1]), range(2)], pa.string(), "[[1], [0, 1]]"),
    "bytes_in_json": ([b"a"], pa.string(), '["a"]'),
    "int_in_float": (3, pa.float64(), 3.0),
    "large_exact_int_in_float": (2**60, pa.float64(), float(2**60)),
    "integral_float_in_int": (1.0, pa.int64(), 1),
    "text_in_int": (" 12 ", pa.int64(), 12),
    "integral_text_in_int": ("1.0", pa.int32(), 1),
    "decimal_in_int": (decimal.Decimal("7"), pa.int64(), 7),
    "numpy_int": (np.int32(5), pa.int64(), 5),
    "numpy_float": (np.float32(0.5), pa.float64(), 0.5),
    "text_in_float": ("1e3", pa.float64(), 1000.0),
    "decimal_in_float": (decimal.Decimal("0.5"), pa.float64(), 0.5),
    "infinity": (math.inf, pa.float32(), math.inf),
    "bool": (True, pa.bool_(), True),
    "bool_text": ("False", pa.bool_(), False),
    "int_in_text": (12345678901234567890, pa.string(), "12345678901234567890"),
    "float_in_text": (1e20, pa.string(), "1e+20"),
    "integral_float_in_text": (1.0, pa.string(), "1"),
    "set_in_text": ({"b", "a"}, pa.string(), '["a", "b"]'),
    "dict_in_any_order": ({"b": {"d": 1, "c": 2}, "a": 3}, pa.string(), '{"a": 3, "b": {"c": 2, "d": 1}}'),
    "zero_text": ("0", pa.int64(), 0),
    "fraction_text": ("-0.5", pa.decimal128(3, 2), decimal.Decimal("-0.5")),
    "bool_in_text": (True, pa.string(), "true"),
    "enum_of_text": (State.A, pa.string(), "a"),
    "enum_of_ints": (Level.LOW, pa.int64(), 1),
    "enum_of_ints_in_text": (Level.LOW, pa.string(), "1"),
    "enum": (Colour.RED, pa.date32(), NOON.date()),
    "enums_in_json": ({State.A: [Level.LOW, Colour.RED]}, pa.string(), '{"a": [1, "2013-07-01"]}'),
    "enum_key_in_json": ({Colour.RED: 1}, pa.string(), '{"2013-07-01": 1}'),
    "enums_in_list": ([State.A], pa.list_(pa.string()), ["a"]),
    "enum_in_map": ({State.A: Level.LOW}, pa.map_(pa.string(), pa.int64()), [("a", 1)]),
    "dict_in_text": ({"ä": [1, None]}, pa.string(), '{"ä": [1, null]}'),
    "list_in_text": ([1, math.nan], pa.string(), '[1, "nan"]'),
    "date_in_text": (NOON.date(), pa.string(), "2013-07-01"),
    "uuid_in_text": (uuid.UUID(int=1), pa.string(), "00000000-0000-0000-0000-000000000001"),
    "emoji": ("🌦️", pa.string(), "🌦️"),
    "megabyte": ("x" * 1_000_000, pa.string(), "x" * 1_000_000),
    "bytes": (b"\x00\xff", pa.binary(), b"\x00\xff"),
    "naive_is_utc": (NOON, TZ, NOON.replace(tzinfo=UTC)),
    "aware_to_utc": (NOON.replace(tzinfo=NEW_YORK), TZ, NOON.replace(hour=17, tzinfo=UTC)),
    "aware_to_naive": (NOON.replace(tzinfo=NEW_YORK), NAIVE, NOON.replace(hour=17)),
    "iso": ("2013-07-01T12:00:00", NAIVE, NOON),
    "iso_z": ("2013-07-01T12:00:00Z", TZ, NOON.replace(tzinfo=UTC)),
    "iso_z_to_naive": ("2013-07-01 12:00:00+00:00", NAIVE, NOON),
    "iso_naive_to_tz": ("2013-07-01 12:00:00", TZ, NOON.replace(tzinfo=UTC)),
    "iso_nanoseconds": ("2013-07-01T12:00:00.000000123Z", TZ, NOON.replace(tzinfo=UTC)),
    "iso_day": ("2013-07-01", NAIVE, NOON.replace(hour=0)),
    "date_in_timestamp": (NOON.date(), TZ, NOON.replace(hour=0, tzinfo=UTC)),
    "pandas_timestamp": (pd.Timestamp("2013-07-01 12:00", tz="UTC"), TZ, NOON.replace(tzinfo=UTC)),
    "pandas_nat": (pd.NaT, TZ, None),
    "pandas_na": (pd.NA, pa.int64(), None),
    "numpy_datetime": (np.datetime64("2013-07-01T12:00:00", "ns"), NAIVE, NOON),
    "iso_date": ("2013-07-01", pa.date32(), NOON.date()),
    "midnight_in_date": ("2013-07-01T00:00:00", pa.date32(), NOON.date()),
    "midnight_in_its_own_zone": (NOON.replace(hour=0, tzinfo=NEW_YORK), pa.date32(), NOON.date()),
    "pendulum": (pendulum.datetime(2013, 7, 1, 12, tz="Europe/Paris"), TZ, NOON.replace(hour=10, tzinfo=UTC)),
    "pendulum_date": (pendulum.date(2013, 7, 1), pa.date32(), NOON.date()),
    "pendulum_time": (pendulum.time(12, 30), pa.time64("us"), datetime.time(12, 30)),
    "numpy_nanoseconds": (np.datetime64(-1, "ns"), NAIVE, datetime.datetime(1969, 12, 31, 23, 59, 59, 999999)),
    "pandas_nanoseconds": (pd.Timestamp(-1), NAIVE, datetime.datetime(1969, 12, 31, 23, 59, 59, 999999)),
    "time_in_utc": ("12:30Z", pa.time64("us"), datetime.time(12, 30)),
    "time": ("12:30", pa.time64("us"), datetime.time(12, 30)),
    "decimal": (decimal.Decimal("12345678.90"), pa.decimal128(10, 2), decimal.Decimal("12345678.90")),
    "trailing_zeros": (decimal.Decimal("1.5000"), pa.decimal128(3, 2), decimal.Decimal("1.50")),
    "float_in_decimal": (0.1, pa.decimal128(10, 2), decimal.Decimal("0.10")),
    "int_in_decimal": (3, pa.decimal128(3, 2), decimal.Decimal("3.00")),
    "text_in_decimal": ("1E+2", pa.decimal128(5, 2), decimal.Decimal("100.00")),
    "zero": (0.0, pa.decimal128(2, 2), decimal.Decimal("0.00")),
    "list": ([1, 2.0, None], pa.list_(pa.int64()), [1, 2, None]),
    "list_of_dates": (["2013-07-01"], pa.list_(pa.date32()), [NOON.date()]),
    "struct": ({"theX": "1"}, pa.struct([("the_x", pa.int64())]), {"the_x": 1}),
    "list_of_structs": (
        [{"x": 1}, {}],
        pa.list_(pa.struct([("x", pa.float64())])),
        [{"x": 1.0}, {"x": None}],
    ),
    "map": ({"a": 1}, pa.map_(pa.string(), pa.int64()), [("a", 1)]),
}

BAD: dict[str, tuple[object, pa.DataType, str]] = {
    "text_in_float": ("abc", pa.float64(), "'abc' is not a double"),
    "fraction_in_int": (1.5, pa.int64(), "1.5 is not a long (it has a fraction)"),
    "fraction_text_in_int": ("1.5", pa.int64(), "is not a long (it has a fraction)"),
    "hexadecimal_in_int": ("0x10", pa.int64(), "'0x10' is not a long"),
    "leading_zeros_in_int": ("007", pa.int64(), "'007' is not a long (text with leading zeros is not a number"),
    "leading_zeros_in_float": ("-007.5", pa.float64(), "(text with leading zeros is not a number"),
    "leading_zeros_in_decimal": ("00", pa.decimal128(5, 2), "(text with leading zeros is not a number"),
    "full_width_in_int": ("\uff11\uff12", pa.int64(), "is not a long"),
    "full_width_in_float": ("\uff11\uff12", pa.float64(), "is not a double"),
    "full_width_in_decimal": ("\u0661", pa.decimal128(5, 2), "is not a decimal(5, 2)"),
    "underscore_in_decimal": ("1_000", pa.decimal128(5, 0), "is not a decimal(5, 0)"),
    "huge_exponent": ("1e999999", pa.int64(), "is not a long (it is too large)"),
    "offset_in_time": ("12:00+05:00", pa.time64("us"), "is not a time (it has an offset from UTC"),
    "aware_time": (datetime.time(12, tzinfo=NEW_YORK), pa.time64("us"), "(it has an offset from UTC"),
    "midnight_elsewhere": ("2024-01-01T05:00+05:00", pa.date32(), "is not a date (it has a time of day)"),
    "nan_in_int": (math.nan, pa.int64(), "nan is not a long"),
    "bool_in_int": (True, pa.int64(), "True is not a long"),
    "too_large": (2**31, pa.int32(), "2147483648 is not an int (it is too large)"),
    "far_too_large": (2**70, pa.int64(), "is not a long (it is too large)"),
    "bool_in_float": (True, pa.float64(), "True is not a double"),
    "lost_digits": (2**60 + 1, pa.float64(), "is not a double (it would lose digits)"),
    "float32_overflow": (1e300, pa.float32(), "1e+300 is not a float"),
    "int_in_bool": (1, pa.bool_(), "1 is not a boolean"),
    "yes_in_bool": ("yes", pa.bool_(), "'yes' is not a boolean"),
    "epoch": (1372680000, TZ, "1372680000 is not a timestamptz (turn numbers into datetimes"),
    "no_date": ("yesterday", NAIVE, "'yesterday' is not a timestamp"),
    "time_in_date": (NOON, pa.date32(), "is not a date (it has a time of day)"),
    "number_in_date": (15000, pa.date32(), "15000 is not a date"),
    "rounding": (
        decimal.Decimal("1.234"),
        pa.decimal128(5, 2),
        "is not a decimal(5, 2) (it has more digits than the type holds)",
    ),
    "digits": (decimal.Decimal("1234.5"), pa.decimal128(5, 2), "(it has more digits than the type holds)"),
    "float_digits": (
        0.125,
        pa.decimal128(5, 2),
        "0.125 is not a decimal(5, 2) (it has more digits than the type holds)",
    ),
    "nan_in_decimal": (math.nan, pa.decimal128(5, 2), "nan is not a decimal(5, 2)"),
    "no_unicode": ("a\ud800", pa.string(), "is not a string (it is not valid Unicode)"),
    "bytes_in_text": (b"\xff", pa.string(), "is not a string"),
    "object": (object(), pa.string(), "is not a string (it has no text of its own)"),
    "object_in_json": ([object()], pa.string(), "is not a string"),
    "bytes_in_json": ([b"\xff"], pa.string(), "is not a string"),
    "two_names_of_one_text": ({1: "a", "1": "b"}, pa.string(), "is not a string"),
    "before_the_first_year": (
        datetime.datetime(1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
        TZ,
        "",
    ),
    "text_in_list": ("ab", pa.list_(pa.string()), "'ab' is not a list<string>"),
    "inner": ([1, "x"], pa.list_(pa.int64()), "'x' is not a long"),
    "list_in_struct": ([1], pa.struct([("x", pa.int64())]), "[1] is not a struct<x: long>"),
}


@pytest.mark.parametrize(("value", "target", "expected"), GOOD.values(), ids=GOOD)
def test_everyday_values_are_loaded_exactly(value: object, target: pa.DataType, expected: object) -> None:
    assert _one(value, target) == expected


@pytest.mark.parametrize(("value", "target", "expected"), GOOD.values(), ids=GOOD)
def test_one_bad_value_does_not_change_what_becomes_of_the_others(
    value: object, target: pa.DataType, expected: object
) -> None:
    """The fast path is all or nothing for a column; both paths must agree."""
    (batch,) = _batches([{"x": value}, {"x": object()}, {"x": None}], pa.schema([("x", target)]))
    assert batch.rows["x"].to_pylist() == [expected, None]
    assert len(batch.rejected) == 1


@pytest.mark.parametrize(("value", "target", "reason"), BAD.values(), ids=BAD)
def test_a_value_that_does_not_fit_rejects_its_row_with_the_reason(
    value: object, target: pa.DataType, reason: str
) -> None:
    (batch,) = _batches([{"k": 1, "x": value}, {"k": 2, "x": None}], pa.schema([("k", pa.int64()), ("x", target)]))
    assert batch.rows.to_pylist() == [{"k": 2, "x": None}]
    ((row, (why,)),) = batch.rejected
    assert json.loads(row)["k"] == 1
    assert why.startswith("column `x`: ")
    assert reason in why


def _extension(name: Any, storage: pa.Array) -> pa.Array:
    return pa.ExtensionArray.from_storage(name, storage)


_ARROW_VALUES = {
    "bool8": (_extension(pa.bool8(), pa.array([1, 0, None], pa.int8())), pa.bool_(), [True, False, None]),
    "bool8_in_text": (_extension(pa.bool8(), pa.array([1, None], pa.int8())), pa.string(), ["true", None]),
    "json": (_extension(pa.json_(), pa.array(['{"a": 1}'])), pa.string(), ['{"a": 1}']),
    "int64": (pa.array([1, None]), pa.int32(), [1, None]),
    "uint64": (pa.array([2**63, None], pa.uint64()), pa.decimal128(20, 0), [decimal.Decimal(2**63), None]),
    "int_to_small_decimal": (pa.array([123]), pa.decimal128(5, 2), [decimal.Decimal("123.00")]),
    "nanoseconds": (
        pa.array([1_000_000_001, -1], pa.timestamp("ns")),
        NAIVE,
        [datetime.datetime(1970, 1, 1, 0, 0, 1), datetime.datetime(1969, 12, 31, 23, 59, 59, 999999)],
    ),
    "inner_nanoseconds": (
        pa.array([[-1]], pa.list_(pa.timestamp("ns"))),
        pa.list_(NAIVE),
        [[datetime.datetime(1969, 12, 31, 23, 59, 59, 999999)]],
    ),
    "time_nanoseconds": (pa.array([1_999], pa.time64("ns")), pa.time64("us"), [datetime.time(0, 0, 0, 1)]),
    "floats_in_text": (pa.array([1.0, None, 2.5]), pa.string(), ["1", None, "2.5"]),
    "numbers_of_text": (pa.array(["1.5", "nan"]).filter(pa.array([True, False])), pa.float64(), [1.5]),
    "midnight_in_its_own_zone": (
        pa.array([NOON.replace(hour=4, tzinfo=UTC)]).cast(pa.timestamp("us", "America/New_York")),
        pa.date32(),
        [NOON.date()],
    ),
    "zone": (
        pa.array([NOON.replace(tzinfo=UTC)]).cast(pa.timestamp("us", "America/New_York")),
        NAIVE,
        [NOON],
    ),
    "dictionary": (pa.array(["a", None, "a"]).dictionary_encode(), pa.string(), ["a", None, "a"]),
    "run_ends": (pa.RunEndEncodedArray.from_arrays([2, 3], ["a", None]), pa.string(), ["a", "a", None]),
    "large_string": (pa.array(["a"], pa.large_string()), pa.string(), ["a"]),
    "large_list": (pa.array([[1]], pa.large_list(pa.int64())), pa.list_(pa.int64()), [[1]]),
    "null": (pa.nulls(2), TZ, [None, None]),
    "midnights": (pa.array([NOON.replace(hour=0)]), pa.date32(), [NOON.date()]),
    "text_timestamps": (pa.array(["2013-07-01T12:00:00Z", "2013-07-01 12:00:00"]), NAIVE, [NOON, NOON]),
    "nan": (pa.array([math.inf, None]), pa.float32(), [math.inf, None]),
    "struct": (pa.array([{"x": 1}, None]), pa.struct([("x", pa.int32()), ("y", NAIVE)]), [{"x": 1, "y": None}, None]),
    "uuid": (pa.array([uuid.UUID(int=1)]), pa.string(), ["00000000-0000-0000-0000-000000000001"]),
}


@pytest.mark.parametrize(("values", "target", "expected"), _ARROW_VALUES.values(), ids=_ARROW_VALUES)
def test_arrow_columns_are_cast_exactly(values: pa.Array, target: pa.DataType, expected: list[object]) -> None:
    assert [row["x"] for row in _rows(pa.table({"x": values}), pa.schema([("x", target)]))] == expected


@pytest.mark.parametrize(
    ("values", "target"),
    [
        (pa.array([1.5]), pa.int64()),
        (pa.array([True]), pa.int64()),
        (pa.array([1]), pa.bool_()),
        (pa.array([1]), TZ),
        (pa.array([NOON]), pa.date32()),
        (pa.array([1e300]), pa.float32()),
        (pa.array([decimal.Decimal("1.234")]), pa.decimal128(5, 2)),
        (pa.array([2**53 + 1]), pa.float64()),
        (pa.array(["007"]), pa.int64()),
        (pa.array(["007"]), pa.float64()),
        (pa.array([2**62], TZ), TZ),
        (pa.array([10**12], pa.timestamp("s")), NAIVE),
        (pa.array([10**7], pa.int32()).cast(pa.date32()), pa.date32()),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else str(value),
)
def test_an_arrow_value_is_rejected_rather_than_changed(values: pa.Array, target: pa.DataType) -> None:
    (batch,) = _batches(pa.table({"x": values}), pa.schema([("x", target)]))
    assert (batch.rows.num_rows, len(batch.rejected)) == (0, 1)


@pytest.mark.parametrize("ignored", ["", "1"])
def test_zones_are_kept_whatever_pandera_tells_arrow(ignored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing pandera sets the variable; Arrow then reads 12:00 in New York as 12:00 UTC."""
    monkeypatch.setenv("PYARROW_IGNORE_TIMEZONE", ignored)
    local = NOON.replace(tzinfo=NEW_YORK)
    schema = pa.schema([("x", TZ), ("l", pa.list_(NAIVE))])
    expected = {"x": NOON.replace(hour=17, tzinfo=UTC), "l": [NOON.replace(hour=17)]}
    for declared in (schema, None):
        (row,) = _rows([{"x": local, "l": [local]}], declared)
        assert row["x"] == expected["x"]
        assert declared is None or row == expected


def test_dates_and_datetimes_in_one_column_lose_no_time_of_day() -> None:
    assert _rows([{"x": NOON.date()}, {"x": NOON}], pa.schema([("x", NAIVE)])) == [
        {"x": NOON.replace(hour=0)},
        {"x": NOON},
    ]


def test_nan_is_kept_from_dicts_and_arrow_and_polars_and_is_null_from_pandas() -> None:
    schema = pa.schema([("x", pa.float64())])
    for fetched in ([{"x": math.nan}], pa.table({"x": [math.nan]}), pl.DataFrame({"x": [math.nan]})):
        assert math.isnan(_rows(fetched, schema)[0]["x"])
    assert _rows(pd.DataFrame({"x": [math.nan]}), schema) == [{"x": None}]


def test_ints_that_pandas_made_floats_are_ints_again() -> None:
    frame = pd.DataFrame({"id": [1, None], "name": ["a", None]})
    assert _rows(frame) == [{"id": 1, "name": "a"}, {"id": None, "name": None}]


def test_pandas_objects_are_read_value_by_value() -> None:
    frame = pd.DataFrame({"id": pd.Series([1, "2", None], dtype=object), "name": pd.Series([{"a": 1}, 5, math.nan])})
    assert _rows(frame) == [{"id": 1, "name": '{"a": 1}'}, {"id": 2, "name": "5"}, {"id": None, "name": None}]


def test_pandas_categories_and_zones_are_read() -> None:
    frame = pd.DataFrame({"c": pd.Categorical(["a"]), "t": pd.to_datetime(["2013-07-01 12:00"]).tz_localize("UTC")})
    assert _rows(frame, pa.schema([("c", pa.string()), ("t", TZ)])) == [{"c": "a", "t": NOON.replace(tzinfo=UTC)}]


def test_periods_and_intervals_of_pandas_are_read_as_their_text() -> None:
    frame = pd.DataFrame({"p": pd.PeriodIndex(["2024-01", None], freq="M"), "i": pd.interval_range(0, 2)})
    assert _rows(frame, None) == [{"p": "2024-01", "i": "(0, 1]"}, {"p": None, "i": "(1, 2]"}]


UNREADABLE: dict[str, Any] = {
    "extension": lambda: pa.table({"v": _extension(pa.opaque(pa.string(), "point", "db"), pa.array(["x"]))}),
    "inner_extension": lambda: pa.table({"v": pa.nulls(1, pa.list_(pa.opaque(pa.string(), "point", "db")))}),
    "period": lambda: pa.Table.from_pandas(pd.DataFrame({"v": pd.period_range("2024-01", periods=1, freq="M")})),
    "polars_object": lambda: pl.DataFrame({"v": [object()]}, schema={"v": pl.Object}),
    "polars_int128": lambda: pl.DataFrame({"v": [1]}, schema={"v": pl.Int128}),
}


@pytest.mark.parametrize("schema", [None, pa.schema([("v", pa.string())])], ids=["inferred", "declared"])
@pytest.mark.parametrize("fetched", UNREADABLE.values(), ids=UNREADABLE)
def test_a_column_whose_values_cannot_be_read_is_refused_by_its_type(fetched: Any, schema: pa.Schema | None) -> None:
    with pytest.raises(SchemaMismatchError, match=r"`v`.*(opaque|period|Object|Int128)") as caught:
        _batches(fetched(), schema)
    assert "before" in caught.value.fix


def test_all_reasons_of_a_row_are_reported_together() -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.bool_()), pa.field("c", pa.int64(), nullable=False)])
    (batch,) = _batches([{"a": "x", "b": 2}], schema)
    assert batch.rejected[0][1] == [
        "column `a`: 'x' is not a long",
        "column `b`: 2 is not a boolean",
        "column `c`: must not be null",
    ]


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_every_row_is_loaded_or_rejected_exactly_once(limit: int) -> None:
    rows = [{"id": n if n % 5 else "bad", "name": str(n)} for n in range(100)]
    batches = _batches(iter(rows), rows_per_batch=limit)
    assert sum(batch.rows.num_rows for batch in batches) == 80
    assert [json.loads(r[0])["name"] for batch in batches for r in batch.rejected] == [str(n) for n in range(0, 100, 5)]


def test_a_rejected_row_is_json_whatever_it_holds() -> None:
    row = {
        "id": "x",
        "name": "🌦️",
        "n": math.nan,
        "t": NOON,
        "d": decimal.Decimal("1.10"),
        "b": b"\xff",
        "s": {1, 2},
    }
    (batch,) = _batches([row], policy="drop_extra")
    got = json.loads(batch.rejected[0][0])
    assert (got["name"], got["n"], got["t"], got["d"]) == ("🌦️", "nan", "2013-07-01T12:00:00", "1.10")


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("userId", "user_id"),
        ("UserID", "user_id"),
        ("HTTPStatus", "http_status"),
        ("user id", "user_id"),
        ("user-id", "user_id"),
        ("Temp (°F)", "temp_f"),
        ("_dlt_id", "_dlt_id"),
        ("order", "order"),
        ("Größe", "größe"),
        ("already_snake", "already_snake"),
        ("a1B2", "a1_b2"),
        ("Cafe\u0301", "café"),
    ],
)
def test_a_name_in_snake_case(name: str, expected: str) -> None:
    assert snake_case(name) == expected


@pytest.mark.parametrize("name", ["userId", "UserID", "user id", "user_id", "USER_ID"])
def test_names_of_the_source_match_the_declared_snake_case(name: str) -> None:
    assert _rows([{name: 1}], pa.schema([("user_id", pa.int64())])) == [{"user_id": 1}]


def test_an_exact_name_wins() -> None:
    schema = pa.schema([("user_id", pa.int64()), ("userId", pa.int64()), ("order", pa.int64())])
    assert _rows([{"userId": 1, "user_id": 2, "order": 3}], schema) == [{"user_id": 2, "userId": 1, "order": 3}]


@pytest.mark.parametrize(
    "fetched",
    [
        [{"userId": 1, "user_id": 2}],
        [{"userId": 1}, {"UserId": 2}],
        [pa.table({"userId": [1]}), pa.table({"user_id": [2]})],
        pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["user_id", "user_id"]),
        pd.DataFrame({"user_id": [1]}, index=pd.Index([2], name="user_id")),
    ],
    ids=["one_row", "two_rows", "two_tables", "twice", "index"],
)
@pytest.mark.parametrize("schema", [pa.schema([("user_id", pa.int64())]), None], ids=["declared", "inferred"])
def test_two_names_that_fall_on_one_column_are_refused(fetched: object, schema: pa.Schema | None) -> None:
    with pytest.raises(SchemaMismatchError, match="both the column `user_id`"):
        _batches(fetched, schema)


def test_columns_of_cascade_in_the_rows_of_another_table_are_left_out() -> None:
    rows = {"id": 1, "name": "a", "_cascade_ingested_at": NOON, "_cascade_partition": "x"}
    assert _rows([rows]) == ROWS[:1]
    assert _rows(pa.Table.from_pylist([rows]), None) == ROWS[:1]


def test_strict_names_every_column_that_the_table_does_not_have() -> None:
    with pytest.raises(SchemaMismatchError, match="`more`, `andMore`") as caught:
        _batches([{"id": 1, "more": 2}, {"andMore": 3}])
    assert "additive" in caught.value.fix
    assert "drop_extra" in caught.value.fix


def test_drop_extra_leaves_columns_out_and_says_which() -> None:
    (batch,) = _batches([{"id": 1, "more": 2, "andMore": 3}], policy="drop_extra")
    assert batch.rows.to_pylist() == [{"id": 1, "name": None}]
    assert batch.extra == {"more", "andMore"}


def test_additive_adds_columns_after_the_declared_ones_under_snake_case_names() -> None:
    (batch,) = _batches([{"moreText": "x", "id": 1, "Nothing": None}], policy="additive")
    assert batch.rows.to_pylist() == [{"id": 1, "name": None, "more_text": "x"}]
    assert batch.extra == frozenset()


A = pa.struct([("a", pa.int64())])
AB = pa.struct([("a", pa.int64()), ("b", pa.string())])
NEW_FIELDS: dict[str, tuple[pa.DataType, object, pa.DataType, list[str]]] = {
    "struct": (A, {"a": 3, "b": "x"}, AB, ["v.b"]),
    "list": (pa.list_(A), [{"a": 3, "b": "x"}, {"a": 4}], pa.list_(AB), ["v.b"]),
    "map": (pa.map_(pa.string(), A), [("k", {"a": 3, "b": "x"})], pa.map_(pa.string(), AB), ["v.b"]),
    "deep": (pa.struct([("s", A)]), {"s": {"a": 3, "b": "x"}}, pa.struct([("s", AB)]), ["v.s.b"]),
    "null": (A, {"a": 3, "b": None}, A, ["v.b"]),
}


@pytest.mark.parametrize("policy", ["additive", "strict", "drop_extra"])
@pytest.mark.parametrize("as_arrow", [True, False], ids=["arrow", "dicts"])
@pytest.mark.parametrize("case", NEW_FIELDS.values(), ids=NEW_FIELDS)
def test_a_new_field_inside_a_column_follows_the_policy(
    case: tuple[pa.DataType, Any, pa.DataType, list[str]], as_arrow: bool, policy: Policy
) -> None:
    have, value, becomes, paths = case
    given = becomes if becomes != have else AB
    rows: Any = pa.table({"v": pa.array([value], given)})
    if not as_arrow:
        rows = [{"v": dict(value) if pa.types.is_map(have) else value}]
    schema = pa.schema([("v", have)])
    if policy == "strict":
        with pytest.raises(SchemaMismatchError, match=rf"`{paths[0]}`"):
            _batches(rows, schema, policy)
        return
    (batch,) = _batches(rows, schema, policy)
    target = becomes if policy == "additive" else have
    assert batch.rows.schema.field("v").type == target
    assert batch.rows["v"].to_pylist() == _cut(pa.array([value], given), target)
    assert batch.extra == frozenset(paths if policy == "drop_extra" else [])


def _cut(values: pa.Array, target: pa.DataType) -> Any:
    """The values without the fields that the target has not."""

    def cut(value: Any, kind: pa.DataType) -> Any:
        if pa.types.is_struct(kind):
            return {field.name: cut(value[field.name], field.type) for field in kind}
        if pa.types.is_list(kind):
            return [cut(item, kind.value_type) for item in value]
        return [(key, cut(item, kind.item_type)) for key, item in value] if pa.types.is_map(kind) else value

    return [cut(value, target) for value in values.to_pylist()]


def test_two_fields_that_fall_on_one_are_refused() -> None:
    with pytest.raises(SchemaMismatchError, match=r"`v.theA` and `v.TheA` are both the field `v.the_a`"):
        _batches([{"v": {"theA": 1, "TheA": 2}}], pa.schema([("v", pa.struct([("the_a", pa.int64())]))]))
    for name in ("a", "A"):
        twice = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", name])
        with pytest.raises(SchemaMismatchError, match=r"are both the field"):
            _batches(pa.table({"v": twice}), None)


def test_a_column_keeps_the_type_of_the_first_batch_with_a_value() -> None:
    rows = [{"x": None, "y": 1}, {"x": 1}, {"x": 2.0}, {"x": 2.5}]
    batches = _batches(rows, None, rows_per_batch=1)
    assert [str(batch.rows.schema.field("x").type) for batch in batches[1:]] == ["int64"] * 3
    assert [batch.rows.column_names for batch in batches] == [["y"], ["y", "x"], ["y", "x"], ["y", "x"]]
    assert batches[3].rejected[0][1] == ["column `x`: 2.5 is not a long (it has a fraction)"]


INFERRED: dict[str, tuple[list[object], pa.DataType]] = {
    "ints": ([1, None], pa.int64()),
    "ints_and_floats": ([1, 2.5], pa.float64()),
    "naive": ([NOON], NAIVE),
    "aware": ([NOON.replace(tzinfo=NEW_YORK)], TZ),
    "date": ([NOON.date()], pa.date32()),
    "date_and_datetime": ([NOON.date(), NOON], pa.string()),
    "iso_stays_text": (["2013-07-01"], pa.string()),
    "bool_and_int": ([1.0, True], pa.string()),
    "decimal": ([decimal.Decimal("1.5"), 2], pa.decimal128(38, 9)),
    "small_decimal": ([decimal.Decimal("1E-12")], pa.decimal128(38, 12)),
    "large_decimal": ([decimal.Decimal(10**30)], pa.decimal128(38, 7)),
    "decimals": ([[decimal.Decimal("1.5")]], pa.list_(pa.decimal128(38, 9))),
    "dict": ([{"a": 1}, {"b": 2}], pa.string()),
    "list": ([["a"], None], pa.list_(pa.string())),
    "empty_list": ([[]], pa.string()),
    "mixed_list": ([[1, "a"]], pa.string()),
    "pendulum": ([pendulum.datetime(2013, 7, 1, tz="Europe/Paris")], TZ),
    "pendulum_naive": ([pendulum.naive(2013, 7, 1)], NAIVE),
    "pendulum_date": ([pendulum.date(2013, 7, 1), NOON.date()], pa.date32()),
    "pendulum_time": ([pendulum.time(12)], pa.time64("us")),
    "aware_time": ([datetime.time(12, tzinfo=NEW_YORK)], pa.string()),
    "set": ([{1}], pa.string()),
    "uuid": ([uuid.UUID(int=1)], pa.string()),
    "huge": ([2**70], pa.string()),
    "before_the_first_year": ([datetime.datetime(1, 1, 1, tzinfo=datetime.timezone.max)], pa.string()),
    "ints_of_a_driver": ([Int64(1), 2], pa.int64()),
    "dataclass": ([Person(1, "a")], pa.string()),
    "byte_arrays": ([bytearray(b"a"), b"b", memoryview(b"c")], pa.binary()),
    "timedelta": ([datetime.timedelta(1)], pa.string()),
    "enums_of_text": ([State.A, "b"], pa.string()),
    "enums_of_ints": ([Level.LOW, 2], pa.int64()),
    "pandas": ([pd.Timestamp(NOON)], NAIVE),
}


@pytest.mark.parametrize(("values", "expected"), INFERRED.values(), ids=INFERRED)
def test_undeclared_columns_get_a_type_that_holds_all_their_values(values: list[object], expected: pa.DataType) -> None:
    (batch,) = _batches([{"x": value} for value in values], None)
    assert batch.rows.schema.field("x").type == expected
    assert (batch.rows.num_rows, batch.rejected) == (len(values), [])


def test_undeclared_arrow_columns_keep_their_type_as_iceberg_stores_it() -> None:
    table = pa.table({"a": pa.array([1], pa.uint32()), "s": pa.array([{"x": 1}]), "n": pa.nulls(1), "e": [[]]})
    (batch,) = _batches(table, None)
    assert batch.rows.schema == pa.schema(
        [("a", pa.int64()), ("s", pa.struct([("x", pa.int64())])), ("e", pa.string())]
    )


WIDER: dict[str, tuple[pa.DataType, Any, pa.DataType]] = {
    "int": (pa.int32(), pa.array([2**40]), pa.int64()),
    "float": (pa.float32(), pa.array([0.1]), pa.float64()),
    "decimals": (pa.decimal128(5, 2), [decimal.Decimal("123456.78")], pa.decimal128(8, 2)),
    "arrow_decimals": (pa.decimal128(5, 2), pa.array([Decimal("1.00")], pa.decimal128(12, 2)), pa.decimal128(12, 2)),
    "ints_in_decimals": (pa.decimal128(5, 2), [12345678], pa.decimal128(21, 2)),
}


@pytest.mark.parametrize(("have", "values", "becomes"), WIDER.values(), ids=WIDER)
def test_an_undeclared_column_widens_for_later_rows_and_a_declared_one_does_not(
    have: pa.DataType, values: Any, becomes: pa.DataType
) -> None:
    rows = [{"x": value} for value in values] if isinstance(values, list) else pa.table({"x": values})
    schema = pa.schema([("x", have)])
    (batch,) = _batches(rows, schema, inferred={"x"})
    assert batch.rows.schema.field("x").type == becomes
    assert (batch.rows["x"].to_pylist(), batch.rejected) == (pa.array(values).to_pylist(), [])
    (batch,) = _batches(rows, schema)
    assert batch.rows.schema == schema


def test_digits_after_the_point_that_a_column_has_no_room_for_are_rejected_and_not_rounded() -> None:
    (batch,) = _batches([{"x": Decimal("0.125")}], pa.schema([("x", pa.decimal128(5, 2))]), inferred={"x"})
    assert batch.rejected[0][1] == [
        "column `x`: Decimal('0.125') is not a decimal(5, 2) (it has more digits than the type holds)"
    ]


def test_rows_without_any_value_are_rejected_when_no_column_is_known() -> None:
    (batch,) = _batches([{"x": None}, {}], None)
    assert batch.rows.num_rows == 0
    assert [why for _, why in batch.rejected] == [["no column has a value yet"]] * 2


def test_no_library_is_imported_for_rows_that_do_not_need_it() -> None:
    import subprocess

    code = (
        "import sys; from cascade.ingestion.rows import FetchContext, to_batches; "
        "list(to_batches([{'a': 1}], schema=None, policy='strict', context=FetchContext())); "
        "print([m for m in ('dlt', 'polars', 'pandera') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_json_text_of_keys_that_are_no_text() -> None:
    assert json.loads(json_text({(1, 2): {3: pd.NaT}})) == {"(1, 2)": {"3": None}}
