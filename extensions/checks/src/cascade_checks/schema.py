"""Derive the Iceberg schema of the rows that a Pandera model describes."""

from __future__ import annotations

import datetime
import typing
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from pyiceberg import types as t
from pyiceberg.schema import Schema, assign_fresh_schema_ids

from cascade.errors import DefinitionError
from cascade.iceberg.schema import iceberg_type

__all__ = ["pandera_schema", "schema_from_pandera"]

# Pandera's abstract types as Arrow types. The first row that fits counts: `UInt` is an `Int` to Pandera,
# and `Timestamp` is a `Date`.
_ABSTRACT: tuple[tuple[str, Callable[[Any], pa.DataType]], ...] = (
    ("Bool", lambda _: pa.bool_()),
    ("UInt", lambda dtype: pa.type_for_alias(f"uint{dtype.bit_width}")),
    ("Int", lambda dtype: pa.type_for_alias(f"int{dtype.bit_width}")),
    ("Float", lambda dtype: pa.type_for_alias(f"float{dtype.bit_width}")),
    ("Decimal", lambda dtype: pa.decimal128(dtype.precision, dtype.scale)),
    ("String", lambda _: pa.string()),
    ("Category", lambda dtype: pa.array(list(dtype.categories)).type if dtype.categories else pa.string()),
    ("Timestamp", lambda dtype: pa.timestamp("us", "UTC" if _is_aware(dtype) else None)),
    ("Date", lambda _: pa.date32()),
    ("Binary", lambda _: pa.binary()),
)

# What Pandera's pandas API sees only as `object`, although the annotation says it.
_PYTHON: dict[object, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bytes: pa.binary(),
    datetime.date: pa.date32(),
    datetime.datetime: pa.timestamp("us"),
}

_CANNOT_CONVERT = (TypeError, ValueError, KeyError, pa.ArrowException)


def pandera_schema(model: Any) -> Any:
    """Return the schema object of a Pandera model class; a schema object is returned as it is.

    Raises:
        DefinitionError: It is neither.
    """
    try:
        schema = model.to_schema() if hasattr(model, "to_schema") else model
    except Exception as error:
        raise DefinitionError(
            f"Pandera cannot make a schema of the model: {error}",
            where=f"model `{_name_of(model)}`",
            fix="give every field a type that Pandera knows, and no field the name of a method.",
        ) from error
    if type(schema).__name__ != "DataFrameSchema" or not type(schema).__module__.startswith("pandera."):
        raise DefinitionError(
            f"`{model!r}` is not a Pandera model.",
            fix="give a `DataFrameModel` or a `DataFrameSchema` of `pandera.pandas` or `pandera.polars`.",
        )
    return schema


def schema_from_pandera(model: Any) -> Schema:
    """Derive the Iceberg schema of the rows that a Pandera model describes.

    Every column is optional: whether a value may be missing is checked with the contract, so that the
    table can evolve.

    Args:
        model: A `DataFrameModel` class or a `DataFrameSchema`, of the pandas or the polars API.

    Raises:
        DefinitionError: Columns whose type is not known to Iceberg; all of them are named.
    """
    schema = pandera_schema(model)
    annotations = {field.name: info.raw_annotation for info, field in getattr(model, "__fields__", {}).values()}
    fields: list[t.NestedField] = []
    problems: list[str] = []
    if (index := getattr(schema, "index", None)) is not None:
        problems.append(f"`{index.name or 'index'}` (an index; declare it as a column)")
    for name, column in schema.columns.items():
        dtype = column.dtype if schema.dtype is None else schema.dtype
        if column.regex:
            problems.append(f"`{name}` (a pattern; name each column)")
            continue
        try:
            column_type = iceberg_type(_arrow_type(dtype, annotations.get(name)))
        except _CANNOT_CONVERT:
            problems.append(f"`{name}` ({dtype or 'no type'})")
            continue
        fields.append(t.NestedField(-1, str(name), column_type, required=False, doc=column.description))
    if problems or not fields:
        raise DefinitionError(
            f"The Iceberg type of these columns cannot be told: {', '.join(problems) or 'there are none'}.",
            where=f"model `{_name_of(model)}`",
            fix="give them a type such as `str`, `int` or "
            "`Annotated[pd.ArrowDtype, pa.list_(pa.string())]`, or pass `iceberg_schema=`.",
        )
    return assign_fresh_schema_ids(Schema(*fields))


def _arrow_type(dtype: Any, annotation: object) -> pa.DataType:
    """The Arrow type of a Pandera dtype; for what Pandera calls an object, that of the annotation."""
    native = getattr(dtype, "type", None)
    if (arrow_type := getattr(native, "pyarrow_dtype", None)) is not None:
        return arrow_type
    if type(dtype).__module__ == "pandera.engines.polars_engine":
        return _polars_type(native)
    abstract = {base.__name__ for base in type(dtype).__mro__ if base.__module__ == "pandera.dtypes"}
    for name, convert in _ABSTRACT:
        if name in abstract:
            return convert(dtype)
    return _python_type(getattr(dtype, "generic_type", None) or annotation)


def _polars_type(native: Any) -> pa.DataType:
    import polars as pl

    if "Object" in str(native):  # polars would hand over the addresses of the objects
        raise TypeError("objects have no Arrow type")
    return pl.DataFrame(schema={"column": native}).to_arrow().schema.field("column").type


def _python_type(annotation: Any) -> pa.DataType:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is list:
        return pa.list_(_python_type(arguments[0]))
    if origin is not None and arguments:  # Series[bytes], Optional[bytes], Annotated[bytes, …]
        return _python_type(arguments[0])
    return _PYTHON[annotation]


def _is_aware(dtype: Any) -> bool:
    return getattr(dtype, "tz", None) is not None or getattr(dtype, "time_zone_agnostic", False)


def _name_of(model: Any) -> str:
    return str(getattr(model, "__name__", None) or getattr(model, "name", None) or type(model).__name__)
