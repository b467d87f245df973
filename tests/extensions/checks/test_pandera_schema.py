"""The promises of `cascade_checks.schema`."""

import datetime
import decimal
from typing import Annotated, Any, Optional

import numpy as np
import pandas as pd
import pandera.pandas as pap
import pandera.polars as plp
import polars as pl
import pyarrow as pa
import pytest
from pandera.typing import Series
from pyiceberg.schema import Schema

from cascade.errors import DefinitionError
from cascade.ingestion.contract import contract_of
from cascade_checks.schema import schema_from_pandera


def _types(schema: Schema) -> dict[str, str]:
    return {field.name: str(field.field_type) for field in schema.fields}


_PANDAS = {
    "int8": (np.int8, "int"),
    "int16": (np.int16, "int"),
    "int32": (np.int32, "int"),
    "int64": (int, "long"),
    "uint16": (np.uint16, "int"),
    "uint32": (np.uint32, "long"),
    "uint64": (np.uint64, "decimal(20, 0)"),
    "nullable_int": (pd.Int64Dtype, "long"),
    "nullable_int32": (pd.Int32Dtype, "int"),
    "nullable_uint32": (pd.UInt32Dtype, "long"),
    "float32": (np.float32, "float"),
    "float64": (float, "double"),
    "nullable_float": (pd.Float64Dtype, "double"),
    "string": (str, "string"),
    "nullable_string": (pd.StringDtype, "string"),
    "category": (pap.Category, "string"),
    "bool": (bool, "boolean"),
    "nullable_bool": (pd.BooleanDtype, "boolean"),
    "date": (datetime.date, "date"),
    "pandera_date": (pap.Date, "date"),
    "naive": (pd.Timestamp, "timestamp"),
    "datetime": (datetime.datetime, "timestamp"),
    "pandera_datetime": (pap.DateTime, "timestamp"),
    "aware": (Annotated[pd.DatetimeTZDtype, "us", "UTC"], "timestamptz"),
    "aware_elsewhere": (Annotated[pd.DatetimeTZDtype, "ns", "America/New_York"], "timestamptz"),
    "amount": (Annotated[pap.Decimal, 10, 2, None], "decimal(10, 2)"),
    "bytes": (bytes, "binary"),
    "list": (list[int], "list<long>"),
    "arrow_list": (Annotated[pd.ArrowDtype, pa.list_(pa.string())], "list<string>"),
    "arrow_struct": (pa.struct([("x", pa.int32())]), "struct<3: x: optional int>"),
    "arrow_timestamp": (pa.timestamp("ns", "UTC"), "timestamptz"),
    "series": (Series[float], "double"),
    "optional": (Optional[Series[int]], "long"),  # noqa: UP045  the older spelling is what many models have
    "optional_new": (int | None, "long"),
}

_POLARS = {
    "int8": (pl.Int8, "int"),
    "int64": (int, "long"),
    "uint32": (pl.UInt32, "long"),
    "uint64": (pl.UInt64, "decimal(20, 0)"),
    "float": (float, "double"),
    "string": (str, "string"),
    "categorical": (pl.Categorical, "string"),
    "enum": (pl.Enum(["a", "b"]), "string"),
    "bool": (bool, "boolean"),
    "date": (pl.Date, "date"),
    "naive": (datetime.datetime, "timestamp"),
    "naive_ns": (pl.Datetime("ns"), "timestamp"),
    "aware": (pl.Datetime("us", "UTC"), "timestamptz"),
    "amount": (pl.Decimal(10, 2), "decimal(10, 2)"),
    "bytes": (bytes, "binary"),
    "time": (pl.Time, "time"),
    "list": (pl.List(pl.Float64), "list<double>"),
    "array": (pl.Array(pl.Int64, 3), "list<long>"),
    "struct": (pl.Struct({"x": pl.List(pl.Int64)}), "struct<3: x: optional list<long>>"),
}


@pytest.mark.parametrize(("annotation", "expected"), _PANDAS.values(), ids=_PANDAS)
def test_a_pandas_model_gives_the_iceberg_type(annotation: Any, expected: str) -> None:
    model = type("M", (pap.DataFrameModel,), {"__annotations__": {"first": int, "column": annotation}})
    got = _types(schema_from_pandera(model))["column"]
    assert got.replace("4: ", "3: ") == expected


@pytest.mark.parametrize(("annotation", "expected"), _POLARS.values(), ids=_POLARS)
def test_a_polars_model_gives_the_iceberg_type(annotation: Any, expected: str) -> None:
    model = type("M", (plp.DataFrameModel,), {"__annotations__": {"first": int, "column": annotation}})
    got = _types(schema_from_pandera(model))["column"]
    assert got.replace("4: ", "3: ") == expected


class Weather(pap.DataFrameModel):
    station: Series[str] = pap.Field(description="Code of the airport.", unique=True)
    temperature: float | None = pap.Field(alias="Temp °F", nullable=True)


def test_columns_are_optional_numbered_from_one_and_keep_alias_and_description() -> None:
    fields = schema_from_pandera(Weather).fields
    assert [(f.field_id, f.name, f.required, f.doc) for f in fields] == [
        (1, "station", False, "Code of the airport."),
        (2, "Temp °F", False, None),
    ]


@pytest.mark.parametrize(
    "schema",
    [
        pap.DataFrameSchema({"a": pap.Column(int), "b": pap.Column(list[str])}),
        plp.DataFrameSchema({"a": plp.Column(int), "b": plp.Column(pl.List(pl.String))}),
    ],
    ids=["pandas", "polars"],
)
def test_a_schema_object_works_like_a_model(schema: object) -> None:
    assert _types(schema_from_pandera(schema)) == {"a": "long", "b": "list<string>"}


def test_a_type_for_the_whole_frame_is_the_type_of_every_column() -> None:
    assert _types(schema_from_pandera(pap.DataFrameSchema({"a": pap.Column()}, dtype=float))) == {"a": "double"}


def test_all_columns_without_a_type_are_named_together() -> None:
    schema = pap.DataFrameSchema(
        {
            "good": pap.Column(int),
            "a": pap.Column(object),
            "b": pap.Column(),
            "^c": pap.Column(int, regex=True),
        },
        index=pap.Index(int, name="i"),
        name="events",
    )
    with pytest.raises(DefinitionError) as caught:
        schema_from_pandera(schema)
    assert all(f"`{name}`" in caught.value.what for name in ("a", "b", "^c", "i"))
    assert "good" not in caught.value.what
    assert "events" in caught.value.where
    assert "iceberg_schema=" in caught.value.fix


def test_polars_objects_are_refused() -> None:
    with pytest.raises(DefinitionError, match="Object"):
        schema_from_pandera(plp.DataFrameSchema({"a": plp.Column(pl.Object)}))


@pytest.mark.parametrize("model", [dict, 3, pd.DataFrame()], ids=["class", "number", "frame"])
def test_what_is_no_model_is_refused(model: object) -> None:
    with pytest.raises(DefinitionError, match="not a model of pandera"):
        contract_of(model)
    with pytest.raises(DefinitionError, match="not a Pandera model"):
        schema_from_pandera(model)


def test_a_bare_decimal_has_pandera_s_own_precision() -> None:
    assert _types(schema_from_pandera(pap.DataFrameSchema({"a": pap.Column(decimal.Decimal)}))) == {
        "a": "decimal(28, 0)"
    }
