"""What commands print: one JSON document, or text for people; errors and progress on standard error."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

from cascade.cli.style import click
from cascade.errors import CascadeError

__all__ = [
    "INTERRUPTED",
    "answer",
    "complain",
    "fail",
    "json_option",
    "print_json",
    "print_table",
    "progress",
    "say",
    "unusable_place",
]

#: What a command exits with after Ctrl+C, as shells expect it.
INTERRUPTED = 130

_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR)
_REFUSALS_OF_SQLITE = ("unable to open", "readonly database", "disk I/O error", "disk is full")

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")


def say(text: str = "") -> None:
    """Print a line for people on standard output."""
    click.echo(text)


def answer(as_json: bool, document: object, text: str) -> None:
    """Print what a command did: one JSON document, or text for people."""
    if as_json:
        print_json(document)
    else:
        say(text)


def complain(title: str, rest: str, lines: Iterable[str] = ()) -> None:
    """Print a line that begins in red on standard error, and lines below it."""
    click.echo(click.style(title, fg="red", bold=True) + rest, err=True)
    for line in lines:
        click.echo(f"  {line}", err=True)


def fail(error: CascadeError) -> NoReturn:
    """Print an error on standard error and exit with its code."""
    complain("Error: ", str(error))
    sys.exit(error.exit_code)


def unusable_place(error: Exception) -> str | None:
    """Say which file or folder an error is about, if it says that the operating system refuses it; else `None`."""
    if isinstance(error, OSError) and error.filename and error.errno in _REFUSALS:
        return f"{error.filename}: {error.strerror}"
    text = str(error)
    sqlite = "sqlite3.OperationalError" in text and any(word in text for word in _REFUSALS_OF_SQLITE)
    return text.splitlines()[0] + ", .cascade or .dagster of the project" if sqlite else None


def print_json(document: object) -> None:
    """Print one JSON document; times as ISO 8601, decimals as numbers, bytes as hexadecimal text."""
    click.echo(json.dumps(document, indent=2, default=_plain, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows below their heads, as an aligned table."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max([len(c), *(len(row[i]) for row in cells)]) for i, c in enumerate(columns)]
    numbers = (int, float, decimal.Decimal, type(None))
    right = [bool(rows) and all(isinstance(row[i], numbers) for row in rows) for i in range(len(columns))]

    def line(values: Sequence[str]) -> str:
        parts = [v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True)]
        return "  ".join(parts).rstrip()

    say(line(columns))
    say("  ".join("-" * w for w in widths))
    for row in cells:
        say(line(row))


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[str, str], None]]:
    """Show what a long command does: a moving line on a terminal, plain lines elsewhere.

    Standard output is kept for the result: all that libraries print meanwhile goes to standard error.

    Args:
        what: The command, for the line.

    Yields:
        A function to call with an event and what it is about.
    """
    begun = time.monotonic()

    def line(event: str, subject: str) -> str:
        return f"{time.monotonic() - begun:6.1f} s  {event} {subject}"

    with contextlib.redirect_stdout(sys.stderr):
        if not sys.stderr.isatty():

            def plain(event: str, subject: str) -> None:
                if event != "check passed":
                    click.echo(line(event, subject), err=True)

            yield plain
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        words, done = TextColumn("{task.description}", markup=False), TextColumn("{task.completed} done")
        columns = (SpinnerColumn(), words, BarColumn(), done, TimeElapsedColumn())
        # While a step runs, Dagster points standard error at the step's log: this is the terminal itself.
        with (
            os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8") as terminal,
            Progress(*columns, console=Console(file=terminal), transient=True) as bar,
        ):
            task = bar.add_task(what, total=None)

            def moving(event: str, subject: str) -> None:
                if event in ("loading", "started", "retrying"):
                    bar.update(task, description=f"{what}: {subject}")
                else:
                    bar.update(task, advance=1)
                if event not in ("started", "check passed"):
                    bar.console.print(line(event, subject), highlight=False, markup=False)

            yield moving


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:,.1f}"
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return str(value)


def _plain(value: object) -> Any:
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
