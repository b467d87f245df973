"""`cascade maintain …`: what grows is rewritten, expires or is removed; what would be deleted is shown first.

`cascade lift`: all tables to another place.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cascade.config import load_settings
from cascade.errors import count
from cascade_cli.output import json_option, print_json, print_table, progress, say
from cascade_cli.style import click
from cascade_maintain import parse_age
from cascade_maintain.settings import of

if TYPE_CHECKING:
    from cascade.config import Settings
    from cascade_maintain.branches import Cleaning
    from cascade_maintain.compact import Compaction
    from cascade_maintain.expire import Expiry
    from cascade_maintain.garbage import Collection
    from cascade_maintain.lift import Lift

__all__ = ["lift", "maintain"]

_SHOWN = 10

_age = partial(click.option, metavar="AGE")
_apply = click.option("--apply", is_flag=True, help="Do it; without this it is only shown.")
_tables = click.argument("tables", nargs=-1)
_files_older_than = partial(
    _age,
    help="How old a file must be, such as 3d or 12h; longer than the longest run. Default: the setting "
    "maintain.files_older_than.",
)
_branches_older_than = partial(
    _age,
    help="How long ago the last thing happened on a branch, such as 7d or 12h. Default: the setting "
    "maintain.branches_older_than.",
)
_keep_history = _age(
    "--keep-history",
    help="How long entries of `cascade branch log` can be restored, and older states of `main` be read. Default: the "
    "setting maintain.keep_history.",
)


def _ages(settings: Settings, **asked: str | None) -> dict[str, Any]:
    """Return each age that was asked for, else as the setting of its name says."""
    own = of(settings)
    return {name: parse_age(age or getattr(own, name)) for name, age in asked.items()}


@click.group()
def maintain() -> None:
    """Keep the lakehouse from growing for ever.

    `all` takes the steps in their order: delete the branches of runs that ended long ago, compact tables, let old
    snapshots leave, remove the files that nothing needs any more. What deletes shows what it would delete, and does it
    with --apply.
    """


@maintain.command("all")
@_branches_older_than("--branches-older-than")
@_files_older_than("--files-older-than")
@_keep_history
@_apply
@json_option
def everything(
    branches_older_than: str | None, files_older_than: str | None, keep_history: str | None, apply: bool, as_json: bool
) -> None:
    """Take all steps: branches, compact, expire, files.

    Without --apply each step says what it would do to the lake as it is now. Exit code 1 when something could not be
    done.
    """
    from cascade_maintain import maintenance

    settings = load_settings()
    ages = _ages(
        settings,
        branches_older_than=branches_older_than,
        files_older_than=files_older_than,
        keep_history=keep_history,
    )
    with progress("cascade maintain all") as tell:
        done = maintenance.maintain_all(
            settings,
            **ages,
            dry_run=not apply,
            tell=tell,
        )
    if as_json:
        print_json(done)
    else:
        _show_branches(done.branches)
        _show_compaction(done.compaction)
        _show_expiry(done.expiry)
        _show_files(done.files)
        _show_how_to_apply(apply)
    sys.exit(1 if done.branches.problems or done.compaction.problems or done.files.failed else 0)


@maintain.command()
@_tables
@click.option("--dry-run", is_flag=True, help="Rewrite nothing; show what would be rewritten.")
@json_option
def compact(tables: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Rewrite small files of tables to few large ones, sorted by key.

    TABLES are named namespace.table; all tables of `main` by default. No row changes, and open branches can still be
    promoted. The old files stay until `cascade maintain files`.
    """
    from cascade_maintain import maintenance

    with progress("cascade maintain compact") as tell:
        done = maintenance.compact(load_settings(), tables, dry_run=dry_run, tell=tell)
    if as_json:
        print_json(done)
    else:
        _show_compaction(done)
    sys.exit(1 if done.problems else 0)


@maintain.command()
@_tables
@_keep_history
@_apply
@json_option
def expire(tables: tuple[str, ...], keep_history: str | None, apply: bool, as_json: bool) -> None:
    """Let old snapshots of tables leave.

    TABLES are named namespace.table; all tables of `main` by default. No row changes; what a branch, a tag or a recent
    entry of the log names stays readable.
    """
    from cascade_maintain import maintenance

    settings = load_settings()
    ages = _ages(settings, keep_history=keep_history)
    with progress("cascade maintain expire") as tell:
        done = maintenance.expire(settings, tables, **ages, dry_run=not apply, tell=tell)
    if as_json:
        print_json(done)
    else:
        _show_expiry(done)
        _show_how_to_apply(apply)


@maintain.command()
@_branches_older_than("--older-than")
@_apply
@json_option
def branches(older_than: str | None, apply: bool, as_json: bool) -> None:
    """Delete old branches of failed runs and backfills.

    `main`, `dev`, tags and branches that people created are never touched.
    """
    from cascade_maintain import maintenance

    settings = load_settings()
    (age,) = _ages(settings, branches_older_than=older_than).values()
    with progress("cascade maintain branches") as tell:
        done = maintenance.drop_branches(settings, older_than=age, dry_run=not apply, tell=tell)
    if as_json:
        print_json(done)
    else:
        _show_branches(done)
        _show_how_to_apply(apply)
    sys.exit(1 if done.problems else 0)


@maintain.command()
@_files_older_than("--older-than")
@_keep_history
@_apply
@json_option
def files(older_than: str | None, keep_history: str | None, apply: bool, as_json: bool) -> None:
    """Remove the files of tables that nothing needs any more.

    What a branch, a tag or a recent entry of the log needs stays.
    """
    from cascade_maintain import maintenance

    settings = load_settings()
    age, history = _ages(settings, files_older_than=older_than, keep_history=keep_history).values()
    with progress("cascade maintain files") as tell:
        done = maintenance.remove_files(settings, older_than=age, keep_history=history, dry_run=not apply, tell=tell)
    if as_json:
        print_json(done)
    else:
        _show_files(done)
        _show_how_to_apply(apply)
    sys.exit(1 if done.failed else 0)


@maintain.command()
@json_option
def verify(as_json: bool) -> None:
    """Read every file of every branch and tag; name the damaged.

    Checksums tell. Files that Trino wrote have none, and a changed value in them may go unseen. Exit code 1 when files
    are damaged.
    """
    from cascade_maintain import maintenance

    with progress("cascade maintain verify") as tell:
        done = maintenance.verify(load_settings(), tell=tell)
    if as_json:
        print_json(done)
    else:
        if done.damaged:
            print_table(["table", "damaged file", "why"], [(d.table, d.path, d.problem) for d in done.damaged])
        without = f"; {done.without_checksums:,} have no checksums" if done.without_checksums else ""
        say(f"Read {done.files:,} files, {done.bytes / 1e6:,.1f} MB: {len(done.damaged):,} damaged{without}.")
        if done.damaged:
            say("Next: restore them from a backup, or load their tables again.")
    sys.exit(1 if done.damaged else 0)


@click.command()
@click.option(
    "--from",
    "folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The data folder of the lake to be lifted; by default the setting data_dir: `.cascade` of the project.",
)
@click.option("--yes", is_flag=True, help="Do it; without this it is only shown.")
@json_option
def lift(folder: Path | None, yes: bool, as_json: bool) -> None:
    """Copy the lake of a laptop, with its history, to the lake of the settings.

    Set the servers first: `cascade services env`. All tables of `main` arrive at once, or none. The old lake stays as
    it is. After an interruption the same command goes on where it was.
    """
    from cascade_maintain.lift import lift_lake

    with progress("cascade lift") as tell:
        done = lift_lake(load_settings(), folder and folder.absolute(), dry_run=not yes, tell=tell)
    if as_json:
        print_json(done)
    else:
        _show_lift(done)


def _show_lift(done: Lift) -> None:
    columns = ["table", "snapshots", "files", "MB", "at the target"]
    rows = [
        (t.table, t.snapshots, t.files, t.bytes / 1e6, "is there" if t.is_there else f"{t.files_there:,} files")
        for t in done.tables
    ]
    if rows:
        print_table(columns, rows)
    new = [table for table in done.tables if not table.is_there]
    size = f"{count(len(new), 'table')}, {count(sum(t.files for t in new), 'file')}"
    megabytes = sum(t.bytes for t in new) / 1e6
    verb = "Would lift" if done.dry_run else "Lifted"
    say(f"{verb} {size}, {megabytes:,.1f} MB, from {done.source} to {done.target}.")
    if done.branches:
        say(f"Not lifted, for only `main` is: {', '.join(done.branches)}. Promote what shall come along.")
    if new:
        say(f"{'Nothing was done. ' if done.dry_run else ''}Next: `cascade {'lift --yes' if done.dry_run else 'run'}`.")


def _show_branches(done: Cleaning) -> None:
    verb = "would be deleted" if done.dry_run else "deleted"
    rows = [[name, verb, why] for name, why in done.removed.items()]
    rows += [[name, "stays", why] for name, why in done.left.items()]
    if rows:
        print_table(["branch", "", "why"], rows)
    else:
        say("There are no branches of runs.")
    for what in done.leftovers:
        say(f"{'Would remove' if done.dry_run else 'Removed'} {what}, left over from an ended process")
    for problem in done.problems:
        click.echo(f"problem: {problem}", err=True)


def _show_compaction(done: Compaction) -> None:
    if done.compacted:
        columns = ["table", "files", "MB", "new files", "new MB"]
        rows = [(c.table, c.files, c.bytes / 1e6, c.new_files, c.new_bytes / 1e6) for c in done.compacted]
        print_table(columns[:4] if done.dry_run else columns, [row[:4] for row in rows] if done.dry_run else rows)
    verb = "Would compact" if done.dry_run else "Compacted"
    say(f"{verb} {len(done.compacted):,} of {count(done.looked_at, 'table')}.")
    _show_left(done.left)
    for name, problem in done.problems.items():
        click.echo(f"problem: {name}: {problem}", err=True)


def _show_expiry(done: Expiry) -> None:
    if done.expired:
        print_table(["table", "old snapshots", "stay"], [(e.table, e.snapshots, e.kept) for e in done.expired])
    verb = "Would let" if done.dry_run else "Let"
    say(f"{verb} old snapshots of {len(done.expired):,} of {count(done.looked_at, 'table')} leave.")
    _show_left(done.left)


def _show_files(done: Collection) -> None:
    tables = defaultdict(list)
    for file in done.removed:
        tables[".".join(file.path.split("/")[:2])].append(file.size)
    if tables:
        rows = [(name, len(sizes), sum(sizes) / 1e6) for name, sizes in sorted(tables.items())]
        print_table(["table", "files", "MB"], rows)
    size = f"{count(len(done.removed), 'file')}, {done.bytes / 1e6:,.1f} MB"
    rest = f"{done.needed:,} are needed, {done.young:,} too young to be judged"
    say(f"{'Would remove' if done.dry_run else 'Removed'} {size}; {rest}.")
    for path in done.missing[:_SHOWN]:
        click.echo(f"warning: missing, though an old state needs it: {path}", err=True)
    for path, problem in list(done.failed.items())[:_SHOWN]:
        click.echo(f"could not be removed: {path}: {problem}", err=True)


def _show_left(tables: tuple[str, ...]) -> None:
    for name in tables:
        say(f"{name} stays as it is: runs kept writing it; the next time will do.")


def _show_how_to_apply(apply: bool) -> None:
    if not apply:
        say("Nothing was done. Next: the same with --apply.")
