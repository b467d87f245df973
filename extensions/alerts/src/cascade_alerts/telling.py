"""Tell each target of each cause once, and once that it is over. What was told is kept in Dagster's storage."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import dagster as dg

from cascade.config import Settings
from cascade.errors import count
from cascade.framework.instance import open_instance
from cascade_alerts.findings import Problem, run_findings, stale_tables
from cascade_alerts.targets import Receiver, open_receivers
from cascade_operations.after import alone

__all__ = ["Alerts", "OpenProblem", "TargetRow", "catch_up", "list_alerts"]

# Every process that tells, here or on another machine, reads and writes this entry of Dagster's storage.
_KEY = "cascade_alerts"
_LOCK = "cascade.alerts"
# Processes note the ends of their runs by their own clocks, and a little late.
_LATE_SECONDS = 600
_ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE)


@dataclass(frozen=True)
class TargetRow:
    """A target of alerts.

    Attributes:
        name: Its name in the settings.
        url: Its address, without secrets.
        events: What it is told of.
        answers: Whether it took the last message; true before the first one.
    """

    name: str
    url: str
    events: tuple[str, ...]
    answers: bool


@dataclass(frozen=True)
class OpenProblem:
    """A problem that is not over.

    Attributes:
        event: What kind it is, one of the setting's events.
        what: What happened.
        since: When it was found, in UTC.
        told: The targets that know of it.
        details: Table, check, failing rows, branch, the command to look at it: label to text.
    """

    event: str
    what: str
    since: dt.datetime
    told: tuple[str, ...]
    details: Mapping[str, str]


@dataclass(frozen=True)
class Alerts:
    """Who is told, and what is open.

    Attributes:
        targets: The targets of the settings.
        open: The problems that are not over, the oldest first.
    """

    targets: tuple[TargetRow, ...]
    open: tuple[OpenProblem, ...]


@dataclass
class _Cause:
    """A cause that somebody may have been told of."""

    problem: Problem
    since: float
    told: list[str] = field(default_factory=list)
    over: bool = False


@dataclass
class _State:
    """What was told. `since` and `seen`: the end of the newest run that was looked at, and runs that ended near it."""

    since: float = 0
    seen: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    causes: dict[str, _Cause] = field(default_factory=dict)

    def note(self, found: Mapping[str, Problem | None], now: float) -> None:
        for cause, problem in found.items():
            known = self.causes.get(cause)
            if problem is None:
                if known is not None:
                    known.over = True
            elif known is None:
                self.causes[cause] = _Cause(problem, now)
            elif known.over:  # it came back before all had heard that it was over
                known.over, known.problem = False, problem


def list_alerts(settings: Settings) -> Alerts:
    """Return who is told of what goes wrong, and what is open.

    Args:
        settings: The project's settings.

    Raises:
        ConfigurationError: A target of the settings is wrong.
    """
    receivers = open_receivers(settings)
    with open_instance(settings) as instance:
        state = _read(instance)
    rows = (TargetRow(each.name, each.shown, each.events, each.name not in state.silent) for each in receivers)
    problems = (
        OpenProblem(
            cause.problem.event,
            cause.problem.what,
            dt.datetime.fromtimestamp(cause.since, dt.UTC),
            tuple(cause.told),
            cause.problem.details,
        )
        for cause in sorted(state.causes.values(), key=lambda cause: cause.since)
        if not cause.over
    )
    return Alerts(tuple(rows), tuple(problems))


def catch_up(
    settings: Settings,
    instance: dg.DagsterInstance,
    *,
    since: float,
    graph: dg.AssetGraph | None = None,
    also: Mapping[str, Problem | None] | None = None,
) -> list[str]:
    """Tell of all that has come to light since the last call, in whatever process that was.

    Args:
        settings: The project's settings.
        instance: Dagster's storage, with the runs, and with what was told.
        since: Which runs are looked at if this is the first call: those that ended after it; seconds since 1970.
        graph: The assets whose age is looked at; none by default.
        also: What the caller knows beside the runs: cause to problem, `None` for one that is over.

    Returns:
        What was done, a line each: who was told, and who does not answer, which is said once.

    Raises:
        ConfigurationError: A target of the settings is wrong.
    """
    receivers = open_receivers(settings)
    if not receivers:
        return []
    with alone(settings, _LOCK):
        state, now = _read(instance), time.time()
        state.since = state.since or since
        for record in _ended(instance, state):
            state.note(run_findings(record, instance, settings), record.end_time or now)
        state.note(stale_tables(graph, instance, now) if graph is not None else {}, now)
        state.note(also or {}, now)
        return list(_deliver(settings, instance, state, receivers))


def _ended(instance: dg.DagsterInstance, state: _State) -> Iterator[dg.RunRecord]:
    """Return the runs that ended and were not looked at, in the order of their ends, and note them."""
    floor = state.since - _LATE_SECONDS if state.seen else state.since
    wanted = dg.RunsFilter(statuses=_ENDED, updated_after=dt.datetime.fromtimestamp(floor, dt.UTC))
    # A change of a run's tags counts as an update, too.
    near = [record for record in instance.get_run_records(wanted) if (record.end_time or floor) >= floor]
    near.sort(key=lambda record: record.end_time or floor)
    yield from (record for record in near if record.dagster_run.run_id not in state.seen)
    newest = max([state.since, *(record.end_time or floor for record in near)])
    state.seen = [r.dagster_run.run_id for r in near if (r.end_time or floor) >= newest - _LATE_SECONDS]
    state.since = newest


def _deliver(
    settings: Settings, instance: dg.DagsterInstance, state: _State, receivers: list[Receiver]
) -> Iterator[str]:
    project = settings.project_dir.name
    _write(instance, state)
    for receiver in receivers:
        name = receiver.name
        new = [c for c in state.causes.values() if not c.over and name not in c.told]
        new = [cause for cause in new if cause.problem.event in receiver.events]
        over = [cause for cause in state.causes.values() if cause.over and name in cause.told]
        for causes, kind in ((new, _FAILURE), (over, _RECOVERY)):
            if not causes:
                continue
            title, body = _message(project, [cause.problem for cause in causes], kind)
            if why := receiver.send(title, body, kind):
                if name not in state.silent:
                    state.silent.append(name)
                    yield f"`{name}` ({receiver.shown}) could not be told: {why}; it is tried again"
                continue
            state.silent = [each for each in state.silent if each != name]
            for cause in causes:
                cause.told = [each for each in cause.told if each != name] + [name] * (kind == _FAILURE)
            yield f"told `{name}`: {title}"
        # After each target: a process that is killed repeats one message at most.
        _write(instance, state)
    names = {receiver.name for receiver in receivers}
    state.causes = {key: each for key, each in state.causes.items() if not each.over or names & {*each.told}}
    _write(instance, state)


_FAILURE: Literal["failure"] = "failure"
_RECOVERY: Literal["recovery"] = "recovery"


def _message(project: str, problems: list[Problem], kind: Literal["failure", "recovery"]) -> tuple[str, str]:
    """Return title and text of a message."""
    told = list(_joined(problems))
    many = count(len(told), "problem")
    if kind == _RECOVERY:
        title = f"recovered: {told[0].what}" if len(told) == 1 else f"recovered from {many}"
        return f"{project}: {title}", "\n".join(f"Over: {problem.what}." for problem in told)
    title = told[0].what if len(told) == 1 else many
    return f"{project}: {title}", "\n\n".join(map(_text, told))


def _joined(problems: Iterable[Problem]) -> Iterator[Problem]:
    """Make one of all steps that failed for one reason, such as a server that is away."""
    same: dict[object, list[Problem]] = {}
    for problem in problems:
        reason = problem.details.get("why") if problem.event == "run_failed" else id(problem)
        same.setdefault(reason, []).append(problem)
    for first, *others in same.values():
        if not others:
            yield first
            continue
        tables = [problem.details.get("table", problem.what) for problem in (first, *others)]
        details = first.details | {"table": ", ".join(tables)}
        yield Problem(first.event, f"{tables[0]} and {len(others)} more failed", details)


def _text(problem: Problem) -> str:
    lines = [f"{problem.what[0].upper()}{problem.what[1:]}."]
    for label, text in problem.details.items():
        first, *rest = text.splitlines()
        lines += [f"{label}: {first}", *(f"    {line.strip()}" for line in rest)]
    return "\n".join(lines)


def _read(instance: dg.DagsterInstance) -> _State:
    text = instance.daemon_cursor_storage.get_cursor_values({_KEY}).get(_KEY)
    kept: dict[str, Any] = json.loads(text) if text else {}
    causes = {
        cause: _Cause(**{**each, "problem": Problem(**each["problem"])})
        for cause, each in kept.pop("causes", {}).items()
    }
    return _State(**kept, causes=causes)


def _write(instance: dg.DagsterInstance, state: _State) -> None:
    instance.daemon_cursor_storage.set_cursor_values({_KEY: json.dumps(asdict(state))})
