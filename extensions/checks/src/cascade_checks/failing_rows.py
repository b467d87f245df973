"""A check that counts failing rows: the statement that a user wrote, and what every such check does with its count."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeAlias

from cascade.duck.sql import qualified
from cascade.errors import QueryError
from cascade.names import CHECKED_ROWS, FAILING_ROWS
from cascade.options import known_options
from cascade.quality import SAMPLE_ROWS, Check, Outcome, Scope, check_name, require
from cascade_checks.refusals import percent, require_tolerance

__all__ = ["Statements", "count_failing", "custom_sql"]

#: Makes two statements: an aggregate with `checked_rows` and `failing_rows`, and a SELECT of the failing rows.
Statements: TypeAlias = Callable[[Scope], tuple[str, str]]


@known_options
def custom_sql(
    name: str, sql: str, *, tolerance: float = 0.0, description: str = "", blocking: bool | None = None
) -> Check:
    """Require that a statement selects no rows.

    Args:
        name: Name of the check.
        sql: One SELECT of the rows that fail; tables are named `namespace.table`.
        tolerance: Fraction of the table's rows that may fail, 0 to 1.
        description: What is required, one sentence.
        blocking: As for every check, see `cascade.quality`.
    """
    statement = sql.strip().rstrip(";").rstrip() if isinstance(sql, str) else ""
    require(bool(statement), f"{sql!r} is not SQL.", f"custom_sql({name!r})", "give a SELECT of the rows that fail.")

    def statements(scope: Scope) -> tuple[str, str]:
        # On lines of its own: the statement may end with a comment.
        failing = f"(\n{statement}\n) AS failing"
        total = f"(SELECT count(*) FROM {qualified(scope.table)}) AS checked_rows"
        return f"SELECT {total}, (SELECT count(*) FROM {failing}) AS failing_rows", f"SELECT * FROM {failing}"

    check_rows = count_failing("custom_sql", statements, f"fail `{name}`", tolerance)
    says = description or f"`{name}` selects no rows."
    return Check(check_name("custom_sql", name), says, check_rows, blocking, sql=statement)


def count_failing(kind: str, statements: Statements, problem: str, tolerance: float) -> Callable[[Scope], Outcome]:
    """Return a function that compares how many rows fail with how many may.

    Args:
        kind: The check, for messages.
        statements: What to run.
        problem: What is wrong with the rows, as the end of a sentence that counts them.
        tolerance: Fraction that may fail.
    """
    require_tolerance(kind, tolerance)

    def evaluate(scope: Scope) -> Outcome:
        counts, failing = statements(scope)
        (row,) = scope.query(counts)
        checked, wrong = int(row["checked_rows"]), int(row["failing_rows"])
        fraction = wrong / checked if checked else float(wrong > 0)
        sample: list[dict[str, Any]] = []
        if wrong:
            with contextlib.suppress(QueryError, ValueError, OverflowError):  # the verdict is valid without a sample
                sample = scope.query(f"{failing} LIMIT {SAMPLE_ROWS}")
        figures = {CHECKED_ROWS: checked, FAILING_ROWS: wrong, "fraction": fraction}
        share = f"({percent(fraction)}, allowed {percent(tolerance)})"
        return Outcome(
            fraction <= tolerance,
            f"{wrong:,} of {checked:,} rows of {scope.table} {problem} {share}",
            {**figures, "tolerance": float(tolerance), "sql": counts},
            sample,
        )

    return evaluate
