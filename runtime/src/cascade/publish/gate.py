"""Decide whether a branch may be promoted: every blocking check of every changed table must have passed on it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

from cascade._dagster import NOT_FINISHED_STATUSES
from cascade.catalog import MAIN, BranchingCatalog, LogEntry
from cascade.config import Settings
from cascade.engine import delete_branch
from cascade.errors import PromotionRefusedError
from cascade.evidence import is_about
from cascade.lakehouse import branch_of_run
from cascade.names import DEFINITIONS_CHECK, PROMOTE_ASSET, is_run_branch

if TYPE_CHECKING:
    from pyiceberg.table.snapshots import Snapshot

__all__ = ["Guards", "promote_branch"]

_PAGE = 100
_CLOCKS_DIFFER = dt.timedelta(hours=1)  # of two machines, at most


@dataclass(frozen=True)
class Guards:
    """What must be true before a branch is promoted.

    Attributes:
        blocking: The blocking checks of each asset; all of them must have passed.
        broken: Files and definitions that could not be loaded, so that their checks are unknown: where and why.
        jobs: Jobs, schedules and sensors that could not be loaded; they keep nothing from being promoted.
    """

    blocking: Mapping[dg.AssetKey, Sequence[dg.AssetCheckKey]]
    broken: Sequence[str] = ()
    jobs: Sequence[str] = ()

    def told(self) -> dg.AssetCheckEvaluation:
        """Say whether all of the project can be used, as a check of the promotion, where people look in the UI."""
        return dg.AssetCheckEvaluation(
            dg.AssetKey(PROMOTE_ASSET),
            DEFINITIONS_CHECK,
            passed=not (self.broken or self.jobs),
            severity=dg.AssetCheckSeverity.ERROR if self.broken else dg.AssetCheckSeverity.WARN,
            description="\n\n".join([*self.broken, *self.jobs]) or "All files and definitions are loaded.",
        )


def promote_branch(
    catalog: BranchingCatalog, branch: str, instance: dg.DagsterInstance, guards: Guards
) -> LogEntry | None:
    """Merge a branch into `main` if its checks passed; the branch of a run is then deleted.

    Args:
        catalog: The catalog.
        branch: The branch to promote.
        instance: Dagster's storage, with the results of the checks.
        guards: The checks that must have passed.

    Returns:
        The entry of the log; `None` when the branch contains nothing new.

    Raises:
        PromotionRefusedError: A check has failed or has not run; all of them are named.
        PromotionConflictError: `main` has moved since the branch was created.
    """
    if not catalog.exists(branch):
        return None  # nothing was written on it, or a killed run has already promoted it
    changes = catalog.changes(branch)
    problems = [f"its checks are unknown, since it cannot be used: {what}" for what in guards.broken if changes]
    for change in changes:
        if change.after is None:
            continue
        head = catalog.load(change.table, change.after).current_snapshot()
        for check in guards.blocking.get(dg.AssetKey(change.table.split(".")), ()):
            verdict = _verdict(check, head, branch, instance, catalog.settings)
            if not verdict:
                said = "has not run" if verdict is None else "failed"
                snapshot_id = head.snapshot_id if head else None
                problems.append(f"{change.table}: check `{check.name}` {said} on snapshot {snapshot_id}")
    if problems:
        raise PromotionRefusedError(
            f"Branch `{branch}` was not promoted; `main` is unchanged.\n" + "\n".join(f"    {p}" for p in problems),
            where=f"branch {branch}",
            fix=f"look at it with `cascade query … --branch {branch}` and `cascade branch diff {branch}`, "
            "correct the cause, and run again.",
        )
    entry = catalog.merge(branch, MAIN, expected=changes) if changes else None
    if is_run_branch(branch):
        delete_branch(catalog, branch)
    return entry


def _verdict(
    check: dg.AssetCheckKey, head: Snapshot | None, branch: str, instance: dg.DagsterInstance, settings: Settings
) -> bool | None:
    """Return whether a check passed on one snapshot of one branch; `None` when it has not run on it.

    The event log mixes all branches, so its latest entry proves nothing: an evaluation counts when
    its run writes to this branch and it is about this snapshot.
    """
    history = partial(instance.event_log_storage.get_asset_check_execution_history, check, _PAGE)
    since, records = _oldest_run_since(head, instance), history()
    while records and records[0].create_timestamp >= since:
        for record in records:
            said = record.evaluation  # a planned one has no result yet
            if isinstance(said, dg.AssetCheckEvaluation) and _is_about_head(said, head, instance):
                run = instance.get_run_by_id(record.run_id)
                if run is not None and branch_of_run(run, settings) == branch:
                    return said.passed or said.severity is dg.AssetCheckSeverity.WARN
        records = history(cursor=records[-1].id)
    return None


def _oldest_run_since(head: Snapshot | None, instance: dg.DagsterInstance) -> float:
    """Return when the oldest run began that was at work after a commit: no earlier one can have looked at it."""
    committed = dt.datetime.fromtimestamp(head.timestamp_ms / 1000 if head else 0, dt.UTC) - _CLOCKS_DIFFER
    at_work = dg.RunsFilter(updated_after=committed), dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)
    oldest = (instance.get_run_records(runs, 1, "create_timestamp", ascending=True) for runs in at_work)
    began = min((run.create_timestamp for runs in oldest for run in runs), default=committed)
    return (began - _CLOCKS_DIFFER).timestamp()


def _is_about_head(evaluation: dg.AssetCheckEvaluation, head: Snapshot | None, instance: dg.DagsterInstance) -> bool:
    """Say whether an evaluation is about a snapshot: by its own metadata, else by the materialization it followed."""
    snapshot_id = head.snapshot_id if head else None
    told, target = is_about(evaluation.metadata, snapshot_id), evaluation.target_materialization_data
    if told is None and target is not None:
        # A plain Dagster check names no snapshot: it is about the materialization that it followed.
        followed = dg.AssetRecordsFilter(asset_key=evaluation.asset_key, storage_ids=[target.storage_id])
        records = instance.fetch_materializations(followed, limit=1).records
        if not records or records[0].asset_materialization is None:
            return False
        told = is_about(records[0].asset_materialization.metadata, snapshot_id)
    if told is not None:
        return told
    # The asset names no snapshot either: then it must have been materialized after the snapshot was committed.
    return target is not None and target.timestamp * 1000 >= (head.timestamp_ms if head else 0)
