"""`cascade plan`: what a run would do, and why, before anything runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

from cascade.config import load_settings
from cascade_cli.output import json_option, print_json, progress, say
from cascade_cli.plan_text import plan_lines
from cascade_cli.style import click

if TYPE_CHECKING:
    from cascade_operations.planned import Plan

__all__ = ["all_option", "end_plan", "full_refresh_option", "partition_option", "plan"]

#: What a plan exits with when the run would break something.
BREAKING = 3


partition_option = click.option(
    "--partition",
    "-p",
    metavar="KEY[..KEY]",
    help="A partition such as 2013-07-01, a range such as 2013-07-01..2013-07-31, or a time such as 2013-07. "
    "By default every partition that is not loaded yet.",
)
full_refresh_option = click.option(
    "--full-refresh",
    is_flag=True,
    help="Make the tables from the start: models from all rows, ingestions from all partitions, without a cursor.",
)
all_option = click.option(
    "--all", "everything", is_flag=True, help="Compute all models, those that nothing has changed for too."
)


@click.command()
@click.argument("selection", nargs=-1, metavar="[SELECTION]...")
@partition_option
@full_refresh_option
@all_option
@json_option
def plan(*, selection: tuple[str, ...], as_json: bool, **asked: Any) -> None:
    """Show what `cascade run` would do, and why; nothing is run.

    SELECTION is what `cascade run --select` takes; without one it is all of the pipeline.

    Says which partitions are missing; which models are computed, and what has changed since their tables were made; the
    columns that appear, change their type or vanish, with what reads them; the checks; and how long it took last time.

    Exit code 3: the run would break something. A column that main has vanishes, gets a type that does not hold all its
    values, or a model cannot be computed.
    """
    import cascade_operations as operations

    with progress("cascade plan") as tell:
        found = operations.plan_run(load_settings(), select=selection, **asked, tell=tell)
    end_plan(found, as_json)


def end_plan(found: Plan, as_json: bool) -> NoReturn:
    """Print a plan, and exit with its code."""
    if as_json:
        print_json(found)
    else:
        say("\n".join(plan_lines(found)))
    sys.exit(BREAKING if found.breaking else 0)
