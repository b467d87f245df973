"""Runs, loads, checks and refused promotions, from Dagster's event log: each event is read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

from cascade._dagster import NOT_FINISHED_STATUSES
from cascade.names import (
    BRANCH_METADATA,
    DUPLICATE_ROWS,
    LOADED_ROWS,
    MAIN,
    PROMOTE_ASSET,
    QUARANTINED_ROWS,
    TOTAL_SECONDS,
    is_run_branch,
)
from cascade_monitoring.metrics import Values

__all__ = ["EventLog"]

_TYPE = dg.DagsterEventType
_ENDED = {_TYPE.RUN_SUCCESS: "success", _TYPE.RUN_FAILURE: "failure", _TYPE.RUN_CANCELED: "canceled"}
_READ = [one.value for one in (_TYPE.RUN_START, *_ENDED, _TYPE.ASSET_MATERIALIZATION, _TYPE.ASSET_CHECK_EVALUATION)]
_REFUSED = {"PromotionRefusedError": "checks", "PromotionConflictError": "conflict"}
_ROWS = {"loaded": LOADED_ROWS, "quarantined": QUARANTINED_ROWS, "duplicate": DUPLICATE_ROWS}
_PAGE = 500
# PostgreSQL does not commit in the order of its numbers: what is so little older than the newest is looked for again.
_LATE = 5_000


class EventLog:
    """What Dagster's event log has told so far.

    Args:
        instance: Dagster's storage.
        values: The metrics, which it counts up.
    """

    def __init__(self, instance: dg.DagsterInstance, values: Values) -> None:
        self._instance, self._values = instance, values
        self._newest = 0
        self._recent: set[int] = set()
        self._started: dict[str, float] = {}
        self._loading: dict[str, str] = {}
        for reason in _REFUSED.values():
            values["cascade.promotions.refused"][reason,] = 0

    def catch_up(self) -> None:
        """Count what was logged since the last call; the first one reads all of it."""
        for entry in self._new():
            event = entry.dagster_event
            if event is None:
                continue
            if event.event_type is _TYPE.RUN_START:
                self._started[entry.run_id] = entry.timestamp
            elif event.event_type is _TYPE.ASSET_MATERIALIZATION:
                self._loaded(entry, event)
            elif event.event_type is _TYPE.ASSET_CHECK_EVALUATION:
                self._checked(event.asset_check_evaluation_data)
            else:
                self._ended(entry, _ENDED[event.event_type])
        active = self._values["cascade.runs.active"] = {}
        for record in self._instance.get_run_records(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)):
            key = (record.dagster_run.job_name, record.dagster_run.status.value.lower())
            active[key] = active.get(key, 0) + 1

    def _new(self) -> Iterator[dg.EventLogEntry]:
        column = SqlEventLogStorageTable.c
        # Both storages of Dagster keep these events of all runs in one table with an index on type and number.
        storage = cast(SqlEventLogStorage, self._instance.event_log_storage)
        wanted = sa.select(column.id).where(column.dagster_event_type.in_(_READ), column.id > self._newest - _LATE)
        with storage.index_connection() as connection:
            logged: Sequence[int] = connection.execute(wanted.order_by(column.id)).scalars().all()
        numbers = [number for number in logged if number not in self._recent]
        for start in range(0, len(numbers), _PAGE):
            page = numbers[start : start + _PAGE]
            events = sa.select(column.id, column.event).where(column.id.in_(page)).order_by(column.id)
            with storage.index_connection() as connection:
                rows: Sequence[tuple[int, str]] = connection.execute(events).all()
            for number, text in rows:
                # Before it is counted: when something fails, the next call goes on after it.
                self._recent.add(number)
                self._newest = max(self._newest, number)
                yield dg.deserialize_value(text, dg.EventLogEntry)
            self._recent = {number for number in self._recent if number > self._newest - _LATE}

    def _add(self, metric: str, *labels: str, value: float = 1) -> None:
        series = self._values[metric]
        series[labels] = series.get(labels, 0) + value

    def _ended(self, entry: dg.EventLogEntry, status: str) -> None:
        job, began = entry.job_name or "", self._started.pop(entry.run_id, None)
        self._add("cascade.runs", job, status)
        ended = self._values["cascade.run.ended.timestamp"]
        ended.setdefault((job, "success"), 0)  # what never succeeded can be compared, too
        ended[job, status] = entry.timestamp
        if began is not None:
            self._add("cascade.run.time", job, status, value=entry.timestamp - began)
            self._values["cascade.run.duration"][job,] = entry.timestamp - began
        if status == "failure":
            self._failed(entry)

    def _failed(self, entry: dg.EventLogEntry) -> None:
        """Look whether a run failed since its branch was not promoted."""
        for failure in self._instance.all_logs(entry.run_id, of_type={_TYPE.STEP_FAILURE}):
            event = failure.dagster_event
            if event is None or event.step_key != "__".join(PROMOTE_ASSET):
                continue
            error = event.step_failure_data.error
            while error is not None and error.cls_name not in _REFUSED:
                error = error.cause or error.context
            if error is not None:
                self._add("cascade.promotions.refused", _REFUSED[error.cls_name or ""])
                self._values["cascade.promotion.refused.timestamp"][()] = failure.timestamp

    def _loaded(self, entry: dg.EventLogEntry, event: dg.DagsterEvent) -> None:
        made = event.step_materialization_data.materialization
        table, said = ".".join(made.asset_key.path), made.metadata
        if made.asset_key.path[0] == PROMOTE_ASSET[0]:
            return  # promoting and publishing load nothing
        if self._loading.get(table) != entry.run_id:  # a run tells of each of its partitions
            self._loading[table] = entry.run_id
            self._add("cascade.loads", table)
        if TOTAL_SECONDS in said:
            seconds = _number(said, TOTAL_SECONDS)
            self._add("cascade.load.time", table, value=seconds)
            self._values["cascade.load.duration"][table,] = seconds
        for outcome, name in _ROWS.items() if LOADED_ROWS in said else ():
            self._add("cascade.load.rows", table, outcome, value=_number(said, name))
        if _for_main(said):
            self._values["cascade.load.timestamp"][table,] = entry.timestamp

    def _checked(self, said: dg.AssetCheckEvaluation) -> None:
        table = ".".join(said.asset_key.path)
        failed = not said.passed and said.severity is dg.AssetCheckSeverity.ERROR
        self._add("cascade.checks", table, "passed" if said.passed else "failed" if failed else "warned")
        if _for_main(said.metadata):
            self._values["cascade.check.failing"][table, said.check_name] = failed


def _number(metadata: Any, name: str) -> float:
    return float(metadata[name].value) if name in metadata else 0.0


def _for_main(metadata: Any) -> bool:
    """Say whether what was done on a branch is meant for `main`, and not for a branch that somebody named."""
    branch = str(metadata[BRANCH_METADATA].value) if BRANCH_METADATA in metadata else MAIN
    return branch == MAIN or is_run_branch(branch)
