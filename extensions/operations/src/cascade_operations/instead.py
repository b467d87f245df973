"""A run in Dagster in which the load of one asset is something else, and all other things are as in any run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import dagster as dg

from cascade._dagster import disable_dagster_warnings
from cascade.config import Settings
from cascade.errors import UsageError
from cascade.ingestion import load_plan
from cascade.ingestion.limits import failure_reason
from cascade.ingestion.report import materialization, say
from cascade.names import TABLE_METADATA
from cascade_operations.events import Listener
from cascade_operations.records import RunReport
from cascade_operations.run import launch
from cascade_operations.work import ENDS

if TYPE_CHECKING:
    from cascade.ingestion.load import LoadResult
    from cascade.ingestion.plan import LoadPlan
    from cascade.lakehouse import Lakehouse

__all__ = ["ingestion_of", "ingestions_of", "run_instead"]


def ingestions_of(definitions: dg.Definitions) -> dict[str, dg.AssetsDefinition]:
    """Return the assets that load tables, by table."""
    return {
        ".".join(key.path): asset
        for asset in definitions.assets or ()
        if isinstance(asset, dg.AssetsDefinition) and asset.is_executable
        for key, metadata in asset.metadata_by_key.items()
        if TABLE_METADATA in metadata
    }


def ingestion_of(definitions: dg.Definitions, table: str, fix: str) -> tuple[dg.AssetsDefinition, LoadPlan]:
    """Return the asset that loads a table, and what it does.

    Raises:
        UsageError: No asset loads it.
    """
    found = ingestions_of(definitions)
    if table in found:
        return found[table], load_plan(found[table])
    raise UsageError(
        f"No asset of this project loads {table}.",
        where=f"tables that are loaded: {', '.join(sorted(found)) or 'none'}",
        fix=fix,
    )


def run_instead(
    settings: Settings,
    definitions: dg.Definitions,
    asset: dg.AssetsDefinition,
    load: Callable[[Lakehouse, str], LoadResult],
    *,
    promote: bool,
    tell: Listener,
    depending: bool = True,
) -> tuple[RunReport, tuple[str, ...]]:
    """Run the asset, whose load is another one, and what depends on it.

    Args:
        settings: The project's settings.
        definitions: The project's definitions.
        asset: The asset that loads the table.
        load: What is done in its place, given the lakehouse and the run's id.
        promote: Whether the branch is promoted.
        tell: Told of progress.
        depending: Whether what depends on the asset is computed.

    Returns:
        What the run did, and the assets with partitions that depend on the table: they are not computed.
    """
    graph = definitions.resolve_asset_graph()
    others = dg.AssetSelection.assets(asset.key).downstream().resolve(graph) & set(graph.executable_asset_keys)
    others = others - {asset.key, *ENDS} if depending else set()
    stale = {key for key in others if graph.get(key).partitions_def is not None}
    chosen_assets = {asset.key, *(others - stale)} | (ENDS if promote else set())
    replaced = replace_asset(definitions, asset, _instead(asset, load))
    report = launch(settings, replaced, chosen_assets, {asset.key}, tags={}, tell=tell)
    return report, tuple(sorted(key.to_user_string() for key in stale))


def _instead(asset: dg.AssetsDefinition, load: Callable[[Lakehouse, str], LoadResult]) -> dg.AssetsDefinition:
    """Return the asset as it is in this run: without partitions, for the rows may be of any."""
    with disable_dagster_warnings():

        @dg.asset(
            key=asset.key,
            check_specs=list(asset.check_specs),
            required_resource_keys={"lakehouse"},
            metadata=dict(asset.metadata_by_key[asset.key]),
        )
        def instead(context):  # type: ignore[no-untyped-def]  # Dagster reads annotations
            lakehouse = context.resources.lakehouse
            try:
                done = load(lakehouse, context.run.root_run_id or context.run.run_id)
            except Exception as error:
                raise dg.Failure(failure_reason(error), allow_retries=False) from error
            plan = load_plan(asset)
            say(context.log, done, plan.table)
            return materialization(context, plan, done, lakehouse)

    return instead


def replace_asset(definitions: dg.Definitions, asset: dg.AssetsDefinition, by: dg.AssetsDefinition) -> dg.Definitions:
    """Return definitions in which one asset is another."""
    return dg.Definitions(
        assets=[by if each is asset else each for each in definitions.assets or ()],
        asset_checks=definitions.asset_checks,
        resources=definitions.resources,
        executor=definitions.executor,
        metadata=definitions.metadata,
    )
