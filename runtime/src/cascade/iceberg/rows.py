"""Which rows of a table are meant: a filter that selects files and SQL that selects rows, as one value."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pyiceberg.expressions import (
    AlwaysFalse,
    And,
    BooleanExpression,
    GreaterThanOrEqual,
    In,
    LessThan,
    LessThanOrEqual,
    Or,
)
from pyiceberg.types import NestedField

from cascade.duck.sql import identifier, literal, literals
from cascade.iceberg.types import duckdb_type

__all__ = ["NO_ROWS", "Where", "all_of", "any_of", "between", "one_of", "within"]


@dataclass(frozen=True)
class Where:
    """Rows of a table.

    Attributes:
        files: A filter that selects the files which may hold such rows.
        rows: The condition of the rows in SQL.
    """

    files: BooleanExpression
    rows: str


NO_ROWS = Where(AlwaysFalse(), "false")


def one_of(column: str, values: Collection[str]) -> Where:
    """Rows whose column, which is text, has one of some values."""
    if not values:
        return NO_ROWS
    sql = f"{identifier(column)} IN ({literals(values)})"
    return Where(In(column, set(values)), sql)  # type: ignore[misc, call-arg, arg-type]


def within(column: NestedField, begin: str, end: str) -> Where:
    """Rows with `begin <= column < end`; both in ISO format, of the column's type (a date or a timestamp)."""
    name, word = column.name, duckdb_type(column.field_type)
    files = And(GreaterThanOrEqual(name, begin), LessThan(name, end))  # type: ignore[misc, call-arg, arg-type]
    return Where(files, f"{identifier(name)} >= {word} {literal(begin)} AND {identifier(name)} < {word} {literal(end)}")


def any_of(parts: Sequence[Where]) -> Where:
    """Rows that at least one of the parts means."""
    if len(parts) < 2:
        return parts[0] if parts else NO_ROWS
    return Where(Or(*(part.files for part in parts)), " OR ".join(f"({part.rows})" for part in parts))


def all_of(one: Where, other: Where) -> Where:
    """Rows that both parts mean."""
    return Where(And(one.files, other.files), f"({one.rows}) AND ({other.rows})")


def between(column: str, low: object, high: object) -> BooleanExpression:
    """Files that may hold rows with `low <= column <= high`."""
    return And(GreaterThanOrEqual(column, low), LessThanOrEqual(column, high))  # type: ignore[misc, call-arg, arg-type]
