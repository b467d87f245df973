"""`cascade branch …`: references of the catalog."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cascade.catalog import MAIN, BranchingCatalog, LogEntry, TableChange, open_catalog
from cascade.cli.output import answer, json_option, print_json, print_table, progress, say
from cascade.cli.style import click
from cascade.config import Settings, load_settings
from cascade.errors import CascadeError, UsageError, count

__all__ = ["branch"]


@click.group()
def branch() -> None:
    """List, make, compare, promote and restore branches.

    A branch is a state of all tables with a name. Runs write on branches; `main` moves by promotion only.
    """


@branch.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List branches and tags."""
    found = _lake().branches()
    if as_json:
        print_json([vars(b) for b in found])
        return
    print_table(
        ["name", "kind", "made from", "created (UTC)", "changed tables"],
        [[b.name, b.kind, b.source or "-", b.created_at, b.changed] for b in found],
    )


@branch.command()
@click.argument("name")
@click.option(
    "--from", "source", default=MAIN, show_default=True, metavar="NAME", help="Branch or tag that it starts as."
)
@click.option("--tag", is_flag=True, help="Freeze it: a tag is never written.")
@json_option
def create(name: str, source: str, tag: bool, as_json: bool) -> None:
    """Make branch NAME; no data is copied."""
    catalog = _lake()
    (catalog.tag if tag else catalog.create)(name, source)
    kind = "tag" if tag else "branch"
    answer(as_json, {"name": name, "kind": kind, "source": source}, f"Made {kind} {name} from {source}.")


@branch.command()
@click.argument("name")
@json_option
def delete(name: str, as_json: bool) -> None:
    """Drop branch or tag NAME."""
    from cascade.engine import delete_branch

    delete_branch(_lake(), name)
    answer(as_json, {"name": name, "deleted": True}, f"Deleted {name}.")


@branch.command()
@click.argument("name")
@click.argument("other", required=False)
@json_option
def diff(name: str, other: str | None, as_json: bool) -> None:
    """Show the tables that NAME has changed, or that differ from OTHER.

    Without OTHER, these are the tables that a promotion would move: what `main` did since NAME was created is left
    out.
    """
    catalog = _lake()
    rows = [_change(catalog, change) for change in (catalog.diff(other, name) if other else catalog.changes(name))]
    if as_json:
        print_json(rows)
    elif not rows and other:
        say(f"{name} and {other} hold the same.")
    elif not rows:
        say(f"{name} has changed nothing since it was created or last promoted.")
    else:
        print_table([name.replace("_", " ") for name in rows[0]], [list(row.values()) for row in rows])


@branch.command()
@click.argument("name")
@json_option
def promote(name: str, as_json: bool) -> None:
    """Move `main` to branch NAME, if all blocking checks passed on it.

    All tables move at once, or none; then the marts are published.
    """
    if name == MAIN:
        raise UsageError("`main` is what branches are promoted to.", fix="name one; `cascade branch list` shows them.")
    settings = load_settings()
    catalog = open_catalog(settings)
    catalog.changes(name)  # an unknown name is refused before anything is loaded
    with progress("cascade branch promote") as tell:
        tell("loading", "workflows and models")
        from cascade.framework.definitions import build_definitions, guards_of
        from cascade.framework.instance import open_instance
        from cascade.publish import promote_branch

        guards = guards_of(build_definitions(settings))

        def merge() -> LogEntry | None:
            with open_instance(settings) as instance:
                return promote_branch(catalog, settings, name, instance, guards)

        entry, published = _move_main(catalog, settings, "`cascade branch promote`", merge)
    tables = [change.table for change in entry.changes] if entry else []
    text = f"Branch {name} holds nothing new; main is unchanged."
    if entry is not None:
        text = f"Promoted {name} to main (entry {entry.id} of the log): {', '.join(tables)}"
    document = {"name": name, "promotion": entry.id if entry else None, "tables": tables, "published": published}
    answer(as_json, document, text + _published(published))


@branch.command()
@click.argument("name", default=MAIN)
@click.option("--limit", "-n", default=20, show_default=True, help="How many entries.")
@json_option
def log(name: str, limit: int, as_json: bool) -> None:
    """Show how NAME (main by default) moved, newest first."""
    entries = [(e, [change.table for change in e.changes]) for e in _lake().log(name, limit=limit)]
    if as_json:
        print_json(
            [
                {"name": str(e.id), "id": e.id, "at": e.at, "kind": e.kind, "source": e.source, "tables": tables}
                for e, tables in entries
            ]
        )
    elif not entries:
        say(f"{name} has not moved yet.")
    else:
        print_table(
            ["entry", "at (UTC)", "kind", "from", "tables"],
            [[e.id, e.at, e.kind, e.source, ", ".join(tables)] for e, tables in entries],
        )


@branch.command()
@click.argument("entry", type=int)
@json_option
def restore(entry: int, as_json: bool) -> None:
    """Put `main` back to where it stood after ENTRY of its log.

    0 is before the first entry. The marts are published again. Nothing is lost: the restore is an entry of the log
    itself.
    """
    settings = load_settings()
    catalog = open_catalog(settings)
    done, published = _move_main(catalog, settings, "`cascade branch restore`", lambda: catalog.restore(entry))
    tables = [change.table for change in done.changes] if done else []
    text = "main stands there already."
    if done:
        text = f"main stands after entry {entry} again (entry {done.id}): {', '.join(tables)}"
    document = {"entry": done.id if done else None, "tables": tables, "published": published}
    answer(as_json, document, text + _published(published))


def _move_main(
    catalog: BranchingCatalog, settings: Settings, command: str, move: Callable[[], LogEntry | None]
) -> tuple[LogEntry | None, dict[str, int]]:
    """Move `main`, then publish its marts: readers of reports must not see what `main` no longer holds."""
    from cascade.publish.marts import publish_marts

    with catalog.lease(MAIN, command):
        entry = move()
        try:
            return entry, publish_marts(catalog, settings)
        except CascadeError as error:
            state = f"has moved (entry {entry.id} of the log)" if entry else "is unchanged"
            raise type(error)(
                f"`main` {state}, but its marts are not published: {error.what}",
                where=error.where,
                fix=f"{error.fix} Then `cascade run --select cascade/publish` publishes them.".strip(),
            ) from error


def _published(rows: dict[str, int]) -> str:
    return "".join(f"\nPublished {table}, {count(number, 'row')}" for table, number in rows.items())


def _lake() -> BranchingCatalog:
    return open_catalog(load_settings())


def _change(catalog: BranchingCatalog, change: TableChange) -> dict[str, Any]:
    from cascade.iceberg.read import row_count

    states = (change.before, change.after)
    heads = [catalog.load(change.table, state).current_snapshot() if state else None for state in states]
    rows = [row_count(head) if head else None for head in heads]
    snapshots = [head.snapshot_id if head else None for head in heads]
    return {
        "name": change.table,
        "kind": change.kind,
        "rows_before": rows[0],
        "rows_after": rows[1],
        "snapshot_before": snapshots[0],
        "snapshot_after": snapshots[1],
    }
