"""`cascade branch …`: references of the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cascade.config import load_settings
from cascade.errors import count
from cascade_cli.output import answer, answer_table, json_option, progress
from cascade_cli.style import click

if TYPE_CHECKING:
    from cascade_operations.records import MainMove

__all__ = ["branch"]


@click.group()
def branch() -> None:
    """List, create, compare, promote and restore branches.

    A branch is a state of all tables with a name. Runs write on branches; `main` moves by promotion only.
    """


@branch.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List branches and tags."""
    import cascade_operations as operations

    answer_table(
        as_json,
        operations.list_branches(load_settings()),
        ["name", "kind", "created from", "created (UTC)", "changed tables"],
        lambda found: [found.name, found.kind, found.source or "-", found.created_at, found.changed],
    )


@branch.command()
@click.argument("name")
@click.option("--from", "source", default="main", show_default=True, metavar="NAME", help="Branch or tag to start as.")
@click.option("--at", metavar="TIME", help="Start as `main` was then: 2026-07-01T12:00, UTC without a zone.")
@click.option("--tag", is_flag=True, help="Create a tag instead: it is never written.")
@json_option
def create(name: str, source: str, at: str | None, tag: bool, as_json: bool) -> None:
    """Create branch NAME; no data is copied."""
    import cascade_operations as operations

    done = operations.create_branch(load_settings(), name, source=source, at=at, tag=tag)
    answer(as_json, done, f"Created {done.kind} {name} from {source}{f' at {at}' if at else ''}.")


@branch.command()
@click.argument("name")
@json_option
def delete(name: str, as_json: bool) -> None:
    """Delete branch or tag NAME."""
    import cascade_operations as operations

    done = operations.delete_branch(load_settings(), name)
    answer(as_json, done, f"Deleted {done.kind} {name}.")


@branch.command()
@click.argument("name")
@click.argument("other", required=False)
@click.option("--two-dot", is_flag=True, help="Compare with OTHER, `main` by default, as it is now.")
@json_option
def diff(name: str, other: str | None, two_dot: bool, as_json: bool) -> None:
    """Show the tables that NAME has changed, or that differ from OTHER.

    Without OTHER, these are the tables that a promotion would move: NAME is compared with what it was created from, so
    that changes of `main` after that are left out. `identical` is a table that was written and holds the same rows.
    Rows count as changed where the table has a key; else an old row was removed, and a new one added.
    """
    import cascade_operations as operations

    other = other or ("main" if two_dot else None)
    found = operations.diff(load_settings(), name, other)
    same = f"{name} has changed nothing since it was created or last promoted."
    if other:
        same = f"{name} and {other} hold the same."
    answer_table(
        as_json,
        found,
        ["table", "kind", "rows before", "rows after", "added", "removed", "changed", "columns"],
        lambda one: [
            *(one.table, one.kind, one.rows_before, one.rows_after, one.added, one.removed, one.changed),
            " ".join(one.columns),
        ],
        empty=same,
    )


@branch.command()
@click.argument("name")
@json_option
def promote(name: str, as_json: bool) -> None:
    """Move `main` to branch NAME, if all blocking checks passed on it.

    All tables move at once, or none; then the marts are published.
    """
    import cascade_operations as operations

    with progress("cascade branch promote") as tell:
        done = operations.promote(load_settings(), name, tell=tell)
    text = f"Branch {name} holds nothing new; main is unchanged."
    if move := done.move:
        text = f"Promoted {name} to main (entry {move.id} of the log): {', '.join(move.tables)}"
    answer(as_json, done, text, *_published(done))


@branch.command()
@click.argument("name", default="main")
@click.option("--limit", "-n", default=20, show_default=True, help="How many entries.")
@json_option
def log(name: str, limit: int, as_json: bool) -> None:
    """Show how NAME (main by default) moved, newest first."""
    import cascade_operations as operations

    answer_table(
        as_json,
        operations.log(load_settings(), name, limit=limit),
        ["entry", "at (UTC)", "kind", "from", "by", "tables"],
        lambda move: [move.id, move.at, move.kind, move.source, move.by, ", ".join(move.tables)],
        empty=f"{name} has not moved yet.",
    )


@branch.command()
@click.argument("entry", type=int)
@json_option
def restore(entry: int, as_json: bool) -> None:
    """Put `main` back to its state after ENTRY of its log.

    0 is the state before the first entry. The marts are published again. Nothing is lost: the restore is an entry of
    the log itself.
    """
    import cascade_operations as operations

    done = operations.restore(load_settings(), entry)
    text = "main is already in that state."
    if move := done.move:
        text = f"main is in its state after entry {entry} again (entry {move.id}): {', '.join(move.tables)}"
    answer(as_json, done, text, *_published(done))


def _published(done: MainMove) -> list[str]:
    lines = [f"Published {table}, {count(rows, 'row')}" for table, rows in done.published.items()]
    return lines + [f"Afterwards, {name}: {said}" for name, said in done.followed.items()]
