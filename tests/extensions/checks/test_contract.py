"""The promises of contracts by Pandera."""

import datetime
import decimal
import logging
import math
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pandera.pandas as pap
import pandera.polars as plp
import polars as pl
import pyarrow as pa
import pytest
from pandera.typing import Series

from cascade.errors import ContractError, DefinitionError
from cascade.iceberg.schema import arrow_schema
from cascade_checks.contract import PanderaContract


class PandasWeather(pap.DataFrameModel):
    """Weather, in the words of pandas."""

    station: Series[str] = pap.Field(isin=["JFK", "LGA"])
    hour: int = pap.Field(ge=0, le=23, unique=True)
    temp: float = pap.Field(ge=-80, nullable=True)
    low: float = pap.Field(nullable=True)

    class Config:
        strict = "filter"
        unique = ["station", "hour"]  # noqa: RUF012
        coerce = True

    @pap.check("station")
    def three_letters(cls, station: Series[str]) -> Series[bool]:  # noqa: N805
        return station.str.len() == 3

    @pap.dataframe_check
    def low_is_lower(cls, frame: pd.DataFrame) -> Series[bool]:  # noqa: N805
        return ~(frame["low"] > frame["temp"])


class PolarsWeather(plp.DataFrameModel):
    """Weather, in the words of polars."""

    station: str = plp.Field(isin=["JFK", "LGA"])
    hour: int = plp.Field(ge=0, le=23, unique=True)
    temp: float = plp.Field(ge=-80, nullable=True)
    low: float = plp.Field(nullable=True)

    class Config:
        strict = "filter"
        unique = ["station", "hour"]  # noqa: RUF012
        coerce = True

    @plp.check("station")
    def three_letters(cls, data: plp.PolarsData) -> pl.LazyFrame:  # noqa: N805
        return data.lazyframe.select(pl.col(data.key).str.len_chars() == 3)

    @plp.dataframe_check
    def low_is_lower(cls, data: plp.PolarsData) -> pl.LazyFrame:  # noqa: N805
        return data.lazyframe.select(~(pl.col("low") > pl.col("temp")))


BOTH = pytest.mark.parametrize("model", [PandasWeather, PolarsWeather], ids=["pandas", "polars"])


def _check(model: Any, rows: list[dict[str, Any]]) -> dict[int, list[str]]:
    contract = PanderaContract(model)
    table = pa.Table.from_pylist(rows, schema=arrow_schema(contract.schema))
    broken = contract.check(table)
    contract.check_together(lambda: table, nothing_came=False)
    return broken


def _weather(**values: object) -> dict[str, object]:
    return {"station": "JFK", "hour": 1, "temp": 60.0, "low": 50.0} | values


@BOTH
def test_a_contract_knows_name_policy_columns_and_what_is_unique(model: Any) -> None:
    contract = PanderaContract(model)
    assert contract.name == model.__name__
    assert contract.policy == "drop_extra"
    assert contract.schema.find_type("hour").is_primitive
    assert contract.unique == [("hour",), ("station", "hour")]


@pytest.mark.parametrize(("strict", "policy"), [(False, "additive"), (True, "strict"), ("filter", "drop_extra")])
def test_strictness_is_the_schema_policy(strict: Any, policy: str) -> None:
    assert PanderaContract(pap.DataFrameSchema({"a": pap.Column(int)}, strict=strict)).policy == policy


@BOTH
def test_rows_that_keep_the_contract_pass(model: Any) -> None:
    assert _check(model, [_weather(), _weather(temp=None, low=None), _weather()]) == {}


@BOTH
def test_no_rows_break_nothing(model: Any) -> None:
    assert _check(model, []) == {}


@BOTH
@pytest.mark.parametrize(
    ("values", "reasons"),
    [
        (
            {"temp": -999.0, "low": None},
            ["column `temp`: check greater_than_or_equal_to(-80) failed for -999.0"],
        ),
        ({"hour": 24}, ["column `hour`: check less_than_or_equal_to(23) failed for 24"]),
        ({"station": None}, ["column `station`: must not be null"]),
        ({"hour": None}, ["column `hour`: must not be null"]),
        ({"low": 70.0}, ["check low_is_lower failed"]),
        (
            {"station": "X", "hour": -1},
            [
                "column `station`: check isin(['JFK', 'LGA']) failed for 'X'",
                "column `station`: check three_letters failed for 'X'",
                "column `hour`: check greater_than_or_equal_to(0) failed for -1",
            ],
        ),
    ],
    ids=str,
)
def test_every_reason_of_a_row_is_named(model: Any, values: dict[str, object], reasons: list[str]) -> None:
    broken = _check(model, [_weather(), _weather(**values), _weather()])
    assert list(broken) == [1]
    assert sorted(broken[1]) == sorted(reasons)


@BOTH
def test_all_rows_are_checked_however_many_fail(model: Any) -> None:
    broken = _check(model, [_weather(temp=-999.0 if n % 2 else 60.0) for n in range(1000)])
    assert sorted(broken) == list(range(1, 1000, 2))


@BOTH
def test_duplicates_are_not_the_business_of_a_batch(model: Any) -> None:
    assert _check(model, [_weather(), _weather()]) == {}


@pytest.mark.parametrize("api", [pap, plp], ids=["pandas", "polars"])
def test_nan_is_missing_as_pandera_has_it(api: Any) -> None:
    schema = api.DataFrameSchema({"x": api.Column(float), "y": api.Column(float, nullable=True)})
    assert _check(schema, [{"x": math.nan, "y": math.nan}]) == {0: ["column `x`: must not be null"]}


@pytest.mark.parametrize("api", [pap, plp], ids=["pandas", "polars"])
def test_a_column_that_may_be_absent_may_be_null(api: Any) -> None:
    assert _check(api.DataFrameSchema({"x": api.Column(int, required=False)}), [{"x": None}]) == {}


_NOW = datetime.datetime(2013, 7, 1, 12, 30, 0, 123456)
_AWARE = _NOW.replace(tzinfo=datetime.UTC)
_DAY = _NOW.date()
TYPED: dict[str, tuple[Any, Any, Any, Any]] = {
    "int": (pap, int, 1, lambda s: s.dtype == "int64"),
    "int32": (pap, np.int32, 1, lambda s: s.dtype == "int32"),
    "uint64": (pap, np.uint64, 2**63, lambda s: s >= 0),
    "nullable_int": (pap, pd.Int64Dtype, 1, lambda s: s.dtype == "Int64"),
    "nullable_int8": (pap, pd.Int8Dtype, 1, lambda s: s + 1 == 2),
    "nullable_bool": (pap, pd.BooleanDtype, True, lambda s: s.dtype == "boolean"),
    "nullable_float": (pap, pd.Float64Dtype, 1.5, lambda s: s.dtype == "Float64"),
    "bool": (pap, bool, True, lambda s: s),
    "str": (pap, str, "🌦️", lambda s: s.str.len() > 0),
    "string_dtype": (pap, pd.StringDtype, "x", lambda s: s.str.len() == 1),
    "category": (pap, pd.CategoricalDtype(["a", "b"]), "a", lambda s: s.cat.codes == 0),
    "naive": (pap, pd.Timestamp, _NOW, lambda s: s.dt.microsecond == 123456),
    "far_naive": (pap, pd.Timestamp, datetime.datetime(9999, 1, 1), lambda s: s.dt.year == 9999),
    "aware": (pap, pd.DatetimeTZDtype("us", "UTC"), _AWARE, lambda s: s.dt.hour == 12),
    "aware_local": (pap, pd.DatetimeTZDtype("ns", "America/New_York"), _AWARE, lambda s: s.dt.hour == 8),
    "date": (pap, datetime.date, _DAY, lambda s: s.map(type) == datetime.date),
    "decimal": (pap, pap.Decimal(10, 2), decimal.Decimal("1.50"), lambda s: s == decimal.Decimal("1.5")),
    "arrow_decimal": (pap, pd.ArrowDtype(pa.decimal128(5, 2)), decimal.Decimal("1.50"), lambda s: s > 1),
    "arrow_list": (pap, pd.ArrowDtype(pa.list_(pa.int64())), [1, 2], lambda s: s.list.len() == 2),
    "python_list": (pap, list[int], [1, 2], lambda s: s.map(len) == 2),
    "polars_naive": (plp, datetime.datetime, _NOW, lambda c: c.dt.microsecond() == 123456),
    "polars_aware": (plp, pl.Datetime("us", "UTC"), _AWARE, lambda c: c.dt.hour() == 12),
    "polars_date": (plp, pl.Date, _DAY, lambda c: c.dt.year() == 2013),
    "polars_decimal": (plp, pl.Decimal(10, 2), decimal.Decimal("1.50"), lambda c: c > 1),
    "polars_list": (plp, pl.List(pl.Int64), [1, 2], lambda c: c.list.len() == 2),
    "polars_array": (plp, pl.Array(pl.Int64, 2), [1, 2], lambda c: c.arr.sum() == 3),
    "polars_struct": (plp, pl.Struct({"x": pl.Int64}), {"x": 1}, lambda c: c.struct.field("x") == 1),
    "polars_enum": (plp, pl.Enum(["a", "b"]), "a", lambda c: c == "a"),
    "polars_categorical": (plp, pl.Categorical, "a", lambda c: c == "a"),
    "polars_uint8": (plp, pl.UInt8, 255, lambda c: c == 255),
}


@pytest.mark.parametrize(("api", "dtype", "value", "check"), TYPED.values(), ids=TYPED)
@pytest.mark.parametrize("nulls", [False, True], ids=["full", "with_nulls"])
def test_checks_see_the_type_of_the_model_and_cast_rows_never_fail_for_it(
    api: Any, dtype: Any, value: object, check: Any, nulls: bool
) -> None:
    seen: list[object] = []

    def function(data: Any) -> Any:
        seen.append(data)
        return check(data) if api is pap else data.lazyframe.select(check(pl.col(data.key)))

    schema = api.DataFrameSchema({"x": api.Column(dtype, api.Check(function), nullable=True, coerce=True)})
    nulls = nulls and dtype not in (int, np.int32)  # a plain int cannot say null
    assert _check(schema, [{"x": value}, *([{"x": None}] if nulls else [])]) == {}
    assert seen


@pytest.mark.parametrize(
    ("schema", "value", "reason"),
    [
        (pap.DataFrameSchema({"x": pap.Column(np.int8)}), 300, "column `x`: 300 does not fit `int8`"),
        (plp.DataFrameSchema({"x": plp.Column(pl.UInt8)}), -1, "column `x`: -1 does not fit `UInt8`"),
        (
            pap.DataFrameSchema({"x": pap.Column(pd.CategoricalDtype(["a", "b"]))}),
            "c",
            "column `x`: 'c' is not one of ['a', 'b']",
        ),
        (
            plp.DataFrameSchema({"x": plp.Column(pl.Enum(["a", "b"]))}),
            "c",
            "column `x`: 'c' is not one of ['a', 'b']",
        ),
    ],
    ids=["int8", "uint8", "category", "enum"],
)
def test_what_iceberg_cannot_say_of_a_type_is_checked(schema: Any, value: object, reason: str) -> None:
    assert _check(schema, [{"x": value}]) == {0: [reason]}


@pytest.mark.parametrize("nullable", [True, False])
def test_a_null_beside_ints_does_not_disturb_their_checks(nullable: bool) -> None:
    schema = pap.DataFrameSchema({"x": pap.Column(int, pap.Check.ge(0), nullable=nullable)})
    broken = _check(schema, [{"x": 2**60 + 1}, {"x": None}, {"x": -1}])
    assert broken[2] == ["column `x`: check greater_than_or_equal_to(0) failed for -1"]
    assert (1 in broken) is not nullable


@pytest.mark.parametrize(
    "schema",
    [
        pap.DataFrameSchema({"x": pap.Column(int)}, checks=pap.Check(lambda f: f["x"].sum() > 9, name="enough")),
        pap.DataFrameSchema({"x": pap.Column(int, pap.Check(lambda s: s.sum() > 9, name="enough"))}),
        plp.DataFrameSchema({"x": plp.Column(int, plp.Check(lambda d: False, name="enough"))}),
        plp.DataFrameSchema(
            {"x": plp.Column(int)},
            checks=plp.Check(lambda d: d.lazyframe.select(pl.col("x").sum() > 9), name="enough"),
        ),
    ],
    ids=["pandas_frame", "pandas_column", "polars_column", "polars_frame"],
)
def test_a_check_of_all_rows_together_fails_by_its_name(schema: Any) -> None:
    with pytest.raises(ContractError, match="Check enough failed for the 2 rows together"):
        _check(schema, [{"x": 1}, {"x": 2}])


def test_a_check_that_cannot_be_run_says_why() -> None:
    schema = pap.DataFrameSchema({"x": pap.Column(int, pap.Check(lambda s: s.nonsense, name="odd"))}, name="events")
    with pytest.raises(ContractError, match="Check odd cannot be run: AttributeError") as caught:
        _check(schema, [{"x": 1}])
    assert caught.value.where == "model `events`, column `x`"


@pytest.mark.parametrize("api", [pap, plp], ids=["pandas", "polars"])
def test_a_check_that_only_warns_is_logged_and_breaks_nothing(api: Any, caplog: pytest.LogCaptureFixture) -> None:
    schema = api.DataFrameSchema({"x": api.Column(int, api.Check.ge(0, raise_warning=True))})
    with caplog.at_level(logging.WARNING):
        assert _check(schema, [{"x": -1}]) == {}
    assert "greater_than_or_equal_to(0) failed" in caplog.text


def test_grouped_and_elementwise_checks_work() -> None:
    checks = [
        pap.Check(lambda value: value > 0, element_wise=True, name="positive"),
        pap.Check(lambda groups: groups["a"].sum() < 10, groupby="g", name="small"),
    ]
    schema = pap.DataFrameSchema({"x": pap.Column(int, checks), "g": pap.Column(str)})
    assert _check(schema, [{"x": 1, "g": "a"}, {"x": -1, "g": "b"}]) == {
        1: ["column `x`: check positive failed for -1"]
    }
    with pytest.raises(ContractError, match="small"):
        _check(schema, [{"x": 11, "g": "a"}, {"x": 1, "g": "b"}])


def test_a_model_that_would_change_rows_is_refused() -> None:
    schema = pap.DataFrameSchema(
        {"a": pap.Column(int, default=0), "b": pap.Column(str, parsers=pap.Parser(lambda s: s.str.strip()))}
    )
    with pytest.raises(DefinitionError, match=r"`a` \(default\), `b` \(parser\)"):
        PanderaContract(schema)


def test_coercion_changes_nothing() -> None:
    class Coerced(pap.DataFrameModel):
        at: Annotated[pd.DatetimeTZDtype, "s", "UTC"] = pap.Field(coerce=True)

        @pap.check("at")
        def precise(cls, at: Series[Any]) -> Series[bool]:  # noqa: N805
            return at.dt.microsecond == 123456

    assert _check(Coerced, [{"at": _AWARE}]) == {}


def test_a_long_value_is_shortened_in_the_reason() -> None:
    schema = pap.DataFrameSchema({"x": pap.Column(str, pap.Check.str_length(max_value=5))})
    ((reason,),) = _check(schema, [{"x": "y" * 1_000_000}]).values()
    assert len(reason) < 200
