"""The schedules and sensors of a project: which of them are on, and how to turn them on and off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from cascade._dagster import disable_dagster_warnings
from cascade.config import Settings
from cascade.errors import ConfigurationError, UsageError
from cascade.framework.definitions import build_definitions
from cascade.framework.instance import open_instance
from cascade_operations._dagster import (
    RemoteSchedule,
    RemoteSensor,
    RepositoryHandle,
    ScheduleSnap,
    SensorSnap,
    WorkspaceFileTarget,
)

__all__ = ["ScheduleRow", "list_schedules", "switch_schedules"]


@dataclass(frozen=True)
class ScheduleRow:
    """A schedule or a sensor.

    Attributes:
        name: Its name.
        kind: `schedule` or `sensor`.
        running: Whether it is on; it ticks while Dagster's daemon runs.
        when: The cron expression of a schedule and its time zone; how often a sensor looks.
        job: The job that it starts; empty when it starts none.
    """

    name: str
    kind: Literal["schedule", "sensor"]
    running: bool
    when: str
    job: str


def list_schedules(settings: Settings) -> tuple[ScheduleRow, ...]:
    """Return the schedules and sensors of a project, by name.

    Args:
        settings: The project's settings.

    Raises:
        ConfigurationError: `workspace.yaml` is missing, so that Dagster's name for the project is unknown.
    """
    return switch_schedules(settings, (), running=None)


def switch_schedules(settings: Settings, names: Sequence[str], *, running: bool | None) -> tuple[ScheduleRow, ...]:
    """Turn schedules and sensors on or off, in Dagster's storage; its daemon sees it when it looks again.

    Args:
        settings: The project's settings.
        names: Their names; all of them for none.
        running: Whether they shall be on; `None` leaves them as they are.

    Returns:
        Those of the names, as they are now.

    Raises:
        UsageError: There is none of that name; nothing is changed.
        ConfigurationError: As for `list_schedules`.
    """
    found = _find(settings)
    if unknown := [name for name in names if name not in found]:
        near = [word for name in unknown for word in get_close_matches(name, found, 1)]
        meant = f"{' or '.join(near)} may be meant" if near else f"there is {', '.join(found) or 'none'}"
        raise UsageError(
            f"There is no schedule or sensor {', '.join(unknown)}.", fix=f"{meant}; `cascade schedules list` shows all."
        )
    rows = []
    with open_instance(settings) as instance:
        for name in names or found:
            one, when, job = found[name]
            origin, selector = one.get_remote_origin_id(), one.selector_id
            state = one.get_current_instigator_state(instance.get_instigator_state(origin, selector))
            if running is None or state.is_running == running:
                pass
            elif isinstance(one, RemoteSchedule):
                state = instance.start_schedule(one) if running else instance.stop_schedule(origin, selector, one)
            else:
                state = instance.start_sensor(one) if running else instance.stop_sensor(origin, selector, one)
            kind: Literal["schedule", "sensor"] = "schedule" if isinstance(one, RemoteSchedule) else "sensor"
            rows.append(ScheduleRow(name, kind, state.is_running, when, job))
    return tuple(rows)


def _find(settings: Settings) -> dict[str, tuple[RemoteSchedule | RemoteSensor, str, str]]:
    """Return the schedules and sensors as Dagster's daemon knows them, with when they tick and what they start."""
    workspace = settings.project_dir / "workspace.yaml"
    if not workspace.is_file():
        raise ConfigurationError(
            "Dagster's name for the project is unknown, and by it the state of schedules is kept.",
            where=str(workspace),
            fix="write that file, as in a new project: a `python_file` with a `location_name`.",
        )
    repository = build_definitions(settings).get_repository_def()
    handle = RepositoryHandle(
        repository_name=repository.name,
        code_location_origin=WorkspaceFileTarget([str(workspace)]).create_origins()[0],
        repository_python_origin=None,
        display_metadata={},
    )
    found: dict[str, tuple[RemoteSchedule | RemoteSensor, str, str]] = {}
    with disable_dagster_warnings():  # of what its own snapshots read
        for schedule in repository.schedule_defs:
            when = f"{schedule.cron_schedule} {schedule.execution_timezone or 'UTC'}"
            remote = RemoteSchedule(ScheduleSnap.from_def(schedule, repository), handle)
            found[schedule.name] = (remote, when, schedule.job_name)
        for sensor in repository.sensor_defs:
            when, jobs = (
                f"every {sensor.minimum_interval_seconds or 30} s",
                [target.job_name for target in sensor.targets],
            )
            found[sensor.name] = (RemoteSensor(SensorSnap.from_def(sensor, repository), handle), when, ", ".join(jobs))
    return dict(sorted(found.items()))
