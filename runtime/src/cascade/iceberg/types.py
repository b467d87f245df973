"""Iceberg's types in the words of SQL: one table of names for each dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pyiceberg import types as t

from cascade.duck.sql import identifier

__all__ = ["DUCKDB", "Dialect", "duckdb_type", "type_name"]


class Dialect(NamedTuple):
    """The words of one SQL dialect.

    Attributes:
        name: Name of the dialect, for messages.
        primitives: Names of types without parameters.
        list: Pattern of a list, with `{}` for its elements.
        map: Pattern of a map, with `{}` for its keys and for its values.
        struct: Pattern of a struct, with `{}` for its fields.
    """

    name: str
    primitives: Mapping[type[t.IcebergType], str]
    list: str
    map: str
    struct: str


DUCKDB = Dialect(
    "DuckDB",
    {
        t.BooleanType: "BOOLEAN",
        t.IntegerType: "INTEGER",
        t.LongType: "BIGINT",
        t.FloatType: "FLOAT",
        t.DoubleType: "DOUBLE",
        t.DateType: "DATE",
        t.TimeType: "TIME",
        t.TimestampType: "TIMESTAMP",
        t.TimestamptzType: "TIMESTAMPTZ",
        t.StringType: "VARCHAR",
        t.UUIDType: "UUID",
        t.BinaryType: "BLOB",
        t.FixedType: "BLOB",
    },
    list="{}[]",
    map="MAP({}, {})",
    struct="STRUCT({})",
)


def type_name(kind: t.IcebergType, dialect: Dialect) -> str:
    """Return the name of an Iceberg type in a dialect.

    Raises:
        ValueError: The dialect has no such type.
    """
    match kind:
        case t.DecimalType():
            return f"DECIMAL({kind.precision},{kind.scale})"
        case t.ListType():
            return dialect.list.format(type_name(kind.element_type, dialect))
        case t.MapType():
            return dialect.map.format(type_name(kind.key_type, dialect), type_name(kind.value_type, dialect))
        case t.StructType():
            fields = (f"{identifier(f.name)} {type_name(f.field_type, dialect)}" for f in kind.fields)
            return dialect.struct.format(", ".join(fields))
    if name := dialect.primitives.get(type(kind)):
        return name
    raise ValueError(f"{dialect.name} has no name for the Iceberg type {kind}")


def duckdb_type(kind: t.IcebergType) -> str:
    """Return the DuckDB name of an Iceberg type; see `type_name`."""
    return type_name(kind, DUCKDB)
