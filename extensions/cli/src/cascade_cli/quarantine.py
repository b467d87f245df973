"""`cascade quarantine …`: rows that loads have set aside, and their way back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cascade.config import load_settings
from cascade.errors import UsageError, count
from cascade_cli.output import answer, answer_table, json_option, print_json, print_table, progress, say
from cascade_cli.pipeline import finish, moved
from cascade_cli.query import BRANCH_HELP, branch_option
from cascade_cli.style import click

if TYPE_CHECKING:
    from cascade_operations.records import QuarantineReplay

__all__ = ["quarantine"]

_FILTERS = (
    click.option("--partition", "-p", metavar="KEY", help="Only rows of this partition."),
    click.option("--run", metavar="ID", help="Only rows of this run; the start of its id is enough."),
    click.option("--reason", metavar="TEXT", help="Only rows with this text in one of their reasons."),
)
_COLUMNS = ["at (UTC)", "partition", "reasons", "row"]


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_FILTERS):
        command = option(command)
    return command


@click.group()
def quarantine() -> None:
    """Show rows that loads have set aside, load them again, or drop them."""


@quarantine.command("list")
@branch_option(help=BRANCH_HELP)
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
@branch_option(help=BRANCH_HELP)
@_filters
@click.option("--limit", "-n", type=int, help="How many rows; 100 by default, all of them with --to.")
@click.option(
    "--to",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also write them to a file to mend them in, .jsonl or .csv.",
)
@json_option
def show(
    *,
    table: str,
    branch: str,
    partition: str | None,
    run: str | None,
    reason: str | None,
    limit: int | None,
    to: Path | None,
    as_json: bool,
) -> None:
    """Show rows of TABLE that were set aside, newest first, and why.

    With --to, correct the values in the file and give it to `cascade quarantine replay --from`; its column
    `_cascade_id` tells which row each line stands for.
    """
    import cascade_operations as operations

    if limit is None and to is None:
        limit = 100
    found = operations.read_quarantine(
        load_settings(), table, branch=branch, partition=partition, run=run, reason=reason, limit=limit, to=to
    )
    if to is not None and not as_json:
        say(f"Wrote {count(len(found), 'row')} to {to}")
        return
    answer_table(as_json, found, _COLUMNS, lambda row: [row.at, row.partition, "; ".join(row.reasons), row.row])


@quarantine.command()
@click.argument("table")
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Load the mended rows of this file in their place: .parquet, .jsonl or .csv.",
)
@_filters
@click.option("--no-promote", is_flag=True, help="Leave the result on the run's branch.")
@click.option("--dry-run", is_flag=True, help="Only say what would become of the rows.")
@json_option
def replay(
    *,
    table: str,
    source: Path | None,
    partition: str | None,
    run: str | None,
    reason: str | None,
    no_promote: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Load rows of TABLE from quarantine again, against the contract as it is now.

    Those that pass enter the table and leave the quarantine at once; those that fail stay, with their new reasons.
    They are added: of their partition nothing is replaced but rows with the same key. The run works on a branch of
    its own, computes what depends on TABLE, and promotes the branch when every blocking check has passed.

    A row of the file stands for the row in quarantine with its `_cascade_id`, or without that column for the one with
    its unique key. Rows of a file that was loaded already are left out.
    """
    import cascade_operations as operations

    with progress("cascade quarantine replay") as tell:
        done = operations.replay_quarantine(
            load_settings(),
            table,
            source=source,
            partition=partition,
            run=run,
            reason=reason,
            promote=not no_promote,
            dry_run=dry_run,
            tell=tell,
        )
    if as_json:
        print_json(done)
        sys.exit(0 if done.report is None or done.report.success else 1)
    for line in _became(done):
        say(line)
    if done.report is not None:
        finish(done.report, as_json=False, success=moved(done.report, promote=not no_promote))


def _became(done: QuarantineReplay) -> list[str]:
    """Return what became of the rows, in words."""
    would = "would be " if done.report is None else ""
    lines = [
        f"{done.table}: {count(done.rows, 'row')} of the quarantine: {done.loaded:,} {would}loaded, "
        f"{done.outdated:,} outdated, {len(done.failed):,} failed again"
    ]
    if done.failed:
        print_table(_COLUMNS, [[r.at, r.partition, "; ".join(r.reasons), r.row] for r in done.failed[:20]])
    if done.unknown:
        lines.append(f"Left out: {count(done.unknown, 'row')} of the file, which are not in quarantine (any more).")
    if done.stale:
        lines.append(f"Not computed again, since they have partitions: {', '.join(done.stale)}")
    return lines


@quarantine.command()
@click.argument("table")
@_filters
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say how many rows it would be.")
@json_option
def drop(
    *,
    table: str,
    partition: str | None,
    run: str | None,
    reason: str | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Drop rows of TABLE from quarantine for good: all of them, or those that the options choose.

    `cascade branch restore` brings them back as long as the log of `main` keeps their files.
    """
    import cascade_operations as operations

    act = partial(operations.drop_quarantine, load_settings(), table, partition=partition, run=run, reason=reason)
    done = act(dry_run=True)
    if not dry_run:
        what = f"Drop {count(done.rows, 'row')} of {done.table} from quarantine, and keep {done.left:,}"
        if not yes and (as_json or not sys.stdin.isatty()):
            raise UsageError(f"{what}: nobody can be asked.", fix="say --yes.")
        if not yes and not click.confirm(f"{what}?", err=True):
            raise UsageError("Nothing was dropped.")
        with progress("cascade quarantine drop") as tell:
            done = act(tell=tell)
    word = "Would drop" if dry_run else "Dropped"
    answer(as_json, done, f"{word} {count(done.rows, 'row')} of {done.table} from quarantine; {done.left:,} left.")
