"""What a run did, gathered from Dagster's events as they come."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from cascade.catalog import LogEntry
from cascade.errors import count
from cascade.names import ROW_COUNT, SNAPSHOT_METADATA

__all__ = ["AssetDone", "CheckDone", "Listener", "Outcome", "Watcher", "error_text", "failure_text"]

_INTERRUPTS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")


@dataclass(frozen=True)
class AssetDone:
    """One materialized asset: its key, rows now in its table, and what its step said beyond."""

    asset: str
    rows: int | None
    metadata: dict[str, Any]


@dataclass(frozen=True)
class CheckDone:
    """One evaluated check."""

    asset: str
    check: str
    passed: bool
    blocking: bool
    description: str


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        branch: The branch it wrote.
        branch_kept: Whether that branch is still there: it ends with its promotion, or when nothing is on it.
            `None`: the catalog does not answer.
        run_ids: The Dagster runs; one, unless assets with different partitions take part.
        success: Whether everything succeeded.
        interrupted: Whether it was stopped by Ctrl+C.
        assets: What was materialized, in order.
        checks: What was checked.
        failures: Why steps failed, in words.
        partitions: First and last partition asked for, by asset; nothing where all are loaded.
        up_to_date: Ingestion assets that had nothing to load.
        promotion: The entry of the log, if `main` moved.
        seconds: Duration by step.
    """

    branch: str
    branch_kept: bool | None = True
    run_ids: list[str] = field(default_factory=list)
    success: bool = True
    interrupted: bool = False
    assets: list[AssetDone] = field(default_factory=list)
    checks: list[CheckDone] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    partitions: dict[str, str] = field(default_factory=dict)
    up_to_date: list[str] = field(default_factory=list)
    promotion: LogEntry | None = None
    seconds: dict[str, float] = field(default_factory=dict)


#: Told of every step as it happens: what happened, and to what.
Listener = Callable[[str, str], None]


class Watcher:
    """Turns Dagster's events into an outcome, and tells of them as they come.

    Args:
        outcome: What is filled.
        tell: Told of every event.
        root: The project's folder.
    """

    def __init__(self, outcome: Outcome, tell: Listener, root: Path) -> None:
        self._outcome = outcome
        self._tell = tell
        self._root = root
        self._started: dict[str, float] = {}

    def see(self, entry: dg.EventLogEntry) -> None:
        """Take one event of the run's log."""
        event = entry.dagster_event
        if event is None:
            return
        step, kind = (event.step_key or "").replace("__", "/"), event.event_type
        if kind is dg.DagsterEventType.STEP_START:
            self._started[step] = time.monotonic()
            self._tell("started", step)
        elif kind in (dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE):
            seconds = time.monotonic() - self._started.get(step, time.monotonic())
            self._outcome.seconds[step] = round(seconds, 2)
            if kind is dg.DagsterEventType.STEP_FAILURE:
                self._failed(step, failure_text(event, self._root))
                self._tell("failed", step)
        elif kind is dg.DagsterEventType.STEP_UP_FOR_RETRY:
            error = event.step_retry_data.error
            if error is not None and error.cause is not None and error.cause.cls_name in _INTERRUPTS:
                raise KeyboardInterrupt  # Dagster would run the step again
            reason = error_text(error, self._root).splitlines()[0] if error is not None else "no reason is known"
            self._tell("retrying", f"{step}: {reason}")
        elif kind is dg.DagsterEventType.RUN_FAILURE:
            cause = event.job_failure_data.error
            self._outcome.interrupted = cause is not None and cause.cls_name in _INTERRUPTS
        elif kind is dg.DagsterEventType.ASSET_MATERIALIZATION:
            self._materialized(event)
        elif kind is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            self._checked(event)

    def _failed(self, step: str, why: str) -> None:
        """Say once what let several steps fail, such as a server that is gone."""
        failures = self._outcome.failures
        for number, told in enumerate(failures):
            if told.endswith(f": {why}"):
                failures[number] = f"{told.removesuffix(why)[:-2]}, {step}: {why}"
                return
        failures.append(f"{step}: {why}")

    def _materialized(self, event: dg.DagsterEvent) -> None:
        materialization = event.step_materialization_data.materialization
        asset = materialization.asset_key.to_user_string()
        metadata = {name: value.value for name, value in materialization.metadata.items()}
        # One event for each partition of a range; a load tells of all of them with the last one.
        part = materialization.partition and SNAPSHOT_METADATA in metadata and ROW_COUNT not in metadata
        if part or any(done.asset == asset for done in self._outcome.assets):
            return
        rows = metadata.get(ROW_COUNT)
        self._outcome.assets.append(AssetDone(asset, rows if isinstance(rows, int) else None, metadata))
        self._tell("materialized", f"{asset}, {count(rows, 'row')}" if isinstance(rows, int) else asset)

    def _checked(self, event: dg.DagsterEvent) -> None:
        found = event.asset_check_evaluation_data
        check = CheckDone(
            asset=found.asset_key.to_user_string(),
            check=found.check_name,
            passed=found.passed,
            blocking=bool(found.blocking) and found.severity is dg.AssetCheckSeverity.ERROR,
            description=found.description or "",
        )
        self._outcome.checks.append(check)
        word = "passed" if check.passed else ("failed" if check.blocking else "warned")
        self._tell(f"check {word}", f"{check.asset} {check.check}")


def failure_text(event: dg.DagsterEvent, root: Path) -> str:
    """Return why a step failed, in words.

    Args:
        event: The failure of a step.
        root: The project's folder.
    """
    data = event.step_failure_data
    said = data.user_failure_data.description if data.user_failure_data is not None else None
    return error_text(data.error, root, said=said) if data.error is not None else said or "failed"


def error_text(error: SerializableErrorInfo, root: Path, *, said: str | None = None) -> str:
    """Return an error in words: the first of Cascade in its chain of causes, else type, text and place.

    Args:
        error: The error, as Dagster keeps it.
        root: The project's folder; the place is the innermost line in a file below it.
        said: What the asset itself said of the failure.
    """
    chain = [error]
    while (cause := chain[-1].cause or chain[-1].context) is not None:
        chain.append(cause)
    for each in chain:
        if ours := re.match(r"cascade\w*\.[\w.]+: ", each.message):
            return each.message[ours.end() :].strip()
    own = next((e for e in chain if not _wraps(e)), chain[-1])
    # "json.decoder.JSONDecodeError: …": the module says nothing to its reader.
    text = said or re.sub(r"^(\w+\.)+(?=\w+(:|$))", "", own.message.strip())
    frames = (
        re.match(r'\s*File "(.+)", line (\d+)', frame) for e in (own, *reversed(chain)) for frame in reversed(e.stack)
    )
    for frame in filter(None, frames):
        file = Path(frame[1])
        if file.is_relative_to(root) and "site-packages" not in file.parts:
            return f"{text}\n  where: {file.relative_to(root)}:{frame[2]}"
    return text


def _wraps(error: SerializableErrorInfo) -> bool:
    """Say whether an error only carries the one that caused it."""
    retried = (error.cls_name or "").startswith("RetryRequested")
    return error.cause is not None and (retried or error.message.startswith(("dagster", "dlt.")))
