"""Ask before tables are dropped, renamed, reset or loaded again from the start."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cascade.errors import UsageError, count
from cascade_cli.style import click

if TYPE_CHECKING:
    from cascade_operations.table_records import TableAction

__all__ = ["WORDS", "conflicts_of", "consent", "described"]

#: What is done to a table, by the action.
WORDS = {"drop": "dropped", "rename": "renamed", "reset": "emptied", "refresh": "loaded again from the start"}


def consent(plan: TableAction, *, yes: bool, as_json: bool) -> None:
    """Ask whether something is to be done to tables.

    Raises:
        UsageError: The answer is no, or nobody can be asked.
    """
    if yes:
        return
    names = ", ".join(one.table for one in plan.tables)
    if as_json or not sys.stdin.isatty():
        raise UsageError(
            f"{names} would be {WORDS[plan.action]}: nobody can be asked.", fix="say --yes; --dry-run tells more."
        )
    for line in described(plan):
        click.echo(line, err=True)
    if not click.confirm("Go on?", err=True):
        raise UsageError("Nothing was done.")


def described(plan: TableAction) -> list[str]:
    """Return what would happen to tables, in words."""
    lines = []
    for one in plan.tables:
        rows = "an unknown number of rows" if one.rows is None else count(one.rows, "row")
        lines.append(f"{one.table} would be {WORDS[plan.action]}{f' to {one.becomes}' if one.becomes else ''}: {rows}")
        if plan.action == "drop" and one.owner not in ("orphan", "quarantine", "unknown"):
            lines.append(f"  a {one.owner} still makes it: the next run would make it again")
        if plan.action in ("drop", "rename") and one.readers:
            lines.append(f"  read by {', '.join(one.readers)}")
    if plan.action in ("reset", "refresh") and plan.tables:
        lines.append("  rows that their sources do not give any more would be in older states of main only")
    return lines + conflicts_of(plan)


def conflicts_of(plan: TableAction) -> list[str]:
    """Return what happens to open branches, in words."""
    return [f"Branch {name} has changed these tables, too: it cannot be promoted any more." for name in plan.conflicts]
