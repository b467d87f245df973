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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from cascade.errors import CascadeError, count
from cascade_cli.style import click
from cascade_operations.events import (
    AssetMaterialized,
    AssetUpToDate,
    CheckEvaluated,
    Counted,
    Emptied,
    Event,
    Fetched,
    Followed,
    LeftOut,
    Listener,
    Loading,
    NewBranch,
    NotLoaded,
    Planned,
    StepFailed,
    StepRetrying,
    StepStarted,
    Waiting,
)

__all__ = [
    "EVENT_TEXTS",
    "INTERRUPTED",
    "always_texts",
    "answer",
    "answer_table",
    "complain",
    "fail",
    "json_option",
    "print_json",
    "print_table",
    "progress",
    "say",
    "ui_port",
    "unchanged_text",
    "unusable_place",
]

_Record = TypeVar("_Record")

#: What a command exits with after Ctrl+C, as shells expect it.
INTERRUPTED = 130

_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR)
_REFUSALS_OF_SQLITE = ("unable to open", "readonly database", "disk I/O error", "disk is full")

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")


def ui_port() -> int:
    """Return where the UI of this project listens: `DAGSTER_PORT`, which its container has too, else 3000."""
    return int(os.environ.get("DAGSTER_PORT") or 3000)


def say(text: str = "") -> None:
    """Print a line for people on standard output."""
    click.echo(text)


def answer(as_json: bool, record: object, *lines: str) -> None:
    """Print what an operation returned: its record as JSON, or lines for people."""
    if as_json:
        print_json(record)
    else:
        say("\n".join(lines))


def answer_table(
    as_json: bool,
    records: Sequence[_Record],
    columns: Sequence[str],
    row: Callable[[_Record], Sequence[object]],
    *,
    empty: str = "",
) -> None:
    """Print the records that an operation returned: as JSON, or for people as a table with a row for each.

    `empty` is what people read in place of a table without rows.
    """
    if as_json:
        print_json(records)
    elif empty and not records:
        say(empty)
    else:
        print_table(columns, [row(record) for record in records])


def complain(title: str, rest: str, lines: Iterable[str] = ()) -> None:
    """Print a line that begins in red on standard error, and lines below it."""
    click.echo(click.style(title, fg="red", bold=True) + rest, err=True)
    for line in lines:
        click.echo(f"  {line}", err=True)


def fail(error: CascadeError, *, as_json: bool = False) -> NoReturn:
    """Print an error on standard error, with `as_json` as a document on standard output, too; exit with its code."""
    if as_json:
        print_json({"error": {"what": error.what, "where": error.where, "fix": error.fix}})
    complain("Error: ", str(error))
    sys.exit(error.exit_code)


def unusable_place(error: Exception) -> str | None:
    """Say which file or folder an error is about, if it says that the operating system refuses it; else `None`."""
    if isinstance(error, OSError) and error.filename and error.errno in _REFUSALS:
        return f"{error.filename}: {error.strerror}"
    text = str(error)
    sqlite = "sqlite3.OperationalError" in text and any(word in text for word in _REFUSALS_OF_SQLITE)
    return text.splitlines()[0] + ", .cascade or .dagster of the project" if sqlite else None


def print_json(record: object) -> None:
    """Print what an operation returned as one JSON document; see `cascade_operations.to_document`."""
    from cascade_operations import to_document

    click.echo(json.dumps(to_document(record), indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows below their heads, as an aligned table."""
    from rich.cells import cell_len  # columns on the screen: two for a character of Chinese, or an emoji

    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(cell_len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
    numbers = (int, float, decimal.Decimal, type(None))
    right = [bool(rows) and all(isinstance(row[i], numbers) for row in rows) for i in range(len(columns))]

    def line(values: Sequence[str]) -> str:
        gaps = [" " * (width - cell_len(value)) for value, width in zip(values, widths, strict=True)]
        parts = [gap + v if r else v + gap for v, gap, r in zip(values, gaps, right, strict=True)]
        return "  ".join(parts).rstrip()

    say(line(columns))
    say("  ".join("-" * w for w in widths))
    for row in cells:
        say(line(row))


def unchanged_text(since: Mapping[str, dt.datetime]) -> str:
    """Say how many models were left out, and why.

    Args:
        since: The models, and when each was made (UTC).
    """
    made = f"{max(since.values()):%Y-%m-%d %H:%M:%S} UTC"
    return f"{_models(since)}, for nothing that they are made from has changed since {made}"


def always_texts(always: Mapping[str, str]) -> Iterator[str]:
    """Say which models every run computes, a sentence for each reason.

    Args:
        always: The models, and the reason of each.
    """
    for why in sorted(set(always.values())):
        yield f"{_models(name for name, reason in always.items() if reason == why)}, since {why}"


def _models(models: Iterable[str]) -> str:
    names = sorted(models)
    return f"{count(len(names), 'model')} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"


def _plan_text(event: Planned) -> str:
    from cascade_cli.plan_text import plan_lines  # most commands show none

    return "\n".join(plan_lines(event.plan, short=True))


def _verdict(event: CheckEvaluated) -> str:
    return "passed" if event.passed else "failed" if event.blocking else "warned"


#: What people read of each event.
EVENT_TEXTS: dict[type[Event], Callable[[Any], str]] = {
    Loading: lambda event: f"loading {event.what}",
    NewBranch: lambda event: f"new branch {event.branch}, which begins as main",
    NotLoaded: lambda event: f"not loaded: {event.problem}",
    Planned: _plan_text,
    Waiting: lambda event: f"waiting for {event.what}",
    AssetUpToDate: lambda event: f"up to date {event.asset}",
    LeftOut: lambda event: f"left out {unchanged_text(event.since)}",
    Emptied: lambda event: (
        f"emptied {', '.join(event.tables)}"
        + (f"; {', '.join(event.conflicts)} cannot be promoted afterwards" if event.conflicts else "")
    ),
    StepStarted: lambda event: f"started {event.step}",
    Fetched: lambda event: f"fetched {count(event.rows, 'row')}",
    StepFailed: lambda event: f"failed {event.step}",
    StepRetrying: lambda event: f"retrying {event.step}: {event.reason}",
    AssetMaterialized: lambda event: (
        f"materialized {event.asset}" + (f", {count(event.rows, 'row')}" if event.rows is not None else "")
    ),
    CheckEvaluated: lambda event: f"check {_verdict(event)} {event.asset} {event.check}",
    Counted: lambda event: f"{event.action} {count(event.number, event.what)}",
    Followed: lambda event: f"{event.package}: {event.said}",
}


@contextlib.contextmanager
def progress(command: str) -> Iterator[Listener]:
    """Show what a long command does: a moving line on a terminal, plain lines elsewhere.

    Standard output is kept for the result: all that libraries print during the command goes to standard error.

    Args:
        command: The command, for the moving line.

    Yields:
        A listener for its operation.
    """
    begun = time.monotonic()

    def line(event: Event) -> str:
        return f"{time.monotonic() - begun:6.1f} s  {EVENT_TEXTS[type(event)](event)}"

    def is_news(event: Event) -> bool:
        return not (isinstance(event, Fetched) or (isinstance(event, CheckEvaluated) and event.passed))

    with contextlib.redirect_stdout(sys.stderr):
        if not sys.stderr.isatty():
            yield lambda event: click.echo(line(event), err=True) if is_news(event) else None
            return
        from cascade_cli.moving import MovingLine

        with MovingLine(command) as moving:

            def both(event: Event) -> None:
                moving.see(event, EVENT_TEXTS[type(event)])
                if is_news(event) and not isinstance(event, StepStarted):
                    moving.print(line(event))

            yield both


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:,.1f}"
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return str(value)
