"""The line at the bottom of a terminal that says what a long command does now, and how far it has come."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cascade_operations.events import (
    AssetMaterialized,
    Event,
    Fetched,
    Loading,
    Planned,
    StepRetrying,
    StepStarted,
    Waiting,
)

__all__ = ["MovingLine"]

_BAR = 12


class MovingLine:
    """A line that moves, and lines above it that stay.

    Args:
        command: The command, with which the line begins.
    """

    def __init__(self, command: str) -> None:
        self._command = command
        self._doing = ""
        self._began = time.monotonic()
        self._left = contextlib.ExitStack()

    def __enter__(self) -> Self:
        # While a step runs, Dagster points standard error at the step's log: this is the terminal itself.
        terminal = self._left.enter_context(os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8"))
        words = TextColumn("{task.description}", markup=False)
        done = TextColumn("{task.completed}{task.fields[of]} done")
        columns = (SpinnerColumn(), words, BarColumn(_BAR), done, TimeElapsedColumn())
        self._bar = Progress(*columns, console=Console(file=terminal), transient=True)
        self._left.enter_context(self._bar)
        self._task = self._bar.add_task(self._command, total=None, of="")
        return self

    def __exit__(self, *_: object) -> None:
        self._left.close()

    def print(self, text: str) -> None:
        """Print a line that stays."""
        self._bar.console.print(text, highlight=False, markup=False)

    def see(self, event: Event, text: Callable[[Any], str]) -> None:
        """Show an event.

        Args:
            event: What happened.
            text: Says it in words.
        """
        total = self._bar.tasks[self._task].total
        if isinstance(event, Loading | Waiting | StepRetrying):
            self._say(text(event))
        elif isinstance(event, StepStarted):
            self._say(event.step)
        elif isinstance(event, Fetched):
            seconds = time.monotonic() - self._began
            rate = f", {event.rows / seconds:,.0f} a second" if seconds >= 1 else ""
            self._show(f"{self._doing}, {event.rows:,} rows{rate}")
        elif isinstance(event, Planned):
            # Two more move `main` and publish the marts.
            steps = len(event.plan.assets) + 2 * event.plan.promote
            self._say("starting")
            self._bar.update(self._task, total=steps, of=f" of {steps}")
        elif total is None or isinstance(event, AssetMaterialized):
            self._bar.update(self._task, advance=1)

    def _say(self, doing: str) -> None:
        self._doing, self._began = doing, time.monotonic()
        self._show(doing)

    def _show(self, doing: str) -> None:
        self._bar.update(self._task, description=f"{self._command}: {doing}")
