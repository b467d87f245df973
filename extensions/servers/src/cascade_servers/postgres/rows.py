"""What rows of the lake are in PostgreSQL: the types of columns, and the text that COPY reads."""

from __future__ import annotations

import datetime as dt
import io
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg import types as t

from cascade.errors import SchemaMismatchError

if TYPE_CHECKING:
    from pyiceberg.schema import Schema

__all__ = ["check_names", "column_types", "copy_text"]

_TYPES: dict[type[t.IcebergType], str] = {
    t.BooleanType: "boolean",
    t.IntegerType: "integer",
    t.LongType: "bigint",
    t.FloatType: "real",
    t.DoubleType: "double precision",
    t.DateType: "date",
    t.TimeType: "time without time zone",
    t.TimestampType: "timestamp without time zone",
    t.TimestamptzType: "timestamp with time zone",
    t.StringType: "text",
    t.UUIDType: "uuid",
    t.BinaryType: "bytea",
    t.FixedType: "bytea",
    t.ListType: "jsonb",
    t.MapType: "jsonb",
    t.StructType: "jsonb",
}

# PostgreSQL cuts longer names off, so that two may become one.
_LONGEST_NAME = 63
_SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})


def check_names(schemas: Mapping[str, Schema]) -> None:
    """Refuse marts whose names PostgreSQL does not take.

    Args:
        schemas: Table without its namespace, to its schema.

    Raises:
        SchemaMismatchError: All names that are too long, or that PostgreSQL has taken for itself.
    """
    problems = [f"table `{table}`: {why}" for table in schemas if (why := _wrong_name(table))]
    for table, schema in schemas.items():
        for field in schema.fields:
            why = "a name of PostgreSQL's own" if field.name in _SYSTEM_COLUMNS else _wrong_name(field.name)
            if why:
                problems.append(f"column `{field.name}` of `{table}`: {why}")
    if problems:
        raise SchemaMismatchError(
            "PostgreSQL cannot take these names: " + "; ".join(problems) + ".",
            where="marts, setting `marts_url`",
            fix="give the model, or the column in its SELECT, another name.",
        )


def column_types(table: str, schema: Schema) -> dict[str, str]:
    """Return a mart's columns with their types in PostgreSQL, written as the server itself writes them.

    Raises:
        SchemaMismatchError: Columns of types that PostgreSQL lacks; all of them are named.
    """
    types, problems = {}, []
    for field in schema.fields:
        kind = field.field_type
        if isinstance(kind, t.DecimalType):
            types[field.name] = f"numeric({kind.precision},{kind.scale})"
        elif name := _TYPES.get(type(kind)):
            types[field.name] = name
        else:
            problems.append(f"`{field.name}` ({kind})")
    if problems:
        raise SchemaMismatchError(
            f"PostgreSQL has no type for {', '.join(problems)}.",
            where=f"mart {table}",
            fix="cast the columns in the model.",
        )
    return types


def copy_text(table: str, batch: pa.RecordBatch) -> memoryview:
    """Return rows as the CSV that COPY reads: a missing value is empty, an empty text is quoted.

    Raises:
        SchemaMismatchError: A text has a NUL character, which PostgreSQL cannot keep.
    """
    from pyarrow import csv

    columns = [_as_text(table, name, column) for name, column in zip(batch.schema.names, batch.columns, strict=True)]
    # Names do not matter to COPY, and the writer would refuse two that are the same.
    plain = pa.RecordBatch.from_arrays(columns, [str(number) for number in range(len(columns))])
    sink = io.BytesIO()
    csv.write_csv(plain, sink, csv.WriteOptions(include_header=False, quoting_style="all_valid"))
    return sink.getbuffer()


def _as_text(table: str, name: str, column: pa.Array) -> pa.Array:
    """Return a column as something that the writer of CSV and PostgreSQL understand alike."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        if pc.any(pc.match_substring(column, "\0")).as_py():
            raise _nul(table, name)
        return column
    if pa.types.is_nested(kind):
        import simplejson

        # simplejson writes a decimal with all its digits.
        column = _each(column, lambda value: simplejson.dumps(_plain(value), ensure_ascii=False, use_decimal=True))
        # An odd number of backslashes: the character itself, not a text about it.
        if pc.any(pc.match_substring_regex(column, r"(^|[^\\])(\\\\)*\\u0000")).as_py():
            raise _nul(table, name)
        return column
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return _each(column, lambda value: f"\\x{value.hex()}")
    return column


def _nul(table: str, column: str) -> SchemaMismatchError:
    return SchemaMismatchError(
        f"A text in column `{column}` has a NUL character, which PostgreSQL cannot keep.",
        where=f"mart {table}",
        fix=f"remove it in the model, for example with replace({column}, chr(0), '').",
    )


def _each(column: pa.Array, convert: Callable[[Any], str]) -> pa.Array:
    values = column.to_pylist(maps_as_pydicts="strict") if pa.types.is_nested(column.type) else column.to_pylist()
    return pa.array([None if value is None else convert(value) for value in values], pa.large_string())


def _plain(value: Any) -> Any:
    """Return a value that JSON has; it has no numbers such as NaN."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else value


def _wrong_name(name: str) -> str:
    length = len(name.encode())
    return f"{length} bytes, more than {_LONGEST_NAME}" if length > _LONGEST_NAME else ""
