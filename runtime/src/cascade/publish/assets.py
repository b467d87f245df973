"""The two assets that end a pipeline: `cascade/promote` moves `main`, `cascade/publish` copies the marts out."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from cascade.catalog import MAIN
from cascade.lakehouse import Lakehouse
from cascade.names import PROMOTE_ASSET, PROMOTE_POOL, PROMOTED_AT, PROMOTED_TABLES, PROMOTION, PUBLISH_ASSET
from cascade.publish.after import after_promotion
from cascade.publish.gate import Guards, promote_branch

__all__ = ["PROMOTE_KEY", "PUBLISH_KEY", "build_publishing"]

#: A run that includes this asset promotes its branch.
PROMOTE_KEY = dg.AssetKey(PROMOTE_ASSET)
PUBLISH_KEY = dg.AssetKey(PUBLISH_ASSET)


def build_publishing(upstream: Sequence[dg.AssetKey], guards: Guards) -> list[dg.AssetsDefinition]:
    """Return the two assets that end every pipeline run.

    Args:
        upstream: All assets that must be materialized before the branch is promoted.
        guards: The checks that must have passed.
    """
    told = guards.told()
    said = "Every file and definition of the project can be used. One that cannot has checks that nobody knows."

    @dg.asset(
        key=PROMOTE_KEY,
        deps=list(upstream),
        check_specs=[dg.AssetCheckSpec(told.check_name, asset=PROMOTE_KEY, description=said)],
        group_name="cascade",
        pool=PROMOTE_POOL,
        required_resource_keys={"lakehouse"},
        description="Promotes the run's branch: all its tables move to `main` at once, if every blocking check passed.",
    )
    def promote(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        lakehouse: Lakehouse = context.resources.lakehouse
        catalog, branch = lakehouse.catalog, lakehouse.branch
        verdict = [dg.AssetCheckResult(passed=told.passed, severity=told.severity, description=told.description)]
        try:
            lakehouse.require_branch()
            entry = promote_branch(catalog, branch, context.instance, guards)
        except Exception as error:
            context.log_event(told)  # what a step yields before it fails is lost
            raise dg.Failure(str(error), allow_retries=False) from error
        lakehouse.forget_branch()  # a run branch ends with its promotion: later steps read `main`
        if entry is None:
            context.log.info(f"Branch {branch} contains nothing new; {MAIN} is unchanged.")
            yield dg.MaterializeResult(metadata={"branch": branch, "promoted": "nothing"}, check_results=verdict)
            return
        tables = [change.table for change in entry.changes]
        context.log.info(f"Promoted branch {branch} to {MAIN} (entry {entry.id}): {', '.join(tables)}.")
        at = dg.MetadataValue.timestamp(entry.at)
        moved: dict[str, Any] = {"branch": branch, PROMOTION: entry.id, PROMOTED_AT: at, PROMOTED_TABLES: tables}
        yield dg.MaterializeResult(metadata=moved, check_results=verdict)
        # Told after the promotion, which stands whatever becomes of the rest.
        for one in after_promotion(catalog, entry):
            (context.log.warning if one.failed else context.log.info)(f"Afterwards, {one.name}: {one.said}")
            context.log_event(dg.AssetObservation(PROMOTE_KEY, metadata={one.name: one.said}))

    @dg.asset(
        key=PUBLISH_KEY,
        deps=[PROMOTE_KEY],
        group_name="cascade",
        required_resource_keys={"lakehouse"},
        description="Copies the marts from `main` to the serving database.",
    )
    def publish(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        from cascade.publish.marts import marts_location, publish_marts

        lakehouse: Lakehouse = context.resources.lakehouse
        rows = publish_marts(lakehouse.catalog, lakehouse.settings)
        context.log.info("Published " + (", ".join(f"{t} ({n:,} rows)" for t, n in rows.items()) or "nothing new"))
        return dg.MaterializeResult(metadata={"location": marts_location(lakehouse.settings), "rows": rows})

    return [promote, publish]
