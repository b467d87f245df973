"""Warnings for jobs, sensors and conditions that write tables and do not promote them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg

from cascade._dagster import UnresolvedAssetJobDefinition, disable_dagster_warnings, replace_record
from cascade.framework.discovery import Item
from cascade.publish import PROMOTE_KEY, PUBLISH_KEY

__all__ = ["review"]


def review(definitions: dg.Definitions, items: Sequence[Item]) -> tuple[list[Item], list[str]]:
    """Warn of what materializes tables and does not promote them; a `cascade.framework.base.Reviewer`.

    Args:
        definitions: The definitions of the project.
        items: The objects of users and packages.
    """
    notes = _unpromoted_jobs(definitions, items)
    warnings = [*notes.values(), *_unpromoted_assets(definitions, items)]
    return _describe(items, notes) if notes else list(items), warnings


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


def _unpromoted_assets(definitions: dg.Definitions, items: Sequence[Item]) -> list[str]:
    """Return a warning for each sensor of assets, and for conditions of Dagster: no job promotes what they start."""
    assets = [asset for asset in definitions.assets or () if isinstance(asset, dg.AssetsDefinition)]
    tables = {key for asset in assets if "lakehouse" in asset.required_resource_keys for key in asset.keys}
    started = {
        item.title: item.value.asset_selection.resolve(assets) & tables
        for item in items
        if isinstance(item.value, dg.SensorDefinition)
        and item.value.asset_selection is not None
        # Those start what has a condition, which is told below.
        and not isinstance(item.value, dg.AutomationConditionSensorDefinition)
    }
    started["automation_condition"] = {key for asset in assets for key in asset.automation_conditions_by_key} & tables
    return [
        f"{title}: what it starts ({', '.join(sorted(key.to_user_string() for key in keys))}) is written to the branch "
        "of the setting `branch` and never reaches `main` by itself; give the asset `automation=`, or the sensor a job "
        "that selects 'cascade/promote'"
        for title, keys in started.items()
        if keys - {PROMOTE_KEY, PUBLISH_KEY} and PROMOTE_KEY not in keys
    ]


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
