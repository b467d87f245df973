"""Decide whether a branch may be promoted: every blocking check of every changed table must have passed on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cascade.catalog import MAIN, BranchingCatalog, LogEntry, TableChange
from cascade.config import Settings
from cascade.engine import delete_branch
from cascade.errors import PromotionRefusedError
from cascade.lakehouse import SNAPSHOT_METADATA, branch_of_run, is_run_branch

if TYPE_CHECKING:
    from dagster import AssetCheckKey, AssetKey, DagsterInstance
    from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

__all__ = ["Guards", "promote_branch", "refusals"]

_PAGE = 100


@dataclass(frozen=True)
class Guards:
    """What stands between a branch and `main`.

    Attributes:
        blocking: The blocking checks of each asset.
        broken: Files that could not be loaded, whose checks are unknown, with line and cause.
    """

    blocking: Mapping[AssetKey, Sequence[AssetCheckKey]]
    broken: Sequence[str] = ()


def promote_branch(
    lake: BranchingCatalog, settings: Settings, branch: str, instance: DagsterInstance, guards: Guards
) -> LogEntry | None:
    """Merge a branch into `main` if the gate lets it; the branch of a run ends with that.

    Args:
        lake: The catalog.
        settings: The project's settings.
        branch: The branch to promote.
        instance: Where Dagster keeps what the checks said.
        guards: What must have passed.

    Returns:
        The entry of the log; `None` when the branch held nothing new.

    Raises:
        PromotionRefusedError: A check has failed or has not run; all of them are named.
        PromotionConflictError: `main` moved in the meantime.
    """
    if not lake.exists(branch):
        return None  # nothing was ever written on it, or a killed run had promoted it already
    changes = lake.changes(branch)
    if problems := refusals(lake, settings, branch, changes=changes, instance=instance, guards=guards):
        raise PromotionRefusedError(
            f"Branch `{branch}` was not promoted; `main` is unchanged.\n" + "\n".join(f"    {p}" for p in problems),
            where=f"branch {branch}",
            fix=f"look at it with `cascade query … --branch {branch}` and `cascade branch diff {branch}`, "
            "correct the cause, and run again.",
        )
    entry = lake.merge(branch, MAIN, expected=changes) if changes else None
    if is_run_branch(branch):
        delete_branch(lake, branch)
    return entry


def refusals(
    lake: BranchingCatalog,
    settings: Settings,
    branch: str,
    *,
    changes: Sequence[TableChange],
    instance: DagsterInstance,
    guards: Guards,
) -> list[str]:
    """Return why a branch may not be promoted; nothing when it may. Arguments as for `promote_branch`."""
    from dagster import AssetKey

    if not changes:
        return []
    problems = [f"{file} could not be loaded, so its checks are unknown" for file in guards.broken]
    for change in changes:
        if change.after is None:
            continue
        snapshot = lake.load(change.table, change.after).current_snapshot()
        head = _Head(str(snapshot.snapshot_id), snapshot.timestamp_ms) if snapshot else _Head("None", 0)
        for check in guards.blocking.get(AssetKey(change.table.split(".")), ()):
            verdict = _verdict(check, branch, head, instance, settings)
            if verdict is None:
                problems.append(f"{change.table}: check `{check.name}` has not run on snapshot {head.snapshot_id}")
            elif not verdict:
                problems.append(f"{change.table}: check `{check.name}` failed on snapshot {head.snapshot_id}")
    return problems


@dataclass(frozen=True)
class _Head:
    """The newest snapshot of a table, and when it was committed, in milliseconds since 1970."""

    snapshot_id: str
    timestamp_ms: int


def _verdict(
    check: AssetCheckKey, branch: str, head: _Head, instance: DagsterInstance, settings: Settings
) -> bool | None:
    """Return what a check said of one snapshot on one branch; `None` when it has not been asked.

    Branches interleave in the event log, so its latest entry proves nothing: an evaluation counts when
    its run writes to this branch and it speaks of this snapshot.
    """
    cursor: int | None = None
    while True:
        records = instance.event_log_storage.get_asset_check_execution_history(check, limit=_PAGE, cursor=cursor)
        for record in records:
            run = instance.get_run_by_id(record.run_id)
            if run is None or branch_of_run(run, settings) != branch:
                continue
            if _speaks_of(record, head, instance):
                evaluation = record.evaluation
                assert evaluation is not None
                return evaluation.passed or evaluation.severity.value == "WARN"
        if len(records) < _PAGE:
            return None
        cursor = records[-1].id


def _speaks_of(record: AssetCheckExecutionRecord, head: _Head, instance: DagsterInstance) -> bool:
    """Say whether an evaluation is about a snapshot: by its own metadata, else by what it followed."""
    from dagster import AssetCheckEvaluation, AssetRecordsFilter

    evaluation = record.evaluation
    if not isinstance(evaluation, AssetCheckEvaluation):
        return False  # planned only
    if found := evaluation.metadata.get(SNAPSHOT_METADATA):
        return str(found.value) == head.snapshot_id
    # A check that knows nothing of snapshots is about the materialization that it followed.
    target = evaluation.target_materialization_data
    if target is None:
        return False
    materializations = instance.fetch_materializations(
        AssetRecordsFilter(asset_key=evaluation.asset_key, storage_ids=[target.storage_id]), limit=1
    ).records
    materialization = materializations[0].asset_materialization if materializations else None
    if materialization is None:
        return False
    if found := materialization.metadata.get(SNAPSHOT_METADATA):
        return str(found.value) == head.snapshot_id
    # Nor does the asset: then it must have been materialized after the snapshot was committed.
    return target.timestamp * 1000 >= head.timestamp_ms
