"""Gather what a run does from Dagster's events, and tell of it as it happens."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import dagster as dg

from cascade.names import (
    DUPLICATE_ROWS,
    EXTRACTED_ROWS,
    LOADED_ROWS,
    PROMOTED_AT,
    PROMOTED_TABLES,
    PROMOTION,
    QUARANTINE_TABLE,
    QUARANTINED_ROWS,
    REPLACED_ROWS,
    ROW_COUNT,
    SNAPSHOT_METADATA,
)
from cascade.publish import PROMOTE_KEY
from cascade_operations.events import (
    AssetMaterialized,
    CheckEvaluated,
    Fetched,
    Listener,
    StepFailed,
    StepRetrying,
    StepStarted,
)
from cascade_operations.failures import error_text, failure_text
from cascade_operations.records import AssetResult, CheckResult, LoadedRows, Move, RunReport

__all__ = ["Watcher"]

_OF_LOADS = (EXTRACTED_ROWS, LOADED_ROWS, QUARANTINED_ROWS, DUPLICATE_ROWS, REPLACED_ROWS)
# Pages may have few rows: who watches needs no more of them.
_SECONDS_BETWEEN = 0.2
_INTERRUPTS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")


@dataclass
class Watcher:
    """A report of a run that is being filled; for its fields see `RunReport`.

    Attributes:
        tell: Told of every event.
        root: The project's folder.
        branch: The branch that the run writes.
    """

    tell: Listener
    root: Path
    branch: str
    branch_kept: bool | None = True
    run_ids: list[str] = field(default_factory=list)
    success: bool = True
    interrupted: bool = False
    assets: list[AssetResult] = field(default_factory=list)
    checks: list[CheckResult] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    partitions: dict[str, str] = field(default_factory=dict)
    up_to_date: list[str] = field(default_factory=list)
    left_out: dict[str, dt.datetime] = field(default_factory=dict)
    always: dict[str, str] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)
    promotion: Move | None = None
    marts: str | None = None
    followed: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    _started: dict[str, float] = field(default_factory=dict)
    _fetched: int = 0  # rows, by the step that runs
    _told: float = 0.0  # when rows were told last

    def report(self) -> RunReport:
        """Return what is known now."""
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(RunReport)}
        frozen: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return RunReport(**frozen)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear of the rows that steps of this process fetch."""
        from cascade.ingestion.rows import FETCHED

        handler = _Hears(self)
        before = FETCHED.level, FETCHED.propagate
        FETCHED.addHandler(handler)
        FETCHED.setLevel(logging.DEBUG)
        FETCHED.propagate = False  # nobody reads it in a log
        try:
            yield
        finally:
            FETCHED.removeHandler(handler)
            FETCHED.setLevel(before[0])
            FETCHED.propagate = before[1]

    def fetched(self, rows: int) -> None:
        """Take rows that the step that runs has fetched."""
        self._fetched += rows
        if time.monotonic() - self._told > _SECONDS_BETWEEN:
            self._told = time.monotonic()
            self.tell(Fetched(self._fetched))

    def see(self, entry: dg.EventLogEntry) -> None:
        """Take one event of the run's log."""
        event = entry.dagster_event
        if event is None:
            return
        step, kind = (event.step_key or "").replace("__", "/"), event.event_type
        if kind is dg.DagsterEventType.STEP_START:
            self._started[step] = time.monotonic()
            self._fetched = 0
            self.tell(StepStarted(step))
        elif kind in (dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE):
            seconds = time.monotonic() - self._started.get(step, time.monotonic())
            self.seconds[step] = round(seconds, 2)
            if kind is dg.DagsterEventType.STEP_FAILURE:
                self._failed(step, failure_text(event, self.root))
                self.tell(StepFailed(step))
        elif kind is dg.DagsterEventType.STEP_UP_FOR_RETRY:
            error = event.step_retry_data.error
            if error is not None and error.cause is not None and error.cause.cls_name in _INTERRUPTS:
                raise KeyboardInterrupt  # Dagster would run the step again
            reason = error_text(error, self.root).splitlines()[0] if error is not None else "no reason is known"
            self.tell(StepRetrying(step, reason))
        elif kind is dg.DagsterEventType.RUN_FAILURE:
            cause = event.job_failure_data.error
            self.interrupted = cause is not None and cause.cls_name in _INTERRUPTS
        elif kind is dg.DagsterEventType.ASSET_MATERIALIZATION:
            self._materialized(event)
        elif kind is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            # The promotion's own check tells what the command has told at its start.
            if event.asset_check_evaluation_data.asset_key != PROMOTE_KEY:
                self._checked(event)
        elif kind is dg.DagsterEventType.ASSET_OBSERVATION and event.asset_key == PROMOTE_KEY:
            told = event.asset_observation_data.asset_observation.metadata
            self.followed.update({name: str(value.value) for name, value in told.items()})

    def _failed(self, step: str, why: str) -> None:
        """Say once what let several steps fail, such as a server that cannot be reached."""
        for number, told in enumerate(self.failures):
            if told.endswith(f": {why}"):
                self.failures[number] = f"{told.removesuffix(why)[:-2]}, {step}: {why}"
                return
        self.failures.append(f"{step}: {why}")

    def _materialized(self, event: dg.DagsterEvent) -> None:
        materialization = event.step_materialization_data.materialization
        asset = materialization.asset_key.to_user_string()
        metadata: dict[str, Any] = {name: value.value for name, value in materialization.metadata.items()}
        # One event for each partition of a range; a load tells of all of them with the last one.
        part = materialization.partition and SNAPSHOT_METADATA in metadata and ROW_COUNT not in metadata
        if part or any(done.asset == asset for done in self.assets):
            return
        if PROMOTION in metadata:
            at = dt.datetime.fromtimestamp(metadata[PROMOTED_AT], dt.UTC)
            tables = tuple(metadata[PROMOTED_TABLES])
            self.promotion = Move(metadata[PROMOTION], at, "promote", self.branch, tables)
        rows = metadata.get(ROW_COUNT)
        counts = [metadata.get(name) for name in _OF_LOADS]
        aside = str(metadata.get(QUARANTINE_TABLE, ""))
        figures: list[Any] = [*(int(str(count)) for count in counts if count is not None), aside]
        load = LoadedRows(*figures) if None not in counts else None
        self.assets.append(AssetResult(asset, rows if isinstance(rows, int) else None, load))
        self.tell(AssetMaterialized(asset, self.assets[-1].rows))

    def _checked(self, event: dg.DagsterEvent) -> None:
        found = event.asset_check_evaluation_data
        check = CheckResult(
            asset=found.asset_key.to_user_string(),
            check=found.check_name,
            passed=found.passed,
            blocking=bool(found.blocking) and found.severity is dg.AssetCheckSeverity.ERROR,
            description=found.description or "",
        )
        self.checks.append(check)
        self.tell(CheckEvaluated(check.asset, check.check, check.passed, check.blocking))


class _Hears(logging.Handler):
    """Hands on what the log of fetched rows is told."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__()
        self._watcher = watcher

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.args, tuple) and isinstance(record.args[0], int):
            self._watcher.fetched(record.args[0])
