"""Which rows of a table are meant: a filter that selects files and SQL that selects rows, as one value."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from typing import TYPE_CHECKING

from pyiceberg.expressions import (
    AlwaysFalse,
    AlwaysTrue,
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

if TYPE_CHECKING:
    import duckdb

__all__ = ["NO_ROWS", "Where", "all_of", "any_of", "between", "of_keys", "one_of", "within"]

# Each gap costs a comparison for each file of the table, and to find them the keys are sorted.
_GAPS, _SORTED_KEYS = 3, 100_000


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


def of_keys(connection: duckdb.DuckDBPyConnection, rows: str, key: Sequence[str]) -> BooleanExpression:
    """Files that may hold the key of one of some rows, which are SQL: by their least and greatest values."""
    files: BooleanExpression = AlwaysTrue()
    for name, k in zip(key, map(identifier, key), strict=True):
        ((low, high, number),) = connection.sql(f"SELECT min({k}), max({k}), count(*) FROM {rows}").fetchall()
        ends = [low, high]
        if low is None or isinstance(low, float | bytes | bool | uuid.UUID):
            continue  # nulls, what may be NaN, or what no literal of PyIceberg compares with bounds of files
        if type(low) is type(high) is not str and number <= _SORTED_KEYS:
            # Keys that change may lie far from those that are new: the files between them are passed over.
            place = "epoch({})" if hasattr(low, "isoformat") else "{}::DOUBLE"
            gaps = connection.sql(
                f"SELECT before, k FROM (SELECT {k} AS k, lag({k}) OVER (ORDER BY {k}) AS before FROM {rows}) "
                f"WHERE k > before ORDER BY {place.format('k')} - {place.format('before')} DESC LIMIT {_GAPS}"
            )
            ends = sorted([*ends, *chain.from_iterable(gaps.fetchall())])
        found = [v.isoformat() if hasattr(v, "isoformat") else v for v in ends]
        parts = [between(name, *part) for part in zip(found[::2], found[1::2], strict=True)]
        files = And(files, reduce(Or, parts))
    return files


def between(column: str, low: object, high: object) -> BooleanExpression:
    """Files that may hold rows with `low <= column <= high`."""
    return And(GreaterThanOrEqual(column, low), LessThanOrEqual(column, high))  # type: ignore[misc, call-arg, arg-type]
