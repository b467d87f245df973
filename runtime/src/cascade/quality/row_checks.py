"""The built-in checks that count failing rows. Those on a table as a whole are in `table_checks`."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Collection, Sequence
from decimal import Decimal

from cascade.options import known_options
from cascade.quality.model import (
    Bound,
    Check,
    Outcome,
    Scope,
    Value,
    bounds_text,
    check_name,
    require_columns,
    require_order,
    require_tolerance,
    wrong_option,
)
from cascade.quality.sql import count_rows, literal, quoted, table_sql

__all__ = ["accepted_values", "custom_sql", "in_range", "matches", "not_null", "unique"]

# What Python's `re` knows and the engines do not: look-around, back references, conditions, atomic groups.
_NOT_IN_ENGINES = re.compile(r"\(\?(?:[=!>(]|<[=!]|P=)|\\[1-9]|[*+?}]\+")


@known_options
def not_null(*columns: str, tolerance: float = 0.0, name: str | None = None, blocking: bool | None = None) -> Check:
    """Demand a value in each of these columns.

    Args:
        columns: One column or several; a row fails if any of them is null.
        tolerance: Fraction of the rows that may fail, 0 to 1.
        name: Name of the check; made of the columns by default.
        blocking: Whether a failure blocks the promotion; as the group says by default.
    """
    require_columns("not_null", columns)
    names = _names(columns, "or")

    def failing(_: Scope) -> str:
        return " OR ".join(f"{quoted(c)} IS NULL" for c in columns)

    return Check(
        check_name("not_null", name, *columns),
        f"No row lacks a value in {names}.",
        _each_row("not_null", failing, f"have no {names}", tolerance),
        blocking,
    )


@known_options
def unique(*columns: str, tolerance: float = 0.0, name: str | None = None, blocking: bool | None = None) -> Check:
    """Demand that no two rows have the same values in these columns together.

    All rows that share their values fail. A row with a null among them is nobody's duplicate, as in
    SQL: add `not_null` for those.

    Args:
        columns: One column, or those that make the key.
        tolerance: Fraction of the rows that may fail, 0 to 1.
        name: Name of the check; made of the columns by default.
        blocking: Whether a failure blocks the promotion; as the group says by default.
    """
    require_columns("unique", columns)
    require_tolerance("unique", tolerance)

    def evaluate(scope: Scope) -> Outcome:
        keys = ", ".join(f"{quoted(c)} AS k{i}" for i, c in enumerate(columns))
        positions = ", ".join(str(i + 1) for i in range(len(columns)))
        groups = f"SELECT {keys}, count(*) AS n FROM {table_sql(scope.table)} GROUP BY {positions}"
        shared = " AND ".join(["n > 1", *(f"k{i} IS NOT NULL" for i in range(len(columns)))])
        counts = (
            "SELECT CAST(coalesce(sum(n), 0) AS bigint) AS checked_rows,"
            f" CAST(coalesce(sum(n) FILTER (WHERE {shared}), 0) AS bigint) AS failing_rows"
            f" FROM ({groups}) AS keys"
        )
        shown = ", ".join(f"k{i} AS {quoted(c)}" for i, c in enumerate(columns))
        sample = f"SELECT {shown}, n AS rows_with_this_key FROM ({groups}) AS keys WHERE {shared}"
        return count_rows(scope, counts, sample, f"share their {_names(columns)} with another", tolerance)

    return Check(
        check_name("unique", name, *columns), f"No two rows have the same {_names(columns)}.", evaluate, blocking
    )


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
    """Demand values from `minimum` to `maximum`, both included. Null passes; `NaN` does not.

    Args:
        column: The column.
        minimum: Smallest value: a number, date or datetime (with a zone for a timestamp with a zone).
        maximum: Greatest value.
        tolerance: Fraction of the rows that may fail, 0 to 1.
        name: Name of the check; made of the column by default.
        blocking: Whether a failure blocks the promotion; as the group says by default.
    """
    require_columns("in_range", [column])
    for bound in (minimum, maximum):
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, Bound) or not _is_finite(bound)):
            raise wrong_option(
                f"{bound!r} is no bound.", f"in_range({column!r})", "give a finite number, a date or a datetime."
            )
    require_order(f"in_range({column!r})", minimum, maximum)

    def failing(_: Scope) -> str:
        value, conditions = quoted(column), []
        if minimum is not None:
            conditions.append(f"{value} >= {literal(minimum)}")
        if maximum is not None:
            conditions.append(f"{value} <= {literal(maximum)}")
        elif not isinstance(minimum, dt.date):
            # For DuckDB NaN is greater than every number; this condition refuses it.
            conditions.append(f"{value} <= CAST('Infinity' AS double)")
        return f"NOT ({' AND '.join(conditions)})"

    bounds = bounds_text(minimum, maximum)
    outside = f"outside {minimum}..{maximum}" if None not in (minimum, maximum) else f"that is not {bounds}"
    return Check(
        check_name("in_range", name, column),
        f"`{column}` is {bounds}.",
        _each_row("in_range", failing, f"have {_article(column)} {outside}", tolerance),
        blocking,
    )


@known_options
def accepted_values(
    column: str,
    values: Collection[Value],
    *,
    tolerance: float = 0.0,
    name: str | None = None,
    blocking: bool | None = None,
) -> Check:
    """Demand one of some values. Null passes.

    Args:
        column: The column.
        values: The values: strings, numbers, booleans, dates or datetimes.
        tolerance: Fraction of the rows that may fail, 0 to 1.
        name: Name of the check; made of the column by default.
        blocking: Whether a failure blocks the promotion; as the group says by default.
    """
    require_columns("accepted_values", [column])
    where = f"accepted_values({column!r})"
    if isinstance(values, str) or not isinstance(values, Collection) or not values:
        raise wrong_option(f"{values!r} is no list of values.", where, 'give at least one, for example ["EWR", "JFK"].')
    if wrong := [v for v in values if not isinstance(v, Value) or not _is_finite(v)]:
        raise wrong_option(
            f"{', '.join(map(repr, wrong))} cannot be compared with a column's values.",
            where,
            "give strings, finite numbers, booleans, dates or datetimes; null always passes, add `not_null`.",
        )
    ordered = sorted(values, key=str) if isinstance(values, set | frozenset) else list(values)
    shown = ", ".join(map(str, ordered[:10])) + (", …" if len(ordered) > 10 else "")

    def failing(_: Scope) -> str:
        return f"{quoted(column)} NOT IN ({', '.join(map(literal, ordered))})"

    return Check(
        check_name("accepted_values", name, column),
        f"`{column}` is one of {shown}.",
        _each_row("accepted_values", failing, f"have {_article(column)} other than {shown}", tolerance),
        blocking,
    )


@known_options
def matches(
    column: str, pattern: str, *, tolerance: float = 0.0, name: str | None = None, blocking: bool | None = None
) -> Check:
    """Demand that the whole value matches a regular expression. Null passes.

    Args:
        column: The column; what is no text is compared as the engine prints it.
        pattern: The expression, in what Python, DuckDB and Trino share: no look-around, no back references.
        tolerance: Fraction of the rows that may fail, 0 to 1.
        name: Name of the check; made of the column by default.
        blocking: Whether a failure blocks the promotion; as the group says by default.
    """
    require_columns("matches", [column])
    where = f"matches({column!r}, {pattern!r})"
    try:
        re.compile(pattern if isinstance(pattern, str) else "(")
    except re.error as error:
        raise wrong_option(f"{pattern!r} is no regular expression: {error}.", where, "correct the pattern.") from None
    # Escaped characters and sets are not syntax, whatever they hold.
    if found := _NOT_IN_ENGINES.search(re.sub(r"\[\^?\]?[^\]]*\]", "x", re.sub(r"\\[^1-9]", "x", pattern))):
        raise wrong_option(
            f"The pattern holds `{found[0]}`, which SQL engines do not know.",
            where,
            "do without look-around, back references and possessive or atomic groups, or use custom_sql.",
        )

    def failing(scope: Scope) -> str:
        function = {"embedded": "regexp_matches", "trino": "regexp_like"}[scope.lakehouse.settings.engine]
        whole = literal(rf"\A(?:{pattern})\z")
        return f"NOT {function}(CAST({quoted(column)} AS varchar), {whole})"

    return Check(
        check_name("matches", name, column),
        f"`{column}` looks like `{pattern}`.",
        _each_row("matches", failing, f"have {_article(column)} unlike `{pattern}`", tolerance),
        blocking,
    )


@known_options
def custom_sql(
    name: str, sql: str, *, tolerance: float = 0.0, description: str = "", blocking: bool | None = None
) -> Check:
    """Demand that a statement finds nothing.

    Args:
        name: Name of the check.
        sql: One SELECT of the rows that fail; tables are named `namespace.table`.
        tolerance: Fraction of the table's rows that may fail, 0 to 1.
        description: What is demanded, one sentence.
        blocking: Whether a failure blocks the promotion; as the group says by default.
    """
    require_tolerance("custom_sql", tolerance)
    statement = sql.strip().rstrip(";").rstrip() if isinstance(sql, str) else ""
    if not statement:
        raise wrong_option(f"{sql!r} is no SQL.", f"custom_sql({name!r})", "give a SELECT of the rows that fail.")

    def evaluate(scope: Scope) -> Outcome:
        # On lines of its own: the statement may end with a comment.
        failing = f"(\n{statement}\n) AS failing"
        counts = (
            f"SELECT (SELECT count(*) FROM {table_sql(scope.table)}) AS checked_rows,"
            f" (SELECT count(*) FROM {failing}) AS failing_rows"
        )
        return count_rows(scope, counts, f"SELECT * FROM {failing}", f"fail `{name}`", tolerance)

    demand = description or f"`{name}` selects no rows."
    return Check(check_name("custom_sql", name), demand, evaluate, blocking, sql=statement)


def _each_row(kind: str, failing: Callable[[Scope], str], problem: str, tolerance: float) -> Callable[[Scope], Outcome]:
    """Return how to look at each row alone; `failing` makes the SQL condition of a failing row."""
    require_tolerance(kind, tolerance)

    def evaluate(scope: Scope) -> Outcome:
        table, condition = table_sql(scope.table), failing(scope)
        counts = f"SELECT count(*) AS checked_rows, count(*) FILTER (WHERE {condition}) AS failing_rows FROM {table}"
        return count_rows(scope, counts, f"SELECT * FROM {table} WHERE {condition}", problem, tolerance)

    return evaluate


def _is_finite(value: object) -> bool:
    return not isinstance(value, float | Decimal) or math.isfinite(value)


def _article(column: str) -> str:
    """Return a column's name with its article."""
    return f"a{'n' * (column[0].lower() in 'aeio')} `{column}`"


def _names(columns: Sequence[str], joined: str = "and") -> str:
    """Return names of columns as part of a sentence."""
    *first, last = (f"`{column}`" for column in columns)
    return f"{', '.join(first)} {joined} {last}" if first else last
