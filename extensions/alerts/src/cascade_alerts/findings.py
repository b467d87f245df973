"""What went wrong, and what works again: read from the events of runs that have ended, and from the age of tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from cascade.config import Settings
from cascade.errors import CascadeError
from cascade.lakehouse import branch_of_run
from cascade.names import FAILING_ROWS, FRESHNESS_CHECK, MAIN, PROMOTE_ASSET, RUNS_METADATA, is_run_branch
from cascade_operations.failures import failure_text

if TYPE_CHECKING:
    from cascade._dagster import SerializableErrorInfo

__all__ = ["Problem", "promotion_problem", "run_findings", "stale_tables"]

_READ = {
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.RUN_FAILURE,
}
_REFUSED = ("PromotionRefusedError", "PromotionConflictError")
_LINES = 12


@dataclass(frozen=True)
class Problem:
    """One thing that people are told of.

    Attributes:
        event: One of `cascade_alerts.settings.EVENTS`.
        what: One sentence without its full stop, the same in the message of the recovery.
        details: What is known of it, label to text, in the order in which it is told.
    """

    event: str
    what: str
    details: dict[str, str]


def run_findings(record: dg.RunRecord, instance: dg.DagsterInstance, settings: Settings) -> dict[str, Problem | None]:
    """Return what a run that has ended proves: cause to problem, and `None` for a cause that is over.

    A cause is named alike in all runs on branches of their own; on a branch that a user named, such as `dev`, it is
    another one.

    Args:
        record: The run.
        instance: Dagster's storage, with its events.
        settings: The project's settings.
    """
    return _Run(record.dagster_run, instance, settings).findings()


def promotion_problem(branch: str, error: CascadeError) -> Problem:
    """Return the problem that a branch was not promoted."""
    look = f"cascade branch diff {branch}"
    return Problem(
        "promotion_refused", f"{branch} was not promoted", _details(branch=branch, why=str(error), look=look)
    )


def stale_tables(graph: dg.AssetGraph, instance: dg.DagsterInstance, now: float) -> dict[str, Problem | None]:
    """Return, for each table that says how fresh it must be, whether its last load is too old.

    Checks of freshness look at the rows themselves, and are another cause: a load may bring nothing new.

    Args:
        graph: The assets of the project.
        instance: Dagster's storage, with the loads.
        now: Seconds since 1970.
    """
    found: dict[str, Problem | None] = {}
    for key in sorted(graph.executable_asset_keys):
        window = getattr(graph.get(key).freshness_policy, "fail_window", None)
        event = instance.get_latest_materialization_event(key) if window is not None else None
        if window is None or event is None:
            continue
        hours, allowed = (now - event.timestamp) / 3600, window.to_timedelta().total_seconds() / 3600
        table = ".".join(key.path)
        why = f"the last load was {hours:,.1f} hours ago, {allowed:g} are allowed"
        details = _details(table=table, branch=MAIN, why=why, look=_query(table))
        late = Problem("table_stale", f"{table} was not loaded for too long", details)
        found[f"load of {table}"] = late if hours > allowed else None
    return found


@dataclass
class _Run:
    """The events of one run, and what they say."""

    run: dg.DagsterRun
    instance: dg.DagsterInstance
    settings: Settings

    def __post_init__(self) -> None:
        self.branch = branch_of_run(self.run, self.settings)
        self.scope = "" if is_run_branch(self.branch) else f" on {self.branch}"
        self.failed: dict[str, list[dg.AssetCheckEvaluation]] = {}

    def findings(self) -> dict[str, Problem | None]:
        found: dict[str, Problem | None] = {}
        last = None
        for entry in self.instance.all_logs(self.run.run_id, of_type=_READ):
            event = entry.dagster_event
            assert event is not None  # only events of these types were asked for
            if event.event_type is dg.DagsterEventType.RUN_FAILURE:
                last = event
            elif _told_by_others(event):
                return {}
            else:
                found.update(self._one(event))
        job = f"run of {self.run.job_name}{self.scope}"
        if self.run.status is dg.DagsterRunStatus.SUCCESS:
            found[job] = None
        elif last is not None and not any(found.values()):
            error = last.job_failure_data.error
            why = error.message if error is not None else last.message or "no reason is known"
            found[job] = Problem("run_failed", f"a run failed{self.scope}", self._details(why=why, look=self._log))
        return found

    def _one(self, event: dg.DagsterEvent) -> Iterator[tuple[str, Problem | None]]:
        step = event.step_key or ""
        if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            yield self._checked(event.asset_check_evaluation_data, step)
        elif event.event_type is dg.DagsterEventType.STEP_SUCCESS:
            yield self._cause(step), None
        elif not self._said_by_a_check(event):
            yield self._cause(step), self._failure(event, step)

    def _cause(self, step: str) -> str:
        return f"promotion{self.scope}" if step == "__".join(PROMOTE_ASSET) else f"step {step}{self.scope}"

    def _checked(self, check: dg.AssetCheckEvaluation, step: str) -> tuple[str, Problem | None]:
        table = ".".join(check.asset_key.path)
        stale = check.check_name == FRESHNESS_CHECK or check.check_name.startswith(f"{FRESHNESS_CHECK}_")
        cause = f"check {check.check_name} of {table}{self.scope}"
        bad = not check.passed and check.severity is dg.AssetCheckSeverity.ERROR
        if bad and check.blocking:
            self.failed.setdefault(step, []).append(check)
        if not bad or not (check.blocking or stale):
            return cause, None
        why = check.description or ""
        rows = check.metadata[FAILING_ROWS].value if FAILING_ROWS in check.metadata else _first_number(why)
        event = "table_stale" if stale else "check_failed"
        what = f"{table} is stale" if stale else f"check `{check.check_name}` of {table} failed"
        if limit := re.search(r"more than (quarantine_\w+=\S+)", why):
            event, what = "quarantine_exceeded", f"{table} was not loaded, since too many rows break its contract"
            return cause, Problem(event, what, self._table(table, check.check_name, rows, why, limit=limit[1]))
        return cause, Problem(event, f"{what}{self.scope}", self._table(table, check.check_name, rows, why))

    def _table(self, table: str, check: str, rows: object, why: str, *, limit: str = "") -> dict[str, str]:
        shown = f"{rows:,}" if isinstance(rows, int) else ""
        look = f"{_query(table)} --branch {self.branch}" if self._has_branch() else self._log
        return self._details(table=table, check=check, failing_rows=shown, limit=limit, why=why, look=look)

    def _said_by_a_check(self, event: dg.DagsterEvent) -> bool:
        """Say whether a step failed for nothing but its blocking checks, which are told themselves."""
        checks = self.failed.get(event.step_key or "", [])
        error, text = event.step_failure_data.error, failure_text(event, self.settings.project_dir)
        if not checks:
            return False
        if any(each.cls_name == "DagsterAssetCheckFailedError" for each in _chain(error)):
            return True
        first = [(check.description or "").strip().partition("\n")[0] for check in checks]
        named = all(check.check_name in text for check in checks) and " Error in " not in text
        return named or any(line and line in text for line in first)

    def _failure(self, event: dg.DagsterEvent, step: str) -> Problem:
        why = failure_text(event, self.settings.project_dir)
        if any(each.cls_name in _REFUSED for each in _chain(event.step_failure_data.error)):
            look = f"cascade branch diff {self.branch}"
            what = f"{self.branch if self.scope else 'a run'} was not promoted"
            return Problem("promotion_refused", what, self._details(why=why, look=look))
        name = step.replace("__", ".")
        return Problem("run_failed", f"{name} failed{self.scope}", self._details(table=name, why=why, look=self._log))

    def _details(self, **texts: str) -> dict[str, str]:
        return _details(**texts, branch=self.branch, run=self.run.run_id)

    @property
    def _log(self) -> str:
        return f"cascade dev, then run {self.run.run_id[:8]}"

    def _has_branch(self) -> bool:
        """Say whether the branch is there to be looked at; a run that wrote nothing leaves none."""
        from cascade.catalog import open_catalog

        try:
            return open_catalog(self.settings).exists(self.branch)
        except CascadeError:
            return False


def _details(**texts: str) -> dict[str, str]:
    """Return labels with their texts, in the order of a message, without those that say nothing."""
    order = ("table", "check", "failing_rows", "limit", "branch", "why", "look", "run")
    shown = {label: "\n".join(texts.get(label, "").strip().splitlines()[:_LINES]) for label in order}
    return {label.replace("_", " "): text for label, text in shown.items() if text}


def _query(table: str) -> str:
    return f'cascade query "select * from {table} limit 20"'


def _first_number(text: str) -> int | None:
    """Return how many rows a contract's message names: `12 of 40 rows break …`."""
    number = re.match(r"([\d,]+) of [\d,]+ rows?\b", text)
    return int(number[1].replace(",", "")) if number else None


def _chain(error: SerializableErrorInfo | None) -> Iterator[Any]:
    while error is not None:
        yield error
        error = error.cause or error.context


def _told_by_others(event: dg.DagsterEvent) -> bool:
    """Say whether a step failed because runs failed that it had started."""
    if event.event_type is not dg.DagsterEventType.STEP_FAILURE:
        return False
    said = event.step_failure_data.user_failure_data
    runs = said.metadata.get(RUNS_METADATA) if said is not None else None
    return runs is not None and bool(runs.value)
