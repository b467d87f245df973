"""Names and values as SQL, the same for DuckDB and Trino."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal

__all__ = ["Value", "alike", "identifier", "literal", "literals", "qualified"]

#: What can be written as a literal.
Value = str | int | float | bool | Decimal | dt.date | dt.datetime


def alike(names: Iterable[str]) -> str:
    """Return the names that SQL, which knows no capital letters, cannot tell apart, in words; "" for none."""
    by_name: dict[str, set[str]] = {}
    for name in names:
        by_name.setdefault(name.lower(), set()).add(name)
    return "; ".join(" and ".join(f"`{n}`" for n in sorted(same)) for same in by_name.values() if len(same) > 1)


def identifier(name: str) -> str:
    """Return a name as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def qualified(name: str) -> str:
    """Return `namespace.table` as quoted identifiers."""
    return ".".join(map(identifier, name.split(".")))


def literal(value: Value) -> str:
    """Return a value as a literal; a time with a time zone in UTC, which is the session's zone on both engines."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            return f"TIMESTAMP {literal(value.isoformat(' '))}"
        # Not a cast: Trino would round to milliseconds.
        return f"({literal(value.astimezone(dt.UTC).replace(tzinfo=None))} AT TIME ZONE 'UTC')"
    if isinstance(value, dt.date):
        return f"DATE {literal(value.isoformat())}"
    return format(value, "f") if isinstance(value, Decimal) else repr(value).upper()


def literals(values: Iterable[Value]) -> str:
    """Return values as literals with commas in between: for `IN (…)`, or for a list `[…]`."""
    return ", ".join(map(literal, values))
