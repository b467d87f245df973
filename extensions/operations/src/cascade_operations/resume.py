"""Go on with the branch of a run that failed: what it holds and was checked stays, the rest is made."""

from __future__ import annotations

from typing import Any

import dagster as dg

from cascade.catalog import BranchingCatalog
from cascade.errors import UsageError
from cascade.framework.definitions import downstream
from cascade.names import BRANCH_TAG, EMPTY_TAG, is_run_branch
from cascade.publish import PROMOTE_KEY, PUBLISH_KEY

__all__ = ["put_back", "require_run_branch", "settled", "upstream_of"]

_TOLD = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_CHECK_EVALUATION}


def require_run_branch(catalog: BranchingCatalog, branch: str) -> None:
    """Refuse a branch that is not one of a run that failed.

    Raises:
        UsageError: There is no such branch, or it belongs to no run; those that can be named are listed.
    """
    kept = sorted(one.name for one in catalog.branches() if is_run_branch(one.name))
    if branch not in kept:
        raise UsageError(
            f"`{branch}` is not the branch of a run that failed.",
            where="--resume",
            fix=f"name one of {', '.join(kept)}." if kept else "there is none: leave out --resume.",
        )


def settled(
    graph: Any, chosen: set[dg.AssetKey], loads: set[dg.AssetKey], *, instance: dg.DagsterInstance, branch: str
) -> tuple[set[dg.AssetKey], set[dg.AssetKey]]:
    """Look up what earlier runs of a branch have done.

    Args:
        graph: Dagster's asset graph.
        chosen: The assets of the run.
        loads: Those of them with partitions that it loads.
        instance: Where Dagster keeps its runs.
        branch: The branch.

    Returns:
        Assets without partitions that need not be computed again, and assets whose blocking check has failed. Models
        are not among the first: what they are made from tells more. Neither is what depends on a model, or on what is
        computed again.

    Raises:
        UsageError: A check refuses rows of partitions that are loaded: only a new branch loads them again.
    """
    made: set[dg.AssetKey] = set()
    verdicts: dict[dg.AssetCheckKey, bool] = {}
    for run in reversed(instance.get_runs(dg.RunsFilter(tags={BRANCH_TAG: branch}))):  # the oldest first
        for record in instance.get_records_for_run(run.run_id, of_type=_TOLD).records:
            event = record.event_log_entry.dagster_event
            if event is None:
                continue
            if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION and event.asset_key:
                made.add(event.asset_key)
            elif event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                said = event.asset_check_evaluation_data
                stops = bool(said.blocking) and said.severity is dg.AssetCheckSeverity.ERROR
                verdicts[said.asset_check_key] = said.passed or not stops
    failed = sorted(check for check, passed in verdicts.items() if not passed and check.asset_key in chosen)
    refused = {check.asset_key for check in failed}
    alone = {key for key in chosen if graph.get(key).partitions_def is None}
    if loaded := [check for check in failed if check.asset_key not in alone | loads]:
        names = ", ".join(f"`{check.name}` of {check.asset_key.to_user_string()}" for check in loaded)
        raise UsageError(
            f"Rows that a check refuses are loaded on this branch, and would not be loaded again: {names}.",
            where=f"branch {branch}",
            fix="leave out --resume: a new branch begins with what `main` holds.",
        )
    models = {key for key in chosen if EMPTY_TAG in graph.get(key).assets_def.op.tags}
    again = {key for key in chosen - models if key not in made or key in refused}
    return (alone & made) - downstream(models | again | loads, upstream_of(graph)) - {PROMOTE_KEY, PUBLISH_KEY}, refused


def put_back(graph: Any, again: set[dg.AssetKey], *, catalog: BranchingCatalog, branch: str) -> None:
    """Let the tables of models that are made again be as the branch began.

    What a failed run has left of them, such as some batches of a microbatch, would count as made, and what a model
    appends would be there twice.

    Args:
        graph: Dagster's asset graph.
        again: The assets that are made.
        catalog: The catalog.
        branch: The branch.
    """
    tables = {".".join(key.path) for key in again if EMPTY_TAG in graph.get(key).assets_def.op.tags}
    catalog.put_back(branch, {one.table: one.before for one in catalog.changes(branch) if one.table in tables})


def upstream_of(graph: Any) -> dict[dg.AssetKey, set[dg.AssetKey]]:
    """Return what each asset of Dagster's graph that a run can compute depends on."""
    return {key: set(graph.get(key).parent_keys) for key in graph.executable_asset_keys}
