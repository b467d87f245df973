"""Which rows of a table are meant: a filter that selects files, and SQL that selects rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyiceberg.expressions import And, BooleanExpression, GreaterThanOrEqual, In, LessThan, LessThanOrEqual

__all__ = ["Where", "between", "one_of", "within"]


@dataclass(frozen=True)
class Where:
    """Rows of a table, said twice: both must mean the same rows.

    Attributes:
        files: A filter that selects the files which may hold such rows.
        rows: The condition of the rows in SQL.
    """

    files: BooleanExpression
    rows: str


def between(column: str, low: object, high: object) -> BooleanExpression:
    """Rows with `low <= column <= high`."""
    return And(GreaterThanOrEqual(column, low), LessThanOrEqual(column, high))  # type: ignore[misc, call-arg, arg-type]


def within(column: str, begin: object, end: object) -> BooleanExpression:
    """Rows with `begin <= column < end`."""
    return And(GreaterThanOrEqual(column, begin), LessThan(column, end))  # type: ignore[misc, call-arg, arg-type]


def one_of(column: str, values: Sequence[object]) -> BooleanExpression:
    """Rows whose column has one of some values."""
    return In(column, values)  # type: ignore[misc, call-arg, arg-type]
