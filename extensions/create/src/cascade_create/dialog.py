"""What `cascade create-workflow` asks for on a terminal."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cascade_cli.output import say
from cascade_cli.style import click

if TYPE_CHECKING:
    from cascade_create.workflow import Draft

__all__ = ["complete_workflow", "confirm", "is_asked"]

_NEEDED = {
    "rest": [("url", "URL of the rows")],
    "database": [("url", "URL of the database, such as sqlite:///shop.db"), ("table", "Table")],
    "file": [("path", "Path of the files, such as data/drops/*.csv")],
    "python": [],
}


def is_asked(*, yes: bool, as_json: bool) -> bool:
    """Say whether there is a person to ask."""
    return not yes and not as_json and sys.stdin.isatty() and sys.stdout.isatty()


def complete_workflow(
    kind: str | None, name: str | None, given: dict[str, Any]
) -> tuple[str | None, str | None, dict[str, Any]]:
    """Ask for what is missing."""
    kind = kind or click.prompt("Kind of source", type=click.Choice(list(_NEEDED)))
    name = name or click.prompt("Name of the table")
    answers = {option: given[option] or click.prompt(text) for option, text in _NEEDED.get(str(kind), [])}
    infer = given["infer"] or (kind != "python" and click.confirm("Look at the source now?", default=True))
    return kind, name, {**given, **answers, "infer": infer}


def confirm(draft: Draft) -> Draft:
    """Show what was guessed, and ask whether it is right; the files are written after that.

    Args:
        draft: What was found out.

    Raises:
        UsageError: There is no column of that name.
    """
    from cascade_create.sample import column_of

    for note in draft.guesses:
        say(note)
    if draft.guessed_cursor and not draft.cursor:
        answer = click.prompt("Cursor: a run loads only what is new (none for none)", default=draft.guessed_cursor)
        if draft.sample and answer != "none":
            draft = replace(draft, cursor=column_of(draft.sample, answer, "the cursor").source)
    click.confirm("Write the files?", default=True, abort=True)
    return draft
