"""The SQL of the checks, in what DuckDB and Trino share, and what comes back from the engine."""

from __future__ import annotations

import contextlib
import datetime as dt
from decimal import Decimal
from typing import Any

from cascade.errors import QueryError
from cascade.quality.model import Outcome, Scope, Value

__all__ = ["SAMPLE_ROWS", "count_rows", "literal", "percent", "query", "quoted", "table_sql"]

#: So many failing rows are shown.
SAMPLE_ROWS = 5


def quoted(name: str) -> str:
    """Return a name as a quoted identifier."""
    from cascade.iceberg.read import quote  # here: it brings PyIceberg, which a definition does without

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
    """Return the rows that a statement selects."""
    rows = scope.lakehouse.query(sql)
    # Not `to_pylist`: it refuses two columns of one name, which a user's join may well have.
    columns = [(name, column.to_pylist()) for name, column in zip(rows.column_names, rows.columns, strict=True)]
    return [{name: values[i] for name, values in columns} for i in range(rows.num_rows)]


def count_rows(scope: Scope, counts: str, failing: str, problem: str, tolerance: float) -> Outcome:
    """Compare how many rows fail with how many may.

    Args:
        scope: The table.
        counts: Aggregate with `checked_rows` and `failing_rows`.
        failing: Statement that selects failing rows; only a few of them are read.
        problem: What is wrong with the rows, as the end of a sentence that counts them.
        tolerance: Fraction that may fail.
    """
    (row,) = query(scope, counts)
    checked, wrong = int(row["checked_rows"]), int(row["failing_rows"])
    fraction = wrong / checked if checked else float(wrong > 0)
    sample: list[dict[str, Any]] = []
    if wrong:
        with contextlib.suppress(QueryError, ValueError, OverflowError):  # the verdict stands without a sample
            sample = query(scope, f"{failing} LIMIT {SAMPLE_ROWS}")
    return Outcome(
        fraction <= tolerance,
        f"{wrong:,} of {checked:,} rows of {scope.table} {problem} ({percent(fraction)}, allowed {percent(tolerance)})",
        {
            "checked_rows": checked,
            "failing_rows": wrong,
            "fraction": fraction,
            "tolerance": float(tolerance),
            "sql": counts,
        },
        sample,
    )


def percent(fraction: float) -> str:
    """Return a fraction as a percentage."""
    return f"{fraction * 100:.3g} %"
