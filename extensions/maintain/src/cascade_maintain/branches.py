"""Delete the branches of runs that ended long ago, and files that killed processes left in the data folder."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cascade.catalog import Branch, BranchingCatalog
from cascade.config import Settings
from cascade.engine import delete_branch, engine_of
from cascade.errors import BranchNotFoundError, CascadeError, count
from cascade.lakehouse import branch_of_run
from cascade.names import BACKFILL_TAG, BRANCH_TAG, ROOT_RUN_TAG, RUN_BRANCH_PREFIX, is_run_branch
from cascade_maintain.main import BRANCH_PREFIX, LIFT_PREFIX

if TYPE_CHECKING:
    from dagster import DagsterInstance, RunRecord

__all__ = ["Cleaning", "clean_branches", "unfinished_since", "write_times"]

# A run may be unknown: its history was deleted, or it ran on another machine. Then only the branch's age counts.
_UNKNOWN_FACTOR = 4
# A run that has not ended after this time counts as killed.
_LONGEST_RUN = dt.timedelta(days=7)
# Clocks of machines may differ by this much.
_MARGIN = dt.timedelta(minutes=10)
_LOG_BYTES = 16 << 20
# A run's branch ends with 8 characters of the run's id, or with the id of a backfill; users choose other names.
_MADE_BY_A_RUN = re.compile(rf"{RUN_BRANCH_PREFIX}[0-9a-z]{{8}}")


@dataclass(frozen=True)
class Cleaning:
    """What the cleaning removed, or would remove.

    Attributes:
        dry_run: Whether nothing was removed.
        removed: Branches, with the reason.
        left: Branches of runs that stay, with the reason.
        leftovers: Files and folders of ended processes, below the data folder; what the engine kept for branches
            that do not exist any more.
        problems: What could not be done.
    """

    dry_run: bool
    removed: Mapping[str, str]
    left: Mapping[str, str]
    leftovers: tuple[str, ...]
    problems: tuple[str, ...]


def clean_branches(
    catalog: BranchingCatalog,
    settings: Settings,
    instance: DagsterInstance,
    *,
    older_than: dt.timedelta,
    dry_run: bool = False,
    now: dt.datetime | None = None,
) -> Cleaning:
    """Delete the branches whose runs have all ended, if they were not used for long enough.

    It never deletes `main`, `dev`, a tag, or a branch that a user created. A branch whose run is unknown to
    Dagster, because its history was deleted or another machine ran it, stays four times as long.

    Args:
        catalog: The catalog.
        settings: The project's settings.
        instance: Dagster's storage, with the runs.
        older_than: Minimum time since the last use.
        dry_run: Whether to only report what would be removed.
        now: The time from which ages are counted; by default the current time.
    """
    removed: dict[str, str] = {}
    left: dict[str, str] = {}
    leftovers: list[str] = []
    problems: list[str] = []
    now = now or dt.datetime.now(dt.UTC)
    runs = _Runs(instance, settings)
    for branch in catalog.branches():
        if branch.kind != "branch" or not is_run_branch(branch.name):
            continue
        reason, stays = _judge(catalog, branch, runs, now, older_than)
        if not stays and not dry_run:
            try:
                delete_branch(catalog, branch.name)
            except BranchNotFoundError:
                continue  # a promotion has just deleted it
            except CascadeError as error:
                reason, stays = f"it could not be deleted: {error.what}", True
                problems.append(f"{branch.name}: {error.what}")
        (left if stays else removed)[branch.name] = reason
    for path in _leftovers(settings.data_path, runs, now, older_than):
        leftovers.append(str(path.relative_to(settings.data_path)))
        if not dry_run:
            _discard(path)
    if not dry_run:
        try:
            leftovers += engine_of(catalog.settings).drop_leftovers(catalog)
        except CascadeError as error:
            problems.append(error.what)
    return Cleaning(dry_run, removed, left, tuple(leftovers), tuple(problems))


def unfinished_since(instance: DagsterInstance, *, but: str = "") -> dt.datetime | None:
    """Return the start of the oldest run that may still be writing; `None` if there is none.

    A run that has not ended after a week counts as killed.

    Args:
        instance: Dagster's storage, with the runs.
        but: Id of a run to leave out: the one that calls this.
    """
    from dagster import RunsFilter

    from cascade._dagster import NOT_FINISHED_STATUSES

    now = dt.datetime.now(dt.UTC)
    wanted = RunsFilter(statuses=list(NOT_FINISHED_STATUSES), created_after=now - _LONGEST_RUN)
    records = instance.get_run_records(wanted)
    begun = [record.create_timestamp for record in records if record.dagster_run.run_id != but]
    return min(begun) - _MARGIN if begun else None


@dataclass
class _Runs:
    """The runs that Dagster knows, by the branch that they write to."""

    instance: DagsterInstance
    settings: Settings

    @cached_property
    def ids(self) -> list[str]:
        """The ids of all runs."""
        return list(self.instance.get_run_ids())

    def of(self, branch: str) -> list[RunRecord]:
        """Return the records of all runs of a branch, re-executions and those of a backfill included."""
        from dagster import RunsFilter

        name = branch.removeprefix(RUN_BRANCH_PREFIX)
        roots = [run_id for run_id in self.ids if run_id.startswith(name)]
        filters = [RunsFilter(tags={BRANCH_TAG: branch}), RunsFilter(tags={BACKFILL_TAG: name})]
        if roots:
            filters += [RunsFilter(tags={ROOT_RUN_TAG: roots}), RunsFilter(run_ids=roots)]
        found = {r.dagster_run.run_id: r for wanted in filters for r in self.instance.get_run_records(wanted)}
        return [r for r in found.values() if branch_of_run(r.dagster_run, self.settings) == branch]

    def backfill_goes_on(self, branch: str) -> bool:
        """Say whether the branch belongs to a backfill that has not ended."""
        from cascade._dagster import BULK_ACTION_TERMINAL_STATUSES

        backfill = self.instance.get_backfill(branch.removeprefix(RUN_BRANCH_PREFIX))
        return backfill is not None and backfill.status not in BULK_ACTION_TERMINAL_STATUSES

    def has_ended(self, run_id: str) -> bool:
        """Say whether a run has ended, or is unknown."""
        run = self.instance.get_run_by_id(run_id)
        return run is None or run.is_finished


def _judge(
    catalog: BranchingCatalog, branch: Branch, runs: _Runs, now: dt.datetime, older_than: dt.timedelta
) -> tuple[str, bool]:
    """Return the reason why a branch is deleted or stays, and whether it stays."""
    if now - branch.created_at < older_than:
        return f"it is {_days(now - branch.created_at)} old", True
    records = runs.of(branch.name)
    if alive := [r.dagster_run for r in records if not r.dagster_run.is_finished]:
        return f"run {alive[0].run_id} has not ended ({alive[0].status.value})", True
    if runs.backfill_goes_on(branch.name):
        return "its backfill has not ended", True
    idle = now - max([branch.created_at, *_ends(records), *write_times(catalog, branch)])
    # One on which tables were maintained or lifted has no run, and was left by a process that was killed.
    known = bool(records) or branch.name.startswith((BRANCH_PREFIX, LIFT_PREFIX))
    return _judge_idle(branch.name, known, idle, older_than)


def _judge_idle(branch: str, known: bool, idle: dt.timedelta, older_than: dt.timedelta) -> tuple[str, bool]:
    if idle < older_than:
        return f"it was used {_days(idle)} ago", True
    if known:
        return f"its run ended, idle for {_days(idle)}", False
    if not _MADE_BY_A_RUN.fullmatch(branch):
        return "a user created it", True
    if idle < _UNKNOWN_FACTOR * older_than:
        return f"its run is not known here, and it is idle for {_days(idle)} only", True
    return f"its run is not known here, idle for {_days(idle)}", False


def _ends(records: list[RunRecord]) -> Iterator[dt.datetime]:
    for record in records:
        yield record.create_timestamp
        if record.end_time is not None:
            yield dt.datetime.fromtimestamp(record.end_time, dt.UTC)


def write_times(catalog: BranchingCatalog, branch: Branch) -> Iterator[dt.datetime]:
    """Return when the tables that a branch changed were written."""
    with contextlib.suppress(BranchNotFoundError):
        for change in catalog.changes(branch.name):
            if change.after is not None:
                written = catalog.load(change.table, change.after).metadata.last_updated_ms
                yield dt.datetime.fromtimestamp(written / 1000, dt.UTC)


def _leftovers(data_path: Path, runs: _Runs, now: dt.datetime, older_than: dt.timedelta) -> Iterator[Path]:
    """Return leftovers of killed processes: dbt's folders of runs, spilled rows, an unfinished copy of the marts."""

    def old(path: Path) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return now - dt.datetime.fromtimestamp(path.lstat().st_mtime, dt.UTC) >= older_than
        return False

    for pattern in ("dbt/runs/*", "tmp/*", "*.new"):
        for path in sorted(data_path.glob(pattern)):
            if old(path) and runs.has_ended(path.name):  # a folder of dbt is named after its run
                yield path
    log = data_path / "dbt" / "dbt.log"
    if log.is_file() and log.stat().st_size > _LOG_BYTES:
        yield log


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _days(age: dt.timedelta) -> str:
    hours = age.total_seconds() / 3600
    return count(round(hours / 24), "day") if hours >= 48 else count(round(hours), "hour")
