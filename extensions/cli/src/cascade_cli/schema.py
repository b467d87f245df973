"""`cascade schema …`: the columns of tables, and what their contracts say."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cascade.config import load_settings
from cascade.errors import UsageError
from cascade_cli.output import json_option, print_json, print_table, progress, say
from cascade_cli.pipeline import finish, moved
from cascade_cli.query import BRANCH_HELP, branch_option
from cascade_cli.style import click

if TYPE_CHECKING:
    from cascade_operations.records import SchemaPlan

__all__ = ["schema"]

#: What `plan` exits with when something has to be decided.
_UNDECIDED = 3
_DECISIONS = (
    click.option(
        "--rename", multiple=True, metavar="OLD=NEW", help="A column of the table has another name now. Repeatable."
    ),
    click.option("--drop", multiple=True, metavar="COLUMN", help="The table loses this column. Repeatable."),
    click.option(
        "--narrow",
        multiple=True,
        metavar="COLUMN",
        help="Write this column again in the type of the contract, if every value fits. Repeatable.",
    ),
)


def _decisions(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_DECISIONS):
        command = option(command)
    return command


@click.group()
def schema() -> None:
    """Compare the columns of tables with their contracts, and change them."""


@schema.command()
@click.argument("table", required=False)
@click.option("--all", "everything", is_flag=True, help="All tables that are loaded, or made by models.")
@_decisions
@branch_option(help=BRANCH_HELP)
@json_option
def plan(
    *,
    table: str | None,
    everything: bool,
    rename: tuple[str, ...],
    drop: tuple[str, ...],
    narrow: tuple[str, ...],
    branch: str,
    as_json: bool,
) -> None:
    """Show how the columns of TABLE become those of its contract, or of its model; nothing is changed.

    New columns and wider types are taken over by the next load. What would lose values, or may be a column with another
    name, is for a person to decide: the plan says with which options, and exits with code 3.

    A model that has changed is made without rows, on a branch that is dropped afterwards: the plan says which columns
    the next run would take away, add, or give another type.
    """
    import cascade_operations as operations

    if (table is None) != everything:
        raise UsageError("A table, or --all, has to be named.", fix="cascade schema plan raw.orders")
    with progress("cascade schema plan") as tell:
        plans = operations.plan_schema(
            load_settings(),
            [table] if table else [],
            branch=branch,
            rename=_pairs(rename),
            drop=drop,
            narrow=narrow,
            tell=tell,
        )
    if as_json:
        print_json(plans)
    else:
        for each in plans:
            _print_plan(each)
    sys.exit(_UNDECIDED if any(each.undecided for each in plans) else 0)


@schema.command()
@click.argument("table")
@_decisions
@click.option("--no-promote", is_flag=True, help="Leave the result on the run's branch.")
@json_option
def apply(
    *,
    table: str,
    rename: tuple[str, ...],
    drop: tuple[str, ...],
    narrow: tuple[str, ...],
    no_promote: bool,
    as_json: bool,
) -> None:
    """Give TABLE the columns of its contract.

    A run on a branch of its own does it, computes what depends on TABLE, and promotes the branch when every blocking
    check has passed. Columns are renamed and dropped without touching a row: what was is read as before, by tags,
    branches and `cascade query --at`.
    """
    import cascade_operations as operations

    with progress("cascade schema apply") as tell:
        done = operations.apply_schema(
            load_settings(),
            table,
            rename=_pairs(rename),
            drop=drop,
            narrow=narrow,
            promote=not no_promote,
            tell=tell,
        )
    if as_json:
        print_json(done)
        sys.exit(0 if done.report is None or done.report.success else 1)
    _print_plan(done)
    if done.report is not None:
        finish(done.report, as_json=False, success=moved(done.report, promote=not no_promote))


def _pairs(rename: tuple[str, ...]) -> dict[str, str]:
    pairs = [one.split("=") for one in rename]
    if wrong := [one for one, pair in zip(rename, pairs, strict=True) if len(pair) != 2 or not all(pair)]:
        raise UsageError(f"--rename {wrong[0]} does not say what becomes what.", fix="--rename old=new")
    return {pair[0]: pair[1] for pair in pairs}


def _print_plan(plan: SchemaPlan) -> None:
    if not plan.steps:
        say(f"{plan.table} has the columns of its contract.")
        return
    say(plan.table)
    print_table(
        ["what", "column", "in the table", "in the contract", ""],
        [[step.action, step.column, step.before, step.after, step.note] for step in plan.steps],
    )
    for step in plan.steps:
        if step.reaches:
            say(f"From {step.column} come {', '.join(step.reaches)}.")
