"""`cascade table …`: the tables of a branch, and how they are dropped, renamed and reset."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from cascade.config import load_settings
from cascade.errors import UsageError, count
from cascade_cli.consent import WORDS, conflicts_of, consent, described
from cascade_cli.output import answer_table, json_option, print_json, print_table, progress, say
from cascade_cli.pipeline import finish, moved
from cascade_cli.query import BRANCH_HELP, branch_option
from cascade_cli.style import click

if TYPE_CHECKING:
    from cascade_operations.table_records import CheckState, TableAction, TableDetail

__all__ = ["table"]

_SHOWN = 5
_CHANGE = (
    click.option("--no-promote", is_flag=True, help="Leave the result on the branch of the command."),
    click.option("--dry-run", is_flag=True, help="Only say what would happen."),
    click.option("--yes", "-y", is_flag=True, help="Do not ask."),
    json_option,
)


def _change(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_CHANGE):
        command = option(command)
    return command


@click.group()
def table() -> None:
    """Show, drop, rename and reset tables."""


@table.command("list")
@branch_option(help=BRANCH_HELP)
@json_option
def list_tables(branch: str, as_json: bool) -> None:
    """List the tables of a branch, and what makes each of them.

    An orphan is a table that nothing of the project makes any more: its workflow or model was deleted or renamed.
    """
    import cascade_operations as operations

    with progress("cascade table list") as tell:
        found = operations.list_tables(load_settings(), branch=branch, tell=tell)
    columns = ["table", "owner", "rows", "size", "snapshots", "loaded (UTC)", "checks"]
    answer_table(
        as_json,
        found,
        columns,
        lambda one: [one.table, one.owner, one.rows, _size(one.bytes), one.snapshots, one.updated_at, one.checks],
        empty=f"{branch} has no tables yet. Next: cascade run",
    )


@table.command()
@click.argument("name", metavar="TABLE")
@branch_option(help=BRANCH_HELP)
@json_option
def show(name: str, branch: str, as_json: bool) -> None:
    """Show the columns of TABLE, what is loaded, its key, its cursor, its files, its checks and who reads it.

    Each check is shown with its last result, from Dagster's records.
    """
    import cascade_operations as operations

    with progress("cascade table show") as tell:
        found = operations.show_table(load_settings(), name, branch=branch, tell=tell)
    if as_json:
        print_json(found)
        return
    for label, text in _facts(found):
        say(f"{label.ljust(12)}{text}")
    say()
    columns = [[c.name, c.type, "yes" if c.required else "", c.description or ""] for c in found.columns]
    print_table(["column", "type", "required", "description"], columns)


def _facts(found: TableDetail) -> list[tuple[str, str]]:
    """Return what is said of a table above its columns; what it does not have is left out."""
    state, spans = found.state, found.partitions
    shown = ", ".join(spans[:_SHOWN]) + (f" and {len(spans) - _SHOWN} more ranges" if len(spans) > _SHOWN else "")
    files = f"{count(found.files, 'file')}, {_size(state.bytes)}" if found.files is not None else ""
    facts = [
        ("table", state.table),
        ("owner", state.owner),
        ("rows", f"{state.rows:,}" if state.rows is not None else ""),
        ("loaded", f"{state.updated_at:%Y-%m-%d %H:%M:%S} UTC, snapshot {state.snapshot}" if state.snapshot else ""),
        ("partitions", shown),
        ("key", ", ".join(found.key)),
        ("cursor", found.cursor or ""),
        ("quarantine", count(found.quarantined, "row") if found.quarantined else ""),
        ("files", files),
        ("folder", found.location),
        *(("" if i else "checks", _check_text(one)) for i, one in enumerate(found.checks)),
        ("read by", ", ".join(found.readers)),
    ]
    return [(label, text) for label, text in facts if text]


def _check_text(one: CheckState) -> str:
    """Return the last result of a check, in words."""
    when = f" {one.at:%Y-%m-%d %H:%M:%S} UTC" if one.at else ""
    where = f" on branch {one.branch}" if one.branch else ""
    other = f", on other rows{where}" if one.at and not one.current else ""
    return f"{one.check}{'' if one.blocking else ' (warns)'}: {one.state}{when}{other}"


@table.command()
@click.argument("name", metavar="TABLE")
@branch_option(help=BRANCH_HELP)
@click.option("--limit", "-n", default=20, show_default=True, help="How many snapshots.")
@json_option
def history(name: str, branch: str, limit: int, as_json: bool) -> None:
    """Show the snapshots of TABLE, newest first: `cascade query --at` reads each of them."""
    import cascade_operations as operations

    answer_table(
        as_json,
        operations.table_history(load_settings(), name, branch=branch, limit=limit),
        ["snapshot", "at (UTC)", "operation", "rows", "added", "removed", "run"],
        lambda one: [
            one.snapshot,
            one.at,
            one.operation,
            one.rows,
            one.added,
            one.removed,
            one.run[:8] if one.run else None,
        ],
        empty=f"{name} was never written.",
    )


@table.command()
@click.argument("names", metavar="TABLE...", nargs=-1)
@click.option("--orphans", is_flag=True, help="Drop all tables that nothing of the project makes any more.")
@_change
def drop(*, names: tuple[str, ...], orphans: bool, no_promote: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Drop TABLEs from `main`, with the rows of them that were set aside.

    They are dropped on a branch, which is promoted: marts leave the serving database then, too. Other branches, tags
    and older states of `main` keep them, and `cascade branch restore` brings them back.
    """
    import cascade_operations as operations

    if not names and not orphans:
        raise UsageError("A table, or --orphans, has to be named.", fix="cascade table list shows them.")
    act = partial(operations.drop_tables, load_settings(), names, unowned=orphans, promote=not no_promote)
    _do(act, dry_run=dry_run, yes=yes, as_json=as_json, promote=not no_promote)


@table.command()
@click.argument("name", metavar="TABLE")
@click.argument("to", metavar="NEW_NAME")
@_change
def rename(*, name: str, to: str, no_promote: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Give TABLE another name: rows, history, loaded partitions and cursor stay.

    First give the workflow or the model the new name. The table is renamed on a branch; its checks run there, a model
    is computed, and the branch is promoted.
    """
    import cascade_operations as operations

    act = partial(operations.rename_table, load_settings(), name, to, promote=not no_promote)
    _do(act, dry_run=dry_run, yes=yes, as_json=as_json, promote=not no_promote)


@table.command()
@click.argument("name", metavar="TABLE")
@_change
def reset(*, name: str, no_promote: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Empty TABLE: rows, rows set aside, loaded partitions and cursor go together.

    The next load begins from the start, and may give the table other columns. It happens on a branch, which is promoted
    when the table's blocking checks pass. To load the table again in the same run, so that no reader sees it empty, use
    `cascade run --full-refresh --select TABLE`.
    """
    import cascade_operations as operations

    act = partial(operations.reset_table, load_settings(), name, promote=not no_promote)
    _do(act, dry_run=dry_run, yes=yes, as_json=as_json, promote=not no_promote)


def _do(act: Callable[..., TableAction], *, dry_run: bool, yes: bool, as_json: bool, promote: bool) -> None:
    """Say what would happen, ask, and do it."""
    plan = act(dry_run=True)
    if dry_run or not plan.tables:
        _finish(plan, as_json=as_json, promote=promote)
    consent(plan, yes=yes, as_json=as_json)
    with progress(f"cascade table {plan.action}") as tell:
        done = act(tell=tell)
    _finish(done, as_json=as_json, promote=promote)


def _finish(done: TableAction, *, as_json: bool, promote: bool) -> NoReturn:
    """Print what became of tables, and exit with its code."""
    failed = done.report is not None and not done.report.success
    if as_json:
        print_json(done)
    elif not done.tables:
        say("There are no orphans: something of the project makes each table.")
    elif done.branch is None:
        say("\n".join([*described(done), "Nothing was done."]))
    elif done.report is not None:
        finish(done.report, as_json=False, success=moved(done.report, promote=promote) + _next(done))
    else:
        for line in conflicts_of(done):
            say(line)
        for one in done.tables:
            say(f"{one.table} is {WORDS[done.action]}{f' to {one.becomes}' if one.becomes else ''}.")
        if done.move is None:
            say(f"On branch {done.branch}, not promoted. Next: cascade branch promote {done.branch}")
        else:
            undo = f"cascade branch restore {done.move.id - 1}"
            say(f"Branch {done.branch} was promoted to main (entry {done.move.id} of the log). Undo: {undo}")
    sys.exit(1 if failed else 0)


def _size(number: int | None) -> str | None:
    """Return bytes as people read them."""
    if number is None:
        return None
    power = min(3, (len(str(number)) - 1) // 3)
    return f"{number / 1000**power:.{1 if power else 0}f} {('B', 'kB', 'MB', 'GB')[power]}"


def _next(done: TableAction) -> str:
    return f"\nNext: cascade run --select {done.tables[0].table}+" if done.action == "reset" else ""
