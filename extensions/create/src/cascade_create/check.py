"""Write a check of a table, and a test with rows that break it."""

from __future__ import annotations

import ast
import contextlib
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cascade.config import Settings
from cascade.errors import UsageError
from cascade.quality import check_name
from cascade_create import existing
from cascade_create.broken import breaking_rows
from cascade_create.changes import Change, Created, create, formatted
from cascade_create.dbt_files import model_files, source_tables
from cascade_create.names import require_name
from cascade_create.render import Raw, imports_of, literal

__all__ = ["RULES", "create_check"]


@dataclass(frozen=True)
class _Given:
    column: Sequence[str]
    least: str
    most: str
    value: Sequence[str]
    pattern: str
    sql: str


def _value(text: str) -> Any:
    """Return a number as one, anything else as text."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, int | float) else text


def _bound(text: str) -> Any:
    """Return a bound: a number, or a date."""
    with contextlib.suppress(ValueError):
        return dt.date.fromisoformat(text)
    return _value(text)


def _written(value: Any) -> Any:
    """Return an argument as a file writes it."""
    return Raw(f"dt.date({value.year}, {value.month}, {value.day})") if isinstance(value, dt.date) else value


def _between(given: _Given) -> list[Any]:
    low, high = (_bound(text) if text else None for text in (given.least, given.most))
    return [given.column[0], low, high]


#: The rules, what each of them needs, and the arguments of the built-in check.
RULES: dict[str, tuple[str, Any]] = {
    "not_null": ("column", lambda given: list(given.column)),
    "unique": ("column", lambda given: list(given.column)),
    "in_range": ("column", _between),
    "accepted_values": ("value", lambda given: [given.column[0], [_value(one) for one in given.value]]),
    "matches": ("pattern", lambda given: [given.column[0], given.pattern]),
    "row_count": ("least", lambda given: [Raw(f"minimum={int(given.least)}")]),
    "sql": ("sql", lambda given: [given.sql]),
}
_ONE_COLUMN = ("in_range", "accepted_values", "matches")
_OPTIONS = {"column": "--column", "value": "--value", "pattern": "--pattern", "least": "--min", "sql": "--sql"}


def create_check(
    settings: Settings,
    name: str,
    *,
    asset: str,
    rule: str,
    column: Sequence[str] = (),
    least: str = "",
    most: str = "",
    value: Sequence[str] = (),
    pattern: str = "",
    sql: str = "",
    warn: bool = False,
    dry_run: bool = False,
) -> Created:
    """Write a check: all of its files, or none.

    Args:
        settings: The project's settings.
        name: Name of the check's file and function.
        asset: The table that it checks, such as `raw.orders`.
        rule: One of `RULES`.
        column: Columns that the rule looks at.
        least: The smallest value that is right.
        most: The greatest value that is right.
        value: The values that are right.
        pattern: A regular expression of the whole value.
        sql: A SELECT of the rows that are wrong.
        warn: Whether a failure is only a warning.
        dry_run: Whether nothing is written.

    Raises:
        UsageError: The name is taken or cannot be one, there is no such table, or the rule lacks something.
    """
    root = settings.project_dir
    require_name(name, "check")
    existing.require_free(root, name, "check", _paths)
    table = asset.replace("/", ".")
    known = {f"raw.{one}" for one in existing.ingested(root)} | set(source_tables(root))
    known |= {f"{file.parent.name}.{one}" for one, file in model_files(root).items()}
    if table not in known:
        raise UsageError(
            f"The project has no table {table!r}. Nothing was written.",
            where="--asset",
            fix=f"name one of {', '.join(sorted(known))}",
        )
    given = _Given(column, least, most, value, pattern, sql)
    key = literal(table.replace(".", "/"))
    blocking = ", blocking=False" if warn else ""
    arguments = _needed(rule, given)
    if rule == "sql":
        code, check = _sql_check(name, key, blocking, arguments[0]), name
    else:
        call = f"{rule}({', '.join(literal(_written(one)) for one in arguments)}{blocking})"
        imports = [f"from cascade.quality import cascade_quality, {rule}"]
        imports += ["import datetime as dt"] if "dt.date(" in call else []
        check = check_name(rule, None, *([] if rule == "row_count" else column))
        code = (
            f'"""A check of {table}."""\n\n{imports_of(imports)}\n\n\n'
            f"@cascade_quality(\n    asset={key},\n    checks=[\n        {call},\n    ],\n)\n"
            f'def {name}() -> None:\n    """What must be true of {table}."""\n'
        )
    rows = breaking_rows(settings, table, rule, arguments)
    test = _test(name, table, check, rows) if rows else _plain_test(name, table)
    python = dict(zip(_paths(name), (code, test), strict=True))
    changes = [Change(path, formatted(root, path, text).encode()) for path, text in python.items()]
    return create(
        root,
        changes,
        what="check",
        name=name,
        asset=table.replace(".", "/"),
        next_commands=("cascade validate", "cascade run"),
        dry_run=dry_run,
    )


def _paths(name: str) -> list[str]:
    """The files of a check."""
    return [f"workflows/quality/{name}.py", f"tests/test_{name}.py"]


def _needed(rule: str, given: _Given) -> list[Any]:
    """Return the arguments of a rule's check."""
    if rule not in RULES:
        raise UsageError(f"{rule!r} is not a rule.", where="--rule", fix=f"choose one of {', '.join(RULES)}")
    needs, arguments = RULES[rule]
    missing = [_OPTIONS[needs]] if not getattr(given, needs) else []
    if rule in _ONE_COLUMN and len(given.column) != 1:
        missing.append("one --column")
    if rule == "in_range" and not (given.least or given.most):
        missing.append("--min or --max")
    if rule == "row_count" and given.least and not given.least.isdigit():
        missing.append("a whole number as --min")
    if missing:
        raise UsageError(f"The rule {rule} needs {', and '.join(missing)}. Nothing was written.", where="--rule")
    found: list[Any] = arguments(given)
    return found


def _sql_check(name: str, key: str, blocking: str, sql: str) -> str:
    text = sql.strip().replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return (
        '"""A check in SQL."""\n\nfrom cascade.quality import cascade_quality\n\n\n'
        f"@cascade_quality(asset={key}{blocking})\ndef {name}() -> str:\n"
        '    """The statement selects the rows that are wrong: none of them may be there."""\n'
        f'    return """\n        {text}\n    """\n'
    )


def _test(name: str, table: str, check: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a test that breaks the rule."""
    imports = imports_of(
        ["from cascade.testing import TemporaryLakehouse", f"from workflows.quality.{name} import {name}"]
    )
    given = literal([dict(row) for row in rows], 4, len(table) + 25)
    return (
        f'"""The check {name} finds what is wrong in {table}."""\n\n{imports}\n\n\n'
        f"def test_{name}_fails_on_rows_that_break_it(lakehouse: TemporaryLakehouse) -> None:\n"
        '    """They are in the table, and the check says so."""\n'
        f"    lakehouse.given({literal(table)}, {given})\n    lakehouse.run({name})\n"
        f"    lakehouse.assert_check({literal(table)}, {literal(check)}, passed=False)\n"
    )


def _plain_test(name: str, table: str) -> str:
    """Return a test for a rule that no row is known to break: the contract refuses it, or its columns are unknown."""
    imports = imports_of(["import dagster as dg", f"from workflows.quality.{name} import {name}"])
    path = ", ".join(literal(part) for part in table.split("."))
    return (
        f'"""The check {name} is one of {table}."""\n\n{imports}\n\n\n'
        f"def test_{name}_checks_its_table() -> None:\n"
        '    """Add rows that break it: `lakehouse.given(…)`, `lakehouse.run(…)`, `lakehouse.assert_check(…)`."""\n'
        f"    assert {{spec.asset_key for spec in {name}.check_specs}} == {{dg.AssetKey([{path}])}}\n"
    )
