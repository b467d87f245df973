"""SQL of the checks, in the syntax that DuckDB and Trino share, and the rows that it selects."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

from cascade.quality.model import Scope, Value

__all__ = ["SAMPLE_ROWS", "literal", "percent", "query", "quoted", "table_sql"]

#: How many failing rows are shown.
SAMPLE_ROWS = 5


def quoted(name: str) -> str:
    """Return a name as a quoted identifier."""
    from cascade.iceberg.read import quote  # here: it imports PyIceberg, which a definition does without

    return quote(name)


def table_sql(table: str) -> str:
    """Return `namespace.table` as quoted identifiers."""
    return ".".join(map(quoted, table.split(".")))


def literal(value: Value) -> str:
    """Return a value as a literal."""
    from cascade.iceberg.read import text

    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            return f"TIMESTAMP {text(value.isoformat(' '))}"
        # In UTC, which is the session's zone on both engines; a cast would round to milliseconds on Trino.
        return f"(TIMESTAMP {text(value.astimezone(dt.UTC).replace(tzinfo=None).isoformat(' '))} AT TIME ZONE 'UTC')"
    if isinstance(value, dt.date):
        return f"DATE {text(value.isoformat())}"
    return format(value, "f") if isinstance(value, Decimal) else repr(value)


def query(scope: Scope, sql: str) -> list[dict[str, Any]]:
    """Return the rows that a statement selects, each as column to value."""
    rows = scope.lakehouse.query(sql)
    # Not `to_pylist`: it refuses two columns of one name, which a user's join may well have.
    columns = [(name, column.to_pylist()) for name, column in zip(rows.column_names, rows.columns, strict=True)]
    return [{name: values[i] for name, values in columns} for i in range(rows.num_rows)]


def percent(fraction: float) -> str:
    """Return a fraction as a percentage."""
    return f"{fraction * 100:.3g} %"
