"""`cascade query`, `cascade table` and `cascade quarantine`: what a branch holds."""

from __future__ import annotations

from functools import partial

from cascade.config import load_settings
from cascade.errors import count
from cascade_cli.output import answer_table, json_option, print_json, print_table, say
from cascade_cli.style import click

__all__ = ["quarantine", "query", "table"]

_SHOWN = 1000
_branch = partial(click.option, "--branch", "-b", default="main", show_default=True, metavar="NAME")
_BRANCH_HELP = "Branch or tag to read."


@click.command()
@click.argument("sql")
@_branch(help=_BRANCH_HELP)
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


@click.group()
def table() -> None:
    """Show the tables of a branch."""


@table.command("list")
@_branch(help=_BRANCH_HELP)
@json_option
def list_tables(branch: str, as_json: bool) -> None:
    """List tables with their rows and snapshots."""
    import cascade_operations as operations

    found = operations.list_tables(load_settings(), branch=branch)
    columns = ["table", "rows", "snapshot", "changed (UTC)"]
    answer_table(as_json, found, columns, lambda table: [*vars(table).values()])


@click.group()
def quarantine() -> None:
    """Show rows that loads have set aside."""


@quarantine.command("list")
@_branch(help=_BRANCH_HELP)
@json_option
def list_quarantine(branch: str, as_json: bool) -> None:
    """List the tables of which rows are set aside."""
    import cascade_operations as operations

    found = operations.list_quarantine(load_settings(), branch=branch)
    columns = ["table", "rows", "quarantine"]
    empty = f"No rows are in quarantine on {branch}."
    answer_table(as_json, found, columns, lambda q: [q.table, q.rows, q.quarantine], empty=empty)


@quarantine.command()
@click.argument("table")
@_branch(help=_BRANCH_HELP)
@click.option("--limit", "-n", default=100, show_default=True, help="How many rows.")
@json_option
def show(table: str, branch: str, limit: int, as_json: bool) -> None:
    """Show rows of TABLE that were set aside, newest first, and why."""
    import cascade_operations as operations

    found = operations.read_quarantine(load_settings(), table, branch=branch, limit=limit)
    columns = ["at (UTC)", "partition", "reasons", "row"]
    answer_table(as_json, found, columns, lambda row: [row.at, row.partition, "; ".join(row.reasons), row.row])
