"""What commands print: one JSON document, or text for people; errors and progress on standard error."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from cascade.cli.style import click
from cascade.errors import CascadeError

__all__ = ["fail", "json_option", "print_json", "print_table", "progress", "say"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")


def say(text: str = "") -> None:
    """Print a line for people on standard output."""
    click.echo(text)


def fail(error: CascadeError) -> NoReturn:
    """Print an error on standard error and exit with its code."""
    click.echo(click.style("Error: ", fg="red", bold=True) + str(error), err=True)
    sys.exit(error.exit_code)


def print_json(document: object) -> None:
    """Print one JSON document; times as ISO 8601, decimals as numbers, bytes as hexadecimal text."""
    click.echo(json.dumps(document, indent=2, default=_plain, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, limit: int | None = None) -> None:
    """Print rows as an aligned table.

    Args:
        columns: The heads.
        rows: The values.
        limit: How many rows to show; the rest is counted.
    """
    shown = rows if limit is None else rows[:limit]
    cells = [[_cell(value) for value in row] for row in shown]
    widths = [max([len(c), *(len(row[i]) for row in cells)]) for i, c in enumerate(columns)]
    right = [
        bool(shown) and all(isinstance(row[i], int | float | decimal.Decimal | None) for row in shown)
        for i in range(len(columns))
    ]

    def line(values: Sequence[str]) -> str:
        parts = [v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True)]
        return "  ".join(parts).rstrip()

    say(line(columns))
    say("  ".join("-" * w for w in widths))
    for row in cells:
        say(line(row))
    if len(shown) < len(rows):
        say(f"… {len(rows) - len(shown):,} more rows")


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
    with contextlib.redirect_stdout(sys.stderr):
        if not sys.stderr.isatty():

            def plain(event: str, subject: str) -> None:
                if event != "check passed":
                    click.echo(f"{time.monotonic() - begun:6.1f} s  {event} {subject}", err=True)

            yield plain
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed} done"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)

            def moving(event: str, subject: str) -> None:
                if event in ("loading", "started", "retrying"):
                    bar.update(task, description=f"{what}: {subject}")
                else:
                    bar.update(task, advance=1)
                if event not in ("started", "check passed"):
                    bar.console.print(f"{time.monotonic() - begun:6.1f} s  {event} {subject}", highlight=False)

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
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)
