"""`cascade query`: one SELECT on a branch."""

from __future__ import annotations

from functools import partial

from cascade.config import load_settings
from cascade.errors import count
from cascade_cli.output import json_option, print_json, print_table, say
from cascade_cli.style import click

__all__ = ["BRANCH_HELP", "branch_option", "query"]

_SHOWN = 1000
branch_option = partial(click.option, "--branch", "-b", default="main", show_default=True, metavar="NAME")
BRANCH_HELP = "Branch or tag to read."


@click.command()
@click.argument("sql")
@branch_option(help=BRANCH_HELP)
@click.option(
    "--at",
    metavar="SNAPSHOT_OR_TIMESTAMP",
    help="Read the past: a snapshot's id, or an ISO time, which is UTC without a zone.",
)
@json_option
def query(sql: str, branch: str, at: str | None, as_json: bool) -> None:
    """Run one SELECT; tables are named `namespace.table`, for example gold.weather_daily.

    With --json the rows are an array of objects.
    """
    import cascade_operations as operations

    rows = operations.query(load_settings(), sql, branch=branch, at=at)
    if as_json:
        print_json(rows)
        return
    print_table(rows.column_names, [list(row.values()) for row in rows.slice(0, _SHOWN).to_pylist()])
    more = rows.num_rows - _SHOWN
    say(f"\n{count(rows.num_rows, 'row')}" + (f", the first {_SHOWN:,} are shown" if more > 0 else ""))
