"""Run assets in this process, against the same Dagster storage that the UI opens."""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import dagster as dg

from cascade._dagster import serializable_error_info_from_exc_info
from cascade.catalog import MAIN, check_reference_name, open_catalog
from cascade.config import Settings
from cascade.engine import delete_branch
from cascade.errors import DefinitionError, TransformError, UsageError
from cascade.framework.definitions import build_definitions, problems_of
from cascade.framework.instance import open_instance
from cascade.lakehouse import Lakehouse
from cascade.names import BRANCH_TAG, COMMAND_TAG, EMPTY_TAG, FULL_REFRESH_TAG, run_branch
from cascade.publish.marts import marts_location
from cascade_operations.after import followed
from cascade_operations.events import Listener, Loading, NewBranch, NotLoaded, Waiting, ignore
from cascade_operations.failures import error_text
from cascade_operations.launch import Launch, is_written
from cascade_operations.owners import files_stamp, note_owners
from cascade_operations.plan import describe
from cascade_operations.planned import Plan
from cascade_operations.records import RunReport
from cascade_operations.resume import require_run_branch
from cascade_operations.selection import select_assets
from cascade_operations.table_changes import conflicting, empty_tables, loaded_tables
from cascade_operations.watch import Watcher
from cascade_operations.work import choose, find_work

__all__ = [
    "BrokenProjectError",
    "close_killed_runs",
    "emptied",
    "launch",
    "load_definitions",
    "materialize",
    "plan_run",
    "rehearsed",
    "run_pipeline",
]


class BrokenProjectError(DefinitionError):
    """Files or definitions of a project cannot be used, so that nothing of it could be promoted."""

    exit_code = 1  # nothing is wrong with the command


def run_pipeline(
    settings: Settings,
    *,
    select: Sequence[str] = (),
    partition: str | None = None,
    promote: bool = True,
    branch: str | None = None,
    full_refresh: bool = False,
    everything: bool = False,
    resume: str | None = None,
    show_plan: bool = False,
    tell: Listener = ignore,
) -> RunReport:
    """Run the pipeline on a branch of its own and promote it.

    Models whose tables on `main` are what computing them again would give are left out.

    Args:
        settings: The project's settings.
        select: Selections, as `select_assets` reads them; all assets by default.
        partition: A partition, or a range `first..last`. By default those that `main` does not hold.
        promote: Whether the branch is promoted and the marts are published.
        branch: A branch that stays, in place of the run's own; a new one begins as `main`. It is not promoted.
            Partitions that it does not hold are loaded, and no model is left out.
        full_refresh: Whether the chosen tables are made from the start: models from all rows; ingestions load all
            partitions again, into emptied tables, without a cursor. Readers of `main` see the old tables until then.
        everything: Whether no model is left out. Those that `select` names and those of a full refresh never are.
        resume: Branch of a run that failed, to go on with: what it holds and was checked is not made again.
        show_plan: Whether `tell` gets the plan of the run before it begins.
        tell: Told of progress.

    Raises:
        UsageError: An asset or a partition does not exist, the branch cannot be written, or going on would not help.
        BrokenProjectError: Files or definitions cannot be used, so that nothing could be promoted.
        LeaseHeldError: Another pipeline run is working towards `main`.
    """
    if branch is not None:
        options: dict[str, Any] = {"partition": partition, "full_refresh": full_refresh, "tell": tell}
        return _on_branch(settings, "cascade run", branch, lambda all: choose(all, select, promote=False)[0], **options)
    with followed(settings, tell, "cascade run"):
        if resume is not None:
            require_run_branch(open_catalog(settings), resume)
        definitions = load_definitions(settings, tell, promote=promote)
        chosen, named = choose(definitions, select, promote=promote)
        kept = None if everything or full_refresh else named
        tables = _refreshed(MAIN, settings, definitions, chosen, partition) if full_refresh else []
        begin = partial(empty_tables, tables=tables, tell=tell) if tables else None
        options = {"partition": partition, "tags": _refresh(full_refresh), "show_plan": show_plan}
        return launch(settings, definitions, chosen, kept, **options, resume=resume, begin=begin, tell=tell)


def plan_run(
    settings: Settings,
    *,
    select: Sequence[str] = (),
    partition: str | None = None,
    promote: bool = True,
    full_refresh: bool = False,
    everything: bool = False,
    tell: Listener = ignore,
) -> Plan:
    """Say what `run_pipeline` would do with the same arguments; nothing is run, and no table is written.

    Args:
        settings: The project's settings.
        select: As for `run_pipeline`, as are the next four.
        partition: A partition, or a range `first..last`.
        promote: Whether the branch is promoted.
        full_refresh: Whether the chosen tables are made from the start.
        everything: Whether no model is left out.
        tell: Told of progress.

    Raises:
        UsageError: An asset or a partition does not exist.
        BrokenProjectError: Files or definitions cannot be used; all of them are named.
    """
    definitions = load_definitions(settings, tell, promote=promote)
    chosen, named = choose(definitions, select, promote=promote)
    graph, lakehouse = definitions.resolve_asset_graph(), Lakehouse(settings, MAIN)
    emptied = _refreshed(MAIN, settings, definitions, chosen, partition) if full_refresh else []
    with open_instance(settings) as instance:
        kept = None if everything or full_refresh else named
        options: dict[str, Any] = {"instance": instance, "lakehouse": lakehouse}
        work = find_work(graph, chosen, partition, kept, emptied=emptied, **options)
        plan = describe(definitions, work, named, full_refresh=full_refresh, **options)
    return replace(plan, conflicts=conflicting(lakehouse.catalog, set(emptied)) if emptied else ())


def launch(
    settings: Settings,
    definitions: dg.Definitions,
    chosen: set[dg.AssetKey],
    named: set[dg.AssetKey] | None,
    *,
    partition: str | None = None,
    tags: Mapping[str, str],
    show_plan: bool = False,
    resume: str | None = None,
    begin: Callable[[Lakehouse], None] | None = None,
    tell: Listener = ignore,
) -> RunReport:
    """Run assets on a branch of their own, under the lease of `main`.

    Args:
        settings: The project's settings.
        definitions: What the assets are in this run.
        chosen: The assets; with the one that promotes, the branch is promoted.
        named: Those that are computed in any case, while others are left out when nothing has changed; `None`: all.
        partition: As for `run_pipeline`.
        tags: Further tags of the run in Dagster.
        show_plan: As for `run_pipeline`.
        resume: As for `run_pipeline`.
        begin: What is done on the branch first; when it fails, nothing is run, and the branch is deleted.
        tell: Told of progress.

    Raises:
        LeaseHeldError: Another pipeline run is working towards `main`.
    """
    run_id = str(uuid.uuid4())
    lakehouse = Lakehouse(settings, resume or run_branch(run_id))
    watcher = Watcher(tell, settings.project_dir, lakehouse.branch)
    tags = {BRANCH_TAG: lakehouse.branch, COMMAND_TAG: "run", **tags}
    with (
        _stopped(watcher),
        lakehouse.catalog.lease(MAIN, "`cascade run`"),
        open_instance(settings) as instance,
    ):
        close_killed_runs(instance)
        if begin is not None:
            _begin(begin, Lakehouse(settings, lakehouse.branch))
        with _stopped(watcher):
            one = Launch(definitions, instance, lakehouse, watcher, named, show_plan, resumed=resume is not None)
            one.execute(chosen, partition, run_id, tags)
        watcher.branch_kept = None
        if watcher.promotion:
            watcher.marts = marts_location(settings)
        watcher.branch_kept = _keep_if_written(lakehouse)
    return watcher.report()


def _begin(begin: Callable[[Lakehouse], None], lakehouse: Lakehouse) -> None:
    try:
        begin(lakehouse)
    except BaseException:
        with contextlib.suppress(Exception):  # what failed is told
            if lakehouse.catalog.exists(lakehouse.branch):
                delete_branch(lakehouse.catalog, lakehouse.branch)
        raise


def materialize(
    settings: Settings,
    assets: Sequence[str],
    *,
    branch: str | None = None,
    partition: str | None = None,
    full_refresh: bool = False,
    tell: Listener = ignore,
) -> RunReport:
    """Materialize assets on the branch for single materializations, and run their checks.

    Args:
        settings: The project's settings.
        assets: Selections, as for `run_pipeline`.
        branch: The branch, by default the setting `branch`; a new one begins as `main`.
        partition: As for `run_pipeline`; by default what the branch does not hold.
        full_refresh: As for `run_pipeline`; readers of the branch see emptied tables until they are loaded.
        tell: Told of progress.

    Raises:
        UsageError: An asset or a partition does not exist, or the branch cannot be written.
    """
    chosen = partial(select_assets, texts=assets)
    options: dict[str, Any] = {"partition": partition, "full_refresh": full_refresh, "tell": tell}
    return _on_branch(settings, "cascade materialize", branch or settings.branch, chosen, **options)


def _on_branch(
    settings: Settings,
    command: str,
    branch: str,
    chosen_of: Callable[[dg.Definitions], set[dg.AssetKey]],
    *,
    partition: str | None,
    full_refresh: bool,
    tell: Listener,
) -> RunReport:
    """Run assets on a branch that stays, and promote nothing."""
    lakehouse = Lakehouse(settings, branch)
    lakehouse.engine.await_ready(settings, lambda what: tell(Waiting(what)))
    _require_writable(lakehouse)
    if not lakehouse.catalog.exists(branch):
        tell(NewBranch(branch))
    with followed(settings, tell, command, branch=branch):
        definitions = load_definitions(settings, tell, promote=False)
        chosen = chosen_of(definitions)
        watcher = Watcher(tell, settings.project_dir, branch)
        tags = {BRANCH_TAG: branch, **_refresh(full_refresh)}
        if full_refresh and (tables := _refreshed(lakehouse.ref, settings, definitions, chosen, partition)):
            empty_tables(lakehouse, tables, tell=tell)
        with _stopped(watcher), open_instance(settings) as instance:
            Launch(definitions, instance, lakehouse, watcher).execute(chosen, partition, str(uuid.uuid4()), tags)
        return watcher.report()


def _require_writable(lakehouse: Lakehouse) -> None:
    """Refuse to run on what is no branch, before the project is loaded.

    Raises:
        UsageError: It is `main` or a tag.
        CatalogError: It is no name of a branch.
    """
    name, why, fix = check_reference_name(lakehouse.branch), "", ""
    if name == MAIN:
        why, fix = "runs never write it directly", "`cascade run` without --branch works on a branch and promotes it."
    elif any(one.name == name and one.kind == "tag" for one in lakehouse.catalog.branches()):
        why, fix = "it is a tag, which stays as it is", f"make a branch of it: cascade branch create NAME --from {name}"
    if why:
        raise UsageError(f"Nothing was run on {name}: {why}.", fix=fix)


def emptied(definitions: dg.Definitions) -> set[dg.AssetKey]:
    """Return the assets whose tables can be made without rows: models."""
    assets = [a for a in definitions.assets or () if isinstance(a, dg.AssetsDefinition) and a.is_executable]
    return {key for asset in assets if EMPTY_TAG in asset.op.tags for key in asset.keys}


@contextlib.contextmanager
def rehearsed(settings: Settings, definitions: dg.Definitions, assets: set[dg.AssetKey]) -> Iterator[str]:
    """Make tables without rows on a branch that lives in the block; Dagster's history knows nothing of it.

    Args:
        settings: The project's settings.
        definitions: The project's definitions.
        assets: Assets that can do so: their op has `EMPTY_TAG`.

    Yields:
        What to read: the branch.

    Raises:
        TransformError: The tables cannot be made.
    """
    run_id = str(uuid.uuid4())
    lakehouse = Lakehouse(settings, run_branch(run_id))
    watcher = Watcher(ignore, settings.project_dir, lakehouse.branch)
    tags = {BRANCH_TAG: lakehouse.branch, EMPTY_TAG: "true"}
    try:
        with dg.DagsterInstance.ephemeral() as instance:
            Launch(definitions, instance, lakehouse, watcher).execute(assets, None, run_id, tags)
        if watcher.failures:
            what = "These tables cannot be made as their models are now"
            raise TransformError(f"{what}: {'; '.join(watcher.failures)}", fix="correct the models.")
        yield lakehouse.ref
    finally:
        if lakehouse.catalog.exists(lakehouse.branch):
            delete_branch(lakehouse.catalog, lakehouse.branch)


def load_definitions(settings: Settings, tell: Listener, *, promote: bool) -> dg.Definitions:
    """Return the project's definitions, and tell what is left out of them.

    Raises:
        BrokenProjectError: Something cannot be used, so that nothing could be promoted.
    """
    tell(Loading("workflows and models"))
    stamp = files_stamp(settings)
    definitions = build_definitions(settings)
    note_owners(settings, stamp, definitions)
    problems = problems_of(definitions)
    if promote and problems.broken:
        raise BrokenProjectError(
            "Nothing was run, since nothing could be promoted: these cannot be used, and their checks are unknown.\n"
            + "\n".join(f"    {problem}" for problem in problems.broken),
            fix="correct them; or use `cascade run --no-promote`, which leaves the result on the run's branch.",
        )
    for problem in problems.all:
        tell(NotLoaded(problem))
    return definitions


def _refreshed(
    ref: str, settings: Settings, definitions: dg.Definitions, chosen: set[dg.AssetKey], partition: str | None
) -> list[str]:
    """Return the tables of a reference that chosen assets load: a full refresh empties them first.

    Raises:
        UsageError: Partitions are named: the others would be missing.
    """
    tables = loaded_tables(definitions, chosen, open_catalog(settings).pointers(ref))
    if tables and partition:
        raise UsageError(
            f"A full refresh loads all partitions of {', '.join(tables)}, not {partition} alone.",
            fix=f"leave out --partition; or --full-refresh, which {partition} can be loaded again without.",
        )
    return tables


def _refresh(asked: bool) -> dict[str, str]:
    return {FULL_REFRESH_TAG: "true"} if asked else {}


def close_killed_runs(instance: dg.DagsterInstance) -> None:
    """Mark runs of killed commands as failed: the caller holds the lease of `main`, so none of them is alive.

    Args:
        instance: The project's Dagster storage.
    """
    alive = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED]
    for run in instance.get_runs(dg.RunsFilter(statuses=alive, tags={COMMAND_TAG: "run"})):
        # Killed while it promoted, it holds the only slot of the pool: every later promotion would wait for ever.
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        instance.report_run_failed(run, "The process that executed this run was killed.")


@contextlib.contextmanager
def _stopped(watcher: Watcher) -> Iterator[None]:
    """Make whatever stops a run that has begun a failure of it: its summary is printed all the same."""
    try:
        yield
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        if not watcher.run_ids:
            raise KeyboardInterrupt from None
        watcher.success, watcher.interrupted = False, True
        watcher.failures.clear()
    except Exception:  # Dagster's storage is gone, for one
        if not watcher.run_ids:
            raise
        watcher.success = False
        said = error_text(serializable_error_info_from_exc_info(sys.exc_info()), watcher.root)
        if not any(said in told for told in watcher.failures):
            watcher.failures.append(said)


def _keep_if_written(lakehouse: Lakehouse) -> bool:
    """Drop the run's branch when nothing was written on it; say whether there is one to look at."""
    written = is_written(lakehouse)
    if not written and lakehouse.ref == lakehouse.branch:
        delete_branch(lakehouse.catalog, lakehouse.branch)
    return written
