"""What a run did, gathered from Dagster's events as they come."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from cascade.catalog import LogEntry

__all__ = ["AssetDone", "CheckDone", "Listener", "Outcome", "Watcher", "failure_text"]


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
        run_ids: The Dagster runs; one, unless assets with different partitions take part.
        success: Whether everything succeeded.
        assets: What was materialized, in order.
        checks: What was checked.
        failures: Why steps failed, in words.
        partitions: First and last partition asked for, by asset; nothing where all are loaded.
        up_to_date: Ingestion assets that had nothing to load.
        promotion: The entry of the log, if `main` moved.
        seconds: Duration by step.
    """

    branch: str
    branch_kept: bool = True
    run_ids: list[str] = field(default_factory=list)
    success: bool = True
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
    """Turns Dagster's events into an outcome, and tells of them as they come."""

    def __init__(self, outcome: Outcome, tell: Listener) -> None:
        self._outcome = outcome
        self._tell = tell
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
                # "dagster._core.errors.DagsterAssetCheckFailedError: …": the class says nothing to its reader.
                cause = re.sub(r"^(dagster|cascade)\.[\w.]+: ", "", failure_text(event))
                self._outcome.failures.append(f"{step}: {cause}")
                self._tell("failed", step)
        elif kind is dg.DagsterEventType.STEP_UP_FOR_RETRY:
            self._tell("retrying", step)
        elif kind is dg.DagsterEventType.ASSET_MATERIALIZATION:
            self._materialized(event)
        elif kind is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            self._checked(event)

    def _materialized(self, event: dg.DagsterEvent) -> None:
        materialization = event.step_materialization_data.materialization
        asset = materialization.asset_key.to_user_string()
        if any(done.asset == asset for done in self._outcome.assets):
            return  # one event for each partition of a range
        metadata = {name: value.value for name, value in materialization.metadata.items()}
        rows = metadata.get("dagster/row_count")
        self._outcome.assets.append(AssetDone(asset, rows if isinstance(rows, int) else None, metadata))
        self._tell("materialized", f"{asset}, {rows:,} rows" if isinstance(rows, int) else asset)

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


def failure_text(event: dg.DagsterEvent) -> str:
    """Return why a step failed, in words."""
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return data.user_failure_data.description
    error = data.error
    # The innermost cause says what went wrong; the chain above it is Dagster's.
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error is not None else "failed"
