"""The built-in checks that count failing rows, but for `custom_sql`, which is in `failing_rows`."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Collection, Sequence
from decimal import Decimal

from cascade.duck.sql import identifier, literal, literals, qualified
from cascade.options import known_options
from cascade.quality import Check, Scope, Value, check_name, require
from cascade_checks.failing_rows import Statements, count_failing
from cascade_checks.refusals import Bound, bounds_text, require_columns, require_order

__all__ = ["accepted_values", "in_range", "matches", "not_null", "unique"]

# What Python's `re` knows and the engines do not: look-around, back references, conditions, atomic groups.
_NOT_IN_ENGINES = re.compile(r"\(\?(?:[=!>(]|<[=!]|P=)|\\[1-9]|[*+?}]\+")


@known_options
def not_null(*columns: str, tolerance: float = 0.0, name: str | None = None, blocking: bool | None = None) -> Check:
    """Require a value in each of these columns.

    Args:
        columns: One column or several; a row fails if any of them is null.
        tolerance, name, blocking: As for every check, see `cascade.quality`.
    """
    require_columns("not_null", *columns)
    names = _names(columns)
    failing = _where(lambda _: " OR ".join(f"{identifier(c)} IS NULL" for c in columns))
    check_rows = count_failing("not_null", failing, f"have a null in {names}", tolerance)
    return Check(check_name("not_null", name, *columns), f"No null in {names}.", check_rows, blocking)


@known_options
def unique(*columns: str, tolerance: float = 0.0, name: str | None = None, blocking: bool | None = None) -> Check:
    """Require that no two rows have the same values in these columns together.

    All rows that share their values fail. A row with a null in one of them is never a duplicate, as in
    SQL: add `not_null` for those.

    Args:
        columns: One column, or the columns of a composite key.
        tolerance, name, blocking: As for every check, see `cascade.quality`.
    """
    require_columns("unique", *columns)
    names = _names(columns)

    def statements(scope: Scope) -> tuple[str, str]:
        keys = ", ".join(f"{identifier(c)} AS k{i}" for i, c in enumerate(columns))
        positions = ", ".join(str(i + 1) for i in range(len(columns)))
        groups = f"SELECT {keys}, count(*) AS n FROM {qualified(scope.table)} GROUP BY {positions}"
        shared = " AND ".join(["n > 1", *(f"k{i} IS NOT NULL" for i in range(len(columns)))])
        shown = ", ".join(f"k{i} AS {identifier(c)}" for i, c in enumerate(columns))
        return (
            "SELECT CAST(coalesce(sum(n), 0) AS bigint) AS checked_rows,"
            f" CAST(coalesce(sum(n) FILTER (WHERE {shared}), 0) AS bigint) AS failing_rows"
            f" FROM ({groups}) AS keys",
            f"SELECT {shown}, n AS rows_with_this_key FROM ({groups}) AS keys WHERE {shared}",
        )

    check_rows = count_failing("unique", statements, f"share their {names} with another", tolerance)
    return Check(check_name("unique", name, *columns), f"No two rows have the same {names}.", check_rows, blocking)


@known_options
def in_range(
    column: str,
    minimum: Bound | None = None,
    maximum: Bound | None = None,
    *,
    tolerance: float = 0.0,
    name: str | None = None,
    blocking: bool | None = None,
) -> Check:
    """Require values from `minimum` to `maximum`, both included. Null passes; `NaN` does not.

    Args:
        column: The column.
        minimum: Smallest value: a number, date or datetime (with a zone for a timestamp with a zone).
        maximum: Greatest value.
        tolerance, name, blocking: As for every check, see `cascade.quality`.
    """
    require_columns("in_range", column)
    where = f"in_range({column!r})"
    for bound in (minimum, maximum):
        valid = bound is None or (isinstance(bound, Bound) and not isinstance(bound, bool) and _is_finite(bound))
        require(valid, f"{bound!r} is not a bound.", where, "give a finite number, a date or a datetime.")
    require_order(where, minimum=minimum, maximum=maximum)

    def outside(_: Scope) -> str:
        value, conditions = identifier(column), []
        if minimum is not None:
            conditions.append(f"{value} >= {literal(minimum)}")
        if maximum is not None:
            conditions.append(f"{value} <= {literal(maximum)}")
        elif not isinstance(minimum, dt.date):
            # For DuckDB NaN is greater than every number; this condition refuses it.
            conditions.append(f"{value} <= CAST('Infinity' AS double)")
        return f"NOT ({' AND '.join(conditions)})"

    bounds = bounds_text(minimum, maximum)
    problem = f"outside {minimum}..{maximum}" if None not in (minimum, maximum) else f"that is not {bounds}"
    check_rows = count_failing("in_range", _where(outside), f"have `{column}` {problem}", tolerance)
    return Check(check_name("in_range", name, column), f"`{column}` is {bounds}.", check_rows, blocking)


@known_options
def accepted_values(
    column: str,
    values: Collection[Value],
    *,
    tolerance: float = 0.0,
    name: str | None = None,
    blocking: bool | None = None,
) -> Check:
    """Require one of the given values. Null passes.

    Args:
        column: The column.
        values: The values: strings, numbers, booleans, dates or datetimes.
        tolerance, name, blocking: As for every check, see `cascade.quality`.
    """
    require_columns("accepted_values", column)
    where = f"accepted_values({column!r})"
    listed = isinstance(values, Collection) and not isinstance(values, str) and bool(values)
    require(listed, f"{values!r} is not a list of values.", where, 'give at least one, for example ["EWR", "JFK"].')
    wrong = [repr(v) for v in values if not isinstance(v, Value) or not _is_finite(v)]
    require(
        not wrong,
        f"{', '.join(wrong)} cannot be compared with a column's values.",
        where,
        "give strings, finite numbers, booleans, dates or datetimes; null always passes, add `not_null`.",
    )
    ordered = sorted(values, key=str) if isinstance(values, set | frozenset) else list(values)
    shown = ", ".join(map(str, ordered[:10])) + (", …" if len(ordered) > 10 else "")
    failing = _where(lambda _: f"{identifier(column)} NOT IN ({literals(ordered)})")
    check_rows = count_failing("accepted_values", failing, f"have `{column}` other than {shown}", tolerance)
    return Check(check_name("accepted_values", name, column), f"`{column}` is one of {shown}.", check_rows, blocking)


@known_options
def matches(
    column: str, pattern: str, *, tolerance: float = 0.0, name: str | None = None, blocking: bool | None = None
) -> Check:
    """Require that the whole value matches a regular expression. Null passes.

    Args:
        column: The column; a value that is not text is compared as the engine prints it.
        pattern: The expression, in the syntax that Python, DuckDB and Trino share: no look-around, no back references.
        tolerance, name, blocking: As for every check, see `cascade.quality`.
    """
    require_columns("matches", column)
    where, problem = f"matches({column!r}, {pattern!r})", "not text"
    try:
        valid = isinstance(pattern, str) and bool(re.compile(pattern))
    except re.error as error:
        valid, problem = False, str(error)
    require(valid, f"{pattern!r} is not a regular expression: {problem}.", where, "correct the pattern.")
    # Escaped characters and sets are not syntax, whatever they contain.
    found = _NOT_IN_ENGINES.search(re.sub(r"\[\^?\]?[^\]]*\]", "x", re.sub(r"\\[^1-9]", "x", pattern)))
    require(
        found is None,
        f"The pattern contains `{found and found[0]}`, which SQL engines do not know.",
        where,
        "write it without look-around, back references and possessive or atomic groups, or use custom_sql.",
    )

    def unlike(scope: Scope) -> str:
        text, whole = f"CAST({identifier(column)} AS varchar)", literal(rf"\A(?:{pattern})\z")
        return f"NOT {scope.lakehouse.engine.regexp_match(text, whole)}"

    check_rows = count_failing("matches", _where(unlike), f"have `{column}` unlike `{pattern}`", tolerance)
    return Check(check_name("matches", name, column), f"`{column}` looks like `{pattern}`.", check_rows, blocking)


def _where(condition: Callable[[Scope], str]) -> Statements:
    """Return the statements for rows that fail one by one, from the SQL condition of a failing row."""

    def statements(scope: Scope) -> tuple[str, str]:
        table, failing = qualified(scope.table), condition(scope)
        counts = f"count(*) AS checked_rows, count(*) FILTER (WHERE {failing}) AS failing_rows"
        return f"SELECT {counts} FROM {table}", f"SELECT * FROM {table} WHERE {failing}"

    return statements


def _is_finite(value: object) -> bool:
    return not isinstance(value, float | Decimal) or math.isfinite(value)


def _names(columns: Sequence[str]) -> str:
    """Return names of columns as part of a sentence."""
    return ", ".join(f"`{column}`" for column in columns)
