"""Filters that select the files of a table; PyIceberg's constructors, typed the way they are called."""

from __future__ import annotations

from collections.abc import Sequence

from pyiceberg.expressions import And, BooleanExpression, GreaterThanOrEqual, In, LessThan, LessThanOrEqual

__all__ = ["between", "one_of", "within"]


def between(column: str, low: object, high: object) -> BooleanExpression:
    """Rows with `low <= column <= high`."""
    return And(GreaterThanOrEqual(column, low), LessThanOrEqual(column, high))  # type: ignore[misc, call-arg, arg-type]


def within(column: str, begin: object, end: object) -> BooleanExpression:
    """Rows with `begin <= column < end`."""
    return And(GreaterThanOrEqual(column, begin), LessThan(column, end))  # type: ignore[misc, call-arg, arg-type]


def one_of(column: str, values: Sequence[object]) -> BooleanExpression:
    """Rows whose column has one of some values."""
    return In(column, values)  # type: ignore[misc, call-arg, arg-type]
