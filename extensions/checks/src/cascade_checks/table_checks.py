"""The built-in checks on a table as a whole: its number of rows, its age, how it fits another table."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import TypeVar

import dagster as dg

from cascade.duck.sql import identifier, qualified
from cascade.names import CHECKED_ROWS
from cascade.options import known_options
from cascade.quality import (
    SAMPLE_ROWS,
    Check,
    Outcome,
    Scope,
    check_name,
    require,
    table_name,
)
from cascade_checks.partitions import partition_counts
from cascade_checks.refusals import bounds_text, percent, require_columns, require_order, require_tolerance

__all__ = ["freshness", "reconciles", "row_count"]

_Number = TypeVar("_Number", int, float)


@known_options
def row_count(
    *,
    minimum: int | None = None,
    maximum: int | None = None,
    partition_column: str | None = None,
    name: str | None = None,
    blocking: bool | None = None,
) -> Check:
    """Require a number of rows, in the table or in each partition of the run.

    Args:
        minimum: Fewest rows; 1 refuses an empty table or partition.
        maximum: Most rows.
        partition_column: Column that says which partition a row belongs to. In a run with partitions, each of
            them must then be within the bounds; otherwise the whole table. As in a load, a timestamp is in UTC,
            a date is a day of the partitions' time zone, and other partitions are compared by their key.
        name, blocking: As for every check, see `cascade.quality`.
    """
    for bound in (minimum, maximum):
        valid = bound is None or (isinstance(bound, int) and not isinstance(bound, bool) and bound >= 0)
        require(valid, f"{bound!r} is not a number of rows.", "row_count", "give a whole number from 0 on.")
    require_order("row_count", minimum=minimum, maximum=maximum)
    if partition_column is not None:
        require_columns("row_count", partition_column)
    bounds = bounds_text(minimum, maximum)
    rows_text = f"{bounds} {'row' if bounds.endswith(' 1') else 'rows'}"
    limits = _given(minimum=minimum, maximum=maximum)

    def fits(rows: int) -> bool:
        return (minimum is None or rows >= minimum) and (maximum is None or rows <= maximum)

    def evaluate(scope: Scope) -> Outcome:
        counts, sql = partition_counts(scope, partition_column) if partition_column else ({}, "")
        if not counts:
            sql = f"SELECT count(*) AS checked_rows FROM {qualified(scope.table)}"
            rows = int(scope.query(sql)[0]["checked_rows"])
            says = f"{scope.table} has {rows:,} rows, expected {bounds}"
            return Outcome(fits(rows), says, {CHECKED_ROWS: rows, **limits, "sql": sql})
        wrong = [{"partition": key, "rows": rows} for key, rows in counts.items() if not fits(rows)]
        shown = wrong[:SAMPLE_ROWS]
        some = ", ".join(f"{part['partition']} has {part['rows']:,}" for part in shown)
        says = f"{len(wrong):,} of {len(counts):,} partitions of {scope.table} do not have {rows_text}"
        figures = {"checked_partitions": len(counts), "failing_partitions": len(wrong)}
        return Outcome(
            not wrong,
            says + (f": {some}{', …' if len(wrong) > len(shown) else ''}" if wrong else ""),
            {CHECKED_ROWS: sum(counts.values()), **figures, **limits, "sql": sql},
            shown,
        )

    each = "Every partition of the run has" if partition_column else "The table has"
    return Check(check_name("row_count", name), f"{each} {rows_text}.", evaluate, blocking)


@known_options
def freshness(
    column: str,
    warn_hours: float | None = None,
    fail_hours: float | None = None,
    *,
    name: str | None = None,
    blocking: bool = False,
) -> Check:
    """Require that the newest value of a column is not too old. A table without rows is not fresh.

    Args:
        column: A date or a timestamp; without a zone it is UTC.
        warn_hours: Age in hours above which the check fails as a warning, which never blocks.
        fail_hours: Age in hours above which it fails as an error.
        name: As for every check, see `cascade.quality`.
        blocking: Whether an error blocks the promotion. It does not by default: data that the source delivers
            late is late on `main` too.
    """
    require_columns("freshness", column)
    for hours in (warn_hours, fail_hours):
        valid = hours is None or (isinstance(hours, int | float) and not isinstance(hours, bool) and hours > 0)
        require(valid, f"{hours!r} is not an age in hours.", "freshness", "give a number greater than 0.")
    require_order("freshness", warn_hours=warn_hours, fail_hours=fail_hours)
    limits = _given(warn_hours=warn_hours, fail_hours=fail_hours)
    limit = fail_hours if warn_hours is None else warn_hours

    def evaluate(scope: Scope) -> Outcome:
        newest = f"CAST(max({identifier(column)}) AS timestamp(6))"
        sql = f"SELECT {newest} AS newest, count(*) AS checked_rows FROM {qualified(scope.table)}"
        (row,) = scope.query(sql)
        figures: dict[str, int | float | str] = {CHECKED_ROWS: int(row["checked_rows"]), **limits, "sql": sql}
        if row["newest"] is None:
            return Outcome(False, f"{scope.table} has no `{column}` at all", figures)
        age = (dt.datetime.now(dt.UTC).replace(tzinfo=None) - row["newest"]).total_seconds() / 3600
        figures |= {"newest": f"{row['newest'].isoformat()}Z", "age_hours": round(age, 3)}
        failed, warned = (limit is not None and age > limit for limit in (fail_hours, warn_hours))
        allowed = fail_hours if failed else limit
        return Outcome(
            not (failed or warned),
            f"the newest `{column}` of {scope.table} is {age:,.1f} hours old, at most {allowed:g} allowed",
            figures,
            severity=dg.AssetCheckSeverity.ERROR if failed else dg.AssetCheckSeverity.WARN,
        )

    says = f"The newest `{column}` is at most {limit:g} hours old."
    return Check(check_name("freshness", name, column), says, evaluate, blocking)


@known_options
def reconciles(
    other: str,
    expression: str = "count(*)",
    *,
    tolerance: float = 0.0,
    name: str | None = None,
    blocking: bool | None = None,
) -> Check:
    """Require that an aggregate has the same value on another table.

    Args:
        other: The other table, such as `raw/weather_observations`; the check runs after it too.
        expression: The aggregate, in SQL that both tables understand, such as `sum(amount)`.
        tolerance: Allowed difference as a fraction of the other table's value, 0 to 1.
        name, blocking: As for every check, see `cascade.quality`.
    """
    there = table_name(other)
    require_tolerance("reconciles", tolerance)
    written = isinstance(expression, str) and bool(expression.strip())
    require(written, f"{expression!r} is not a SQL expression.", "reconciles", "give an aggregate such as `count(*)`.")

    def evaluate(scope: Scope) -> Outcome:
        here_sql, there_sql = (f"(SELECT {expression} FROM {qualified(t)})" for t in (scope.table, there))
        sql = f"SELECT {here_sql} AS here, {there_sql} AS there"
        (row,) = scope.query(sql)
        difference = _difference(row["here"], row["there"])
        return Outcome(
            difference <= tolerance,
            f"{expression} is {_figure(row['here'])} on {scope.table} and {_figure(row['there'])} on {there}"
            + (f" ({percent(difference)} apart, allowed {percent(tolerance)})" if difference < math.inf else ""),
            {"value": str(row["here"]), "other_value": str(row["there"]), "tolerance": float(tolerance), "sql": sql},
        )

    says = f"{expression} is the same on {there}."
    return Check(check_name("reconciles", name, there), says, evaluate, blocking, (there,))


def _given(**limits: _Number | None) -> dict[str, _Number]:
    """Return the limits that are given."""
    return {name: limit for name, limit in limits.items() if limit is not None}


def _difference(here: object, there: object) -> float:
    """Return how far two values are apart, as a fraction of the second; infinite where there is no such fraction."""
    if here == there:
        return 0.0
    if not all(isinstance(v, int | float | Decimal) for v in (here, there)) or not there:
        return math.inf
    a, b = (Decimal(str(v)) for v in (here, there))
    return float(abs((a - b) / b)) if a.is_finite() and b.is_finite() else math.inf


def _figure(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float | Decimal) else str(value)
