"""Names and values in the SQL of checks, in the syntax that DuckDB and Trino share."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

from cascade.quality.model import Value

__all__ = ["literal", "quoted", "table_sql"]


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
