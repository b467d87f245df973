"""What starts pipelines by itself: the schedules of `cron=`, and the sensors of `automation=`."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import dagster as dg

from cascade._dagster import UnresolvedAssetJobDefinition
from cascade.catalog import open_catalog
from cascade.config import Settings
from cascade.errors import CascadeError
from cascade.framework.definitions import downstream
from cascade.ingestion import automation_of
from cascade.names import CRON_METADATA, MAIN, TABLE_METADATA
from cascade.publish import PROMOTE_KEY, PUBLISH_KEY
from cascade_operations._dagster import AssetDaemonCursor
from cascade_operations.partitions import ends_of, is_dynamic, learn_keys, newest, range_tags

__all__ = ["triggers"]

Condition: TypeAlias = dg.AutomationCondition[dg.AssetKey]
Trigger: TypeAlias = dg.ScheduleDefinition | dg.SensorDefinition


def triggers(
    settings: Settings,
    assets: Sequence[dg.AssetsDefinition],
    upstream: Mapping[dg.AssetKey, set[dg.AssetKey]],
    impossible: list[str],
) -> list[Trigger]:
    """Return what `cron=` and `automation=` ask for: runs of an asset, everything downstream, promote and publish.

    Args:
        settings: The project's settings; `schedules` says whether they are on from the start.
        assets: All assets of the project.
        upstream: What each asset that is materialized here depends on.
        impossible: Gets one message for each pipeline that no run can hold.
    """
    partitions = {spec.key: spec.partitions_def for asset in assets for spec in asset.specs}
    made: list[Trigger] = []
    for asset in assets:
        cron = next((m[CRON_METADATA] for m in asset.metadata_by_key.values() if CRON_METADATA in m), None)
        condition = automation_of(asset)
        if cron is None and condition is None:
            continue
        covered = downstream({asset.key, PROMOTE_KEY, PUBLISH_KEY}, upstream)
        if others := {key for key in covered if partitions.get(key) not in (None, asset.partitions_def)}:
            named, word = sorted(key.to_user_string() for key in others), "cron" if cron else "automation"
            impossible.append(
                f"asset {asset.key.to_user_string()}: its schedule would cover {', '.join(named)} too, and one run "
                f"holds partitions of one kind; leave out `{word}`, and schedule a job of your own"
            )
            continue
        # Two namespaces may have a table of one name.
        selection = dg.AssetSelection.assets(*sorted(covered))
        says = f"Loads {asset.key.to_user_string()}, computes all that depends on it, checks, promotes and publishes."
        job = dg.define_asset_job(f"{_name(asset)}_pipeline", selection, description=says)
        sensor = _sensor(asset, condition, job, assets, settings) if condition is not None else None
        made.append(sensor or _schedule(asset, str(cron), job, settings))
    return made


def _schedule(
    asset: dg.AssetsDefinition, cron: str, job: UnresolvedAssetJobDefinition, settings: Settings
) -> dg.ScheduleDefinition:
    definition, status = asset.partitions_def, dg.DefaultScheduleStatus[settings.schedules.upper()]
    zone = definition.timezone if isinstance(definition, dg.TimeWindowPartitionsDefinition) else "UTC"

    @dg.schedule(
        name=f"{_name(asset)}_schedule", job=job, cron_schedule=cron, execution_timezone=zone, default_status=status
    )
    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if definition is None:
            return dg.RunRequest()
        instance = context.instance if is_dynamic(definition) else None
        with dg.partition_loading_context(context.scheduled_execution_time, instance):
            return _due(settings, asset, definition, context)

    return tick


def _due(
    settings: Settings,
    asset: dg.AssetsDefinition,
    definition: dg.PartitionsDefinition[Any],
    context: dg.ScheduleEvaluationContext,
) -> dg.RunRequest | dg.SkipReason:
    """Return what a tick loads: what `main` misses, or else what may have grown."""
    from cascade.ingestion.load import loaded_partitions

    held: set[str] | None = None
    try:
        table = asset.metadata_by_key[asset.key][TABLE_METADATA]
        held = loaded_partitions(open_catalog(settings), MAIN, table, definition)
        if is_dynamic(definition):
            learn_keys(context.instance, definition, held)
    except CascadeError as error:
        context.log.warning(f"What `main` misses is unknown, so the latest partition alone is loaded: {error}")
    keys = list(definition.get_partition_keys())
    if not keys:
        return dg.SkipReason("There is no partition yet.")
    grown = newest(definition, keys)
    wanted = [key for key in keys if key in grown or (held is not None and key not in held)]
    if len(wanted) == 1:
        return dg.RunRequest(partition_key=wanted[0])  # loaded again if it is there: it may have grown
    ends = ends_of(definition, wanted)
    return dg.RunRequest(tags=range_tags(definition, ends, missing_only=len(wanted) > len(grown)))


def _sensor(
    asset: dg.AssetsDefinition,
    condition: Condition,
    job: UnresolvedAssetJobDefinition,
    assets: Sequence[dg.AssetsDefinition],
    settings: Settings,
) -> dg.SensorDefinition:
    definition, status = asset.partitions_def, dg.DefaultSensorStatus[settings.schedules.upper()]

    @dg.sensor(name=f"{_name(asset)}_automation", job=job, minimum_interval_seconds=30, default_status=status)
    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        judged = asset.map_asset_specs(lambda spec: spec.replace_attributes(automation_condition=condition))
        others = [spec for each in assets if each is not asset for spec in each.specs]
        unused = {key: dg.ResourceDefinition.none_resource() for key in asset.required_resource_keys - {"io_manager"}}
        found = dg.evaluate_automation_conditions(
            dg.Definitions([judged, *others], resources=unused),
            context.instance,
            dg.AssetSelection.assets(asset.key),
            cursor=dg.deserialize_value(context.cursor, AssetDaemonCursor) if context.cursor else None,
        )
        requests = []
        if found.total_requested and definition is None:
            requests.append(dg.RunRequest())
        elif found.total_requested and definition is not None:
            wanted = found.get_requested_partitions(asset.key)
            with dg.partition_loading_context(dynamic_partitions_store=context.instance):
                ends = ends_of(definition, [key for key in definition.get_partition_keys() if key in wanted])
            requests.append(dg.RunRequest(tags=range_tags(definition, ends, missing_only=False)))
        return dg.SensorResult(requests, cursor=dg.serialize_value(found.cursor))

    return tick


def _name(asset: dg.AssetsDefinition) -> str:
    return "__".join(asset.key.path)
