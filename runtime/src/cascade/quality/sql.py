"""The SQL of the checks, in what DuckDB and Trino share, and what comes back from the engine."""

from __future__ import annotations

import bisect
import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from cascade.errors import QueryError
from cascade.quality.model import Outcome, Partition, Scope, Value, percent

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "SAMPLE_ROWS",
    "count_rows",
    "literal",
    "matches_sql",
    "one_row",
    "partition_counts",
    "quoted",
    "table_sql",
]

#: So many failing rows are shown.
SAMPLE_ROWS = 5

# What the engines do not share, by the setting `engine`.
_DIALECTS = {
    "embedded": {"matches": "regexp_matches({value}, {pattern})"},
    "lakehouse": {"matches": "regexp_like({value}, {pattern})"},
}


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


def matches_sql(scope: Scope, value: str, pattern: str) -> str:
    """Return the condition that a text holds a match of a regular expression."""
    return _DIALECTS[scope.lakehouse.settings.engine]["matches"].format(value=value, pattern=pattern)


def one_row(scope: Scope, sql: str) -> dict[str, Any]:
    """Return the only row of an aggregate."""
    (row,) = _records(scope.lakehouse.query(sql))
    return row


def count_rows(scope: Scope, counts: str, failing: str, problem: str, tolerance: float) -> Outcome:
    """Compare how many rows fail with how many may.

    Args:
        scope: The table.
        counts: Aggregate with `checked_rows` and `failing_rows`.
        failing: Statement that selects failing rows; only a few of them are read.
        problem: What is wrong with the rows, as the end of a sentence that counts them.
        tolerance: Fraction that may fail.
    """
    row = one_row(scope, counts)
    checked, wrong = int(row["checked_rows"]), int(row["failing_rows"])
    fraction = wrong / checked if checked else float(wrong > 0)
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
        _sample(scope, failing) if wrong else (),
    )


def partition_counts(scope: Scope, column: str, partitions: Sequence[Partition]) -> tuple[dict[str, int], str]:
    """Count the rows of each partition.

    Returns:
        Rows by partition key, none for an empty one, and the statement that counted.
    """
    windows = sorted((p.start, p.end, p.key) for p in partitions if p.start is not None and p.end is not None)
    counts = dict.fromkeys((p.key for p in partitions), 0)
    if not windows:
        value = f"CAST({quoted(column)} AS varchar)"
        condition = f"{value} IN ({', '.join(literal(key) for key in counts)})"
        group = value
    else:
        value = f"CAST({quoted(column)} AS timestamp(6))"
        condition = f"{value} >= {literal(windows[0][0])} AND {value} < {literal(max(end for _, end, _ in windows))}"
        group = f"date_trunc('{_unit(windows)}', {value})"
    sql = f"SELECT {group} AS part, count(*) AS n FROM {table_sql(scope.table)} WHERE {condition} GROUP BY 1"
    for row in _records(scope.lakehouse.query(sql)):
        if not windows:
            counts[row["part"]] += int(row["n"])
            continue
        _, end, key = windows[bisect.bisect_right([start for start, _, _ in windows], row["part"]) - 1]
        if row["part"] < end:
            counts[key] += int(row["n"])
    return counts, sql


def _unit(windows: Sequence[tuple[dt.datetime, dt.datetime, str]]) -> str:
    """Return the coarsest unit of time that no window's start divides."""
    starts = [start for start, _, _ in windows]
    if any(start.minute or start.second for start in starts):
        return "minute"
    return "hour" if any(start.hour for start in starts) else "day"


def _sample(scope: Scope, failing: str) -> list[dict[str, Any]]:
    """Return a few failing rows. The verdict stands without them."""
    try:
        return _records(scope.lakehouse.query(f"{failing} LIMIT {SAMPLE_ROWS}"))
    except (QueryError, ValueError, OverflowError):
        return []


def _records(rows: pa.Table) -> list[dict[str, Any]]:
    # Not `to_pylist`: it refuses two columns of one name, which a user's join may well have.
    columns = [(name, column.to_pylist()) for name, column in zip(rows.column_names, rows.columns, strict=True)]
    return [{name: values[i] for name, values in columns} for i in range(rows.num_rows)]
