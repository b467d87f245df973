"""Send what has come to light since the last time, each event once. What was sent is kept in Dagster's storage."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict, dataclass, field

import dagster as dg

from cascade._dagster import NOT_FINISHED_STATUSES
from cascade.config import Settings
from cascade.errors import count
from cascade_openlineage.events import run_events
from cascade_openlineage.receiver import open_client
from cascade_operations.after import alone

__all__ = ["catch_up"]

# Every process that sends, here or on another machine, reads and writes this entry of Dagster's storage.
_KEY = "cascade_openlineage"
_LOCK = "cascade.openlineage"
# Processes note the changes of their runs by their own clocks, and a little late.
_LATE_SECONDS = 600
_BEGUN = [
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]
# The receiver will never take such an event: waiting would keep back all that follow.
_REFUSED = {400, 413, 422}


@dataclass
class _State:
    """What was sent.

    Attributes:
        since: Runs that last changed before are done with; seconds since 1970.
        sent: Of later runs by their id: how many events were sent.
        ended: Those of them that have ended, with all of their events sent.
    """

    since: float = 0
    sent: dict[str, int] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)


def catch_up(settings: Settings, instance: dg.DagsterInstance, *, since: float) -> str:
    """Send all events that were not sent yet, of runs in whatever process.

    Args:
        settings: The project's settings.
        instance: Dagster's storage, with the runs, and with what was sent.
        since: Which runs count if this is the first call: those that began or ended after it; seconds since 1970.

    Returns:
        What could not be sent, in words, or "". What a receiver that is away did not get is sent by a later call.

    Raises:
        ConfigurationError: The configuration of OpenLineage cannot be used.
    """
    with alone(settings, _LOCK), open_client(settings) as client:
        state, refused = _read(instance), 0
        state.since = state.since or since
        near = _changed(instance, state)
        for record in near:
            run = record.dagster_run
            if run.run_id in state.ended:
                continue
            events = run_events(run, instance, settings)
            for event in events[state.sent.get(run.run_id, 0) :]:
                try:
                    client.emit(event)
                # A transport raises what its library raises; the text may hold a key.
                except Exception as error:  # noqa: BLE001
                    status = getattr(getattr(error, "response", None), "status_code", None)
                    if status not in _REFUSED:
                        _write(instance, state)
                        said = f"it answers {status}" if status else type(error).__name__
                        return f"events of OpenLineage wait for their receiver ({said}) and are sent later"
                    refused += 1
                # After each event: a process that is killed repeats one at most.
                state.sent[run.run_id] = state.sent.get(run.run_id, 0) + 1
                _write(instance, state)
            if run.status not in NOT_FINISHED_STATUSES:
                state.ended.append(run.run_id)
        _forget(state, near)
        _write(instance, state)
        return f"the receiver refuses {count(refused, 'event')} of OpenLineage" if refused else ""


def _changed(instance: dg.DagsterInstance, state: _State) -> list[dg.RunRecord]:
    """Return the runs that may have events which were not sent, in the order of their beginnings."""
    floor = state.since - _LATE_SECONDS if state.sent else state.since
    wanted = dg.RunsFilter(statuses=_BEGUN, updated_after=dt.datetime.fromtimestamp(floor, dt.UTC))
    return sorted(instance.get_run_records(wanted), key=lambda record: record.start_time or record.end_time or 0)


def _forget(state: _State, near: list[dg.RunRecord]) -> None:
    """Move on, to the newest change or the oldest run that has not ended."""
    changed = {record.dagster_run.run_id: record.update_timestamp.timestamp() for record in near}
    going = [at for run_id, at in changed.items() if run_id not in state.ended]
    state.since = min(going, default=max([state.since, *changed.values()]))
    kept = {run_id for run_id, at in changed.items() if at >= state.since - _LATE_SECONDS}
    state.sent = {run_id: sent for run_id, sent in state.sent.items() if run_id in kept}
    state.ended = [run_id for run_id in state.ended if run_id in kept]


def _read(instance: dg.DagsterInstance) -> _State:
    text = instance.daemon_cursor_storage.get_cursor_values({_KEY}).get(_KEY)
    return _State(**json.loads(text)) if text else _State()


def _write(instance: dg.DagsterInstance, state: _State) -> None:
    instance.daemon_cursor_storage.set_cursor_values({_KEY: json.dumps(asdict(state))})
