"""Warnings for jobs that write tables and do not promote them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg

from cascade._dagster import UnresolvedAssetJobDefinition, disable_dagster_warnings, replace_record
from cascade.framework.discovery import Item
from cascade.publish import PROMOTE_KEY, PUBLISH_KEY

__all__ = ["review"]


def review(definitions: dg.Definitions, items: Sequence[Item]) -> tuple[list[Item], list[str]]:
    """Warn of each job that materializes tables and does not promote them; a `cascade.framework.base.Reviewer`.

    Args:
        definitions: The definitions of the project.
        items: The objects of users and packages.
    """
    notes = _unpromoted_jobs(definitions, items)
    return _describe(items, notes) if notes else list(items), list(notes.values())


def _unpromoted_jobs(definitions: dg.Definitions, items: Sequence[Item]) -> dict[str, str]:
    """Return the warnings, by the job's name."""
    titles: dict[str, str] = {}
    for item in items:  # jobs come before schedules and sensors
        for name in _job_names(item):
            titles.setdefault(name, item.title)
    assets = [asset for asset in definitions.assets or () if isinstance(asset, dg.AssetsDefinition)]
    tables = {key for asset in assets if "lakehouse" in asset.required_resource_keys for key in asset.keys}
    repository, notes = definitions.get_repository_def(), {}
    for name in titles.keys() & set(repository.job_names):
        keys = set(repository.get_job(name).asset_layer.executable_asset_keys)
        if PROMOTE_KEY not in keys and (written := keys & tables - {PUBLISH_KEY}):
            names = ", ".join(sorted(key.to_user_string() for key in written))
            notes[name] = (
                f"{titles[name]}: what it writes ({names}) stays on the branch of its run and never reaches "
                "`main`; add AssetSelection.assets('cascade/promote') to its selection"
            )
    return notes


def _describe(items: Sequence[Item], notes: Mapping[str, str]) -> list[Item]:
    """Add warnings to the descriptions of jobs, where the UI shows them."""
    noted: dict[str, Any] = {}

    def note(job: Any) -> Any:
        if not isinstance(job, UnresolvedAssetJobDefinition) or job.name not in notes:
            return job
        # Schedules and sensors must hold the same object as the list of jobs.
        text = " ".join(filter(None, [job.description, f"Warning: {notes[job.name]}."]))
        return noted.setdefault(job.name, replace_record(job, description=text))

    # A copy of a job that a `Definitions` contains too would be a second job of that name.
    whole = [item.value for item in items if item.kind == "definitions"]
    if any(definitions.jobs or definitions.schedules or definitions.sensors for definitions in whole):
        return list(items)
    described = []
    with disable_dagster_warnings():  # copies would repeat the warnings of the originals
        for item in items:
            value = note(item.value)
            if isinstance(value, dg.ScheduleDefinition) and value.target.has_job_def:
                value = value.with_updated_job(note(value.job))
            elif isinstance(value, dg.SensorDefinition) and any(target.has_job_def for target in value.targets):
                value = value.with_updated_jobs([note(job) for job in value.jobs])
            described.append(replace(item, value=value))
    return described


def _job_names(item: Item) -> list[str]:
    if isinstance(item.value, dg.SensorDefinition):
        return [target.job_name for target in item.value.targets]
    if item.kind == "schedules":
        return [item.value.job.name if item.value.has_job else item.value.job_name]
    return [item.value.name] if item.kind == "jobs" else []
