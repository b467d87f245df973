"""`cascade maintain …`: rewrite small files, drop old branches of runs, and files that nothing needs."""

from __future__ import annotations

import sys
from collections import defaultdict
from functools import partial

from cascade.config import load_settings
from cascade.errors import count
from cascade_cli.output import json_option, print_json, print_table, progress, say
from cascade_cli.style import click
from cascade_maintain import BRANCHES_OLDER_THAN, FILES_OLDER_THAN, KEEP_HISTORY, parse_age

__all__ = ["maintain"]


_age = partial(click.option, metavar="AGE", show_default=True)
_dry_run = click.option("--dry-run", is_flag=True, help="Remove nothing; show what would be removed.")


@click.group()
def maintain() -> None:
    """Keep the lakehouse from growing for ever.

    Two steps: delete the branches of runs that ended long ago, then remove the files that nothing needs any more.
    """


@maintain.command()
@click.argument("tables", nargs=-1)
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
        if done.compacted:
            columns = ["table", "files", "MB", "new files", "new MB"]
            rows = [(c.table, c.files, c.bytes / 1e6, c.new_files, c.new_bytes / 1e6) for c in done.compacted]
            print_table(columns[:4] if dry_run else columns, [row[:4] for row in rows] if dry_run else rows)
        verb = "Would compact" if dry_run else "Compacted"
        say(f"{verb} {len(done.compacted):,} of {count(done.looked_at, 'table')}.")
        for name in done.left:
            say(f"{name} stays as it is: runs kept writing it; the next time will do.")
        for name, problem in done.problems.items():
            click.echo(f"problem: {name}: {problem}", err=True)
    sys.exit(1 if done.problems else 0)


@maintain.command()
@_age(
    "--older-than",
    default=BRANCHES_OLDER_THAN,
    help="How long ago the last thing happened on a branch, such as 7d or 12h.",
)
@_dry_run
@json_option
def branches(older_than: str, dry_run: bool, as_json: bool) -> None:
    """Delete old branches of failed runs and backfills.

    `main`, `dev`, tags and branches that people created are never touched.
    """
    from cascade_maintain import maintenance

    age = parse_age(older_than)
    with progress("cascade maintain branches") as tell:
        done = maintenance.drop_branches(load_settings(), older_than=age, dry_run=dry_run, tell=tell)
    if as_json:
        print_json(done)
    else:
        verb = "would be deleted" if dry_run else "deleted"
        rows = [[name, verb, why] for name, why in done.removed.items()]
        rows += [[name, "stays", why] for name, why in done.left.items()]
        if rows:
            print_table(["branch", "", "why"], rows)
        else:
            say("There are no branches of runs.")
        for what in done.leftovers:
            say(f"{'Would remove' if dry_run else 'Removed'} {what}, left over from an ended process")
        for problem in done.problems:
            click.echo(f"problem: {problem}", err=True)
    sys.exit(1 if done.problems else 0)


@maintain.command()
@_age(
    "--older-than",
    default=FILES_OLDER_THAN,
    help="How old a file must be, such as 3d or 12h; longer than the longest run.",
)
@_age(
    "--keep-history",
    default=KEEP_HISTORY,
    help="How long entries of `cascade branch log` can be restored, and older states of `main` be read.",
)
@_dry_run
@json_option
def files(older_than: str, keep_history: str, dry_run: bool, as_json: bool) -> None:
    """Remove the files of tables that nothing needs any more.

    What a branch, a tag or a recent entry of the log needs stays.
    """
    from cascade_maintain import maintenance

    age, history = parse_age(older_than), parse_age(keep_history)
    with progress("cascade maintain files") as tell:
        done = maintenance.remove_files(
            load_settings(), older_than=age, keep_history=history, dry_run=dry_run, tell=tell
        )
    if as_json:
        print_json(done)
    else:
        tables = defaultdict(list)
        for file in done.removed:
            tables[".".join(file.path.split("/")[:2])].append(file.size)
        if tables:
            rows = [(name, len(sizes), sum(sizes) / 1e6) for name, sizes in sorted(tables.items())]
            print_table(["table", "files", "MB"], rows)
        size = f"{count(len(done.removed), 'file')}, {done.bytes / 1e6:,.1f} MB"
        rest = f"{done.needed:,} are needed, {done.young:,} too young to be judged"
        say(f"{'Would remove' if dry_run else 'Removed'} {size}; {rest}.")
        for path in done.missing[:10]:
            click.echo(f"warning: missing, though an old state needs it: {path}", err=True)
        for path, problem in list(done.failed.items())[:10]:
            click.echo(f"could not be removed: {path}: {problem}", err=True)
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
