"""Promotion and publishing as assets: `cascade/promote` moves `main`, `cascade/publish` copies the marts out."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from cascade.catalog import MAIN, LogEntry
from cascade.lakehouse import Lakehouse
from cascade.names import PROMOTE_ASSET, PROMOTE_POOL, PUBLISH_ASSET
from cascade.publish.gate import Guards, promote_branch

__all__ = ["PROMOTE_KEY", "PUBLISH_KEY", "Guards", "build_publishing", "promote_branch"]

#: Selecting this asset is what promotes a run's branch.
PROMOTE_KEY = dg.AssetKey(PROMOTE_ASSET)
PUBLISH_KEY = dg.AssetKey(PUBLISH_ASSET)


def build_publishing(upstream: Sequence[dg.AssetKey], guards: Guards) -> list[dg.AssetsDefinition]:
    """Make the two assets that end every pipeline run.

    Args:
        upstream: Everything that must be there before the branch is promoted.
        guards: What must have passed.
    """

    @dg.asset(
        key=PROMOTE_KEY,
        deps=list(upstream),
        group_name="cascade",
        pool=PROMOTE_POOL,
        required_resource_keys={"lakehouse"},
        description="Promotes the run's branch: all its tables move to `main` at once, if every blocking check passed.",
    )
    def promote(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        lakehouse: Lakehouse = context.resources.lakehouse
        try:
            lakehouse.require_branch()
            entry = promote_branch(lakehouse.catalog, lakehouse.settings, lakehouse.branch, context.instance, guards)
        except Exception as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        lakehouse.forget_branch()  # what follows reads `main` where the branch ended with its promotion
        context.log.info(_sentence(lakehouse.branch, entry))
        return dg.MaterializeResult(
            metadata={
                "branch": lakehouse.branch,
                "promotion": entry.id if entry else "nothing to promote",
                "tables": [change.table for change in entry.changes] if entry else [],
            }
        )

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


def _sentence(branch: str, entry: LogEntry | None) -> str:
    if entry is None:
        return f"Branch {branch} holds nothing new; {MAIN} is unchanged."
    return f"Promoted branch {branch} to {MAIN} (entry {entry.id}): {', '.join(c.table for c in entry.changes)}."
