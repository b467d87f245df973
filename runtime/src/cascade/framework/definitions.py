"""Assemble one Dagster `Definitions`: workflows, dbt models, promotion, schedules and the lakehouse resource."""

import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from cascade.config import Settings, load_settings, use_settings
from cascade.engine import await_engine
from cascade.errors import TransformError
from cascade.extensions import extension_names, find_extension
from cascade.framework.discovery import BROKEN_METADATA, broken_files, discover_user_workflows
from cascade.ingestion import CRON_METADATA
from cascade.lakehouse import BRANCH_TAG, Lakehouse, branch_of_run, is_run_branch
from cascade.publish import PROMOTE_KEY, PUBLISH_KEY, Guards, build_publishing
from cascade.transform.parse import start_parsing

__all__ = ["build_definitions", "defs", "guards_of"]  # noqa: F822  # `defs` is resolved by `__getattr__`

_SCHEDULES = "cascade.schedules"


def __getattr__(name: str) -> Any:
    # Built when it is asked for: `from cascade.framework.definitions import defs` is all a project needs.
    if name == "defs":
        return build_definitions(load_settings())
    raise AttributeError(name)


def build_definitions(settings: Settings) -> dg.Definitions:
    """Build what Dagster loads for a project.

    Files that cannot be loaded are named on standard error and in the definitions' metadata; the rest
    loads, can be materialized on a branch, and is not promoted.

    Args:
        settings: The project's settings.
    """
    dbt: list[dg.AssetsDefinition] = []
    # dbt works while the workflows are imported.
    with start_parsing(settings) as manifest, use_settings(settings):
        found = discover_user_workflows(settings.workflows_path)
        broken = broken_files(found)
        try:
            dbt = _dbt_assets(settings, manifest)
        except TransformError as error:
            broken.append(f"{settings.dbt_dir}: {error.what}")
    for problem in broken:
        print(f"cascade: not loaded: {problem}", file=sys.stderr)
    said = {BROKEN_METADATA: dg.MetadataValue.json(broken)}
    theirs = dg.Definitions.merge(found, dg.Definitions(assets=dbt, metadata=said))
    assets = [a for a in theirs.assets or () if isinstance(a, dg.AssetsDefinition)]
    schedules = [_schedule(a) for a in assets if _cron(a)]
    schedules += [find_extension(_SCHEDULES, name)(settings) for name in extension_names(_SCHEDULES)]
    ours = dg.Definitions(
        assets=build_publishing(_before_promotion(assets), guards_of(theirs)),
        schedules=schedules,
        jobs=[schedule.job for schedule in schedules],
        resources={"lakehouse": _lakehouse_resource(settings)},
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(theirs, ours)


def guards_of(definitions: dg.Definitions) -> Guards:
    """Return what guards the promotion of a project, from its definitions."""
    blocking: dict[dg.AssetKey, list[dg.AssetCheckKey]] = defaultdict(list)
    for definition in [*(definitions.assets or ()), *(definitions.asset_checks or ())]:
        for spec in definition.check_specs if isinstance(definition, dg.AssetsDefinition) else ():
            if spec.blocking:
                blocking[spec.asset_key].append(spec.key)
    return Guards(dict(blocking), tuple(broken_files(definitions)))


def _dbt_assets(settings: Settings, manifest: Callable[[], Path | None]) -> list[dg.AssetsDefinition]:
    if not (settings.dbt_path / "dbt_project.yml").is_file():
        return []
    # dagster-dbt imports all of dbt, three seconds that a project without models need not pay.
    from cascade.transform.assets import build_dbt_assets

    parsed = manifest()
    assets = build_dbt_assets(settings, parsed) if parsed else None
    return [assets] if assets else []


def _before_promotion(assets: list[dg.AssetsDefinition]) -> list[dg.AssetKey]:
    """Return all assets that are materialized here, but for those that wait for the promotion themselves."""
    upstream = {key: set(a.asset_deps[key]) for a in assets if a.is_executable for key in a.keys}
    after = {PROMOTE_KEY, PUBLISH_KEY}
    while more := {key for key, deps in upstream.items() if deps & after} - after:
        after |= more
    return sorted(upstream.keys() - after)


def _cron(asset: dg.AssetsDefinition) -> str | None:
    return next((str(m[CRON_METADATA]) for m in asset.metadata_by_key.values() if CRON_METADATA in m), None)


def _schedule(asset: dg.AssetsDefinition) -> dg.ScheduleDefinition:
    """Make the schedule that `cron=` asks for: the asset's latest partition, all downstream, promote and publish."""
    name = asset.key.path[-1]
    job = dg.define_asset_job(f"{name}_pipeline", dg.AssetSelection.assets(asset.key).downstream())
    definition = asset.partitions_def
    zone = definition.timezone if isinstance(definition, dg.TimeWindowPartitionsDefinition) else "UTC"

    @dg.schedule(name=f"{name}_schedule", job=job, cron_schedule=_cron(asset) or "", execution_timezone=zone)
    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if definition is None:
            return dg.RunRequest()
        keys = definition.get_partition_keys(context.scheduled_execution_time)
        return dg.RunRequest(partition_key=keys[-1]) if keys else dg.SkipReason("There is no partition yet.")

    return tick


def _lakehouse_resource(settings: Settings) -> dg.ResourceDefinition:
    def open_lakehouse(context: dg.InitResourceContext) -> Lakehouse:
        if context.run is None:
            return Lakehouse(settings, settings.branch)
        log = context.log
        assert log is not None  # each run has one
        await_engine(settings, lambda what: log.info(f"Waiting for {what}"))
        branch = branch_of_run(context.run, settings)
        if BRANCH_TAG not in context.run.tags and not is_run_branch(branch) and context.instance is not None:
            # It came from the settings of this process; whoever promotes it may have others.
            context.instance.add_run_tags(context.run.run_id, {BRANCH_TAG: branch})
        return Lakehouse(settings, branch)

    return dg.ResourceDefinition(open_lakehouse, description="The lakehouse on the branch that the run writes to.")
