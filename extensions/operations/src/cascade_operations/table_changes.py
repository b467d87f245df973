"""Drop, rename and reset tables: on a branch of their own, which is promoted like any change."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from cascade.catalog import MAIN, BranchingCatalog, check_table_name, open_catalog
from cascade.config import Settings
from cascade.errors import UsageError
from cascade.names import (
    BRANCH_PROPERTY,
    COMMAND_TAG,
    LOADED_PROPERTY,
    QUARANTINE,
    RESET_PROPERTY,
    SOURCE_STATE_PROPERTY,
    is_run_branch,
)
from cascade_operations.events import Emptied, Listener, ignore
from cascade_operations.owners import Owner, find_owners, orphans, owner_of, owners_of
from cascade_operations.promotion import change_main
from cascade_operations.table_records import AffectedTable, TableAction
from cascade_operations.tables import dotted, known_table, rows_in

if TYPE_CHECKING:
    import dagster as dg

    from cascade.lakehouse import Lakehouse

__all__ = [
    "conflicting",
    "drop_tables",
    "empty_tables",
    "loaded_tables",
    "plan_action",
    "plan_refresh",
    "rename_table",
    "reset_table",
]

Action = Literal["drop", "rename", "reset", "refresh"]


def drop_tables(
    settings: Settings,
    tables: Sequence[str] = (),
    *,
    unowned: bool = False,
    promote: bool = True,
    dry_run: bool = False,
    tell: Listener = ignore,
) -> TableAction:
    """Drop tables of `main`, with the rows of them that were set aside; marts leave the serving database, too.

    Branches, tags and older states of `main` keep the tables.

    Args:
        settings: The project's settings.
        tables: The tables, `namespace.table`.
        unowned: Whether all orphans are dropped: tables that nothing of the project makes any more.
        promote: Whether the branch is promoted.
        dry_run: Whether nothing is written.
        tell: Told of progress.

    Raises:
        UsageError: `main` does not have one of them, or a run that has not ended writes one; or orphans are unknown,
            since a file of the project cannot be used.
        LeaseHeldError: Another process is working towards `main`.
        PromotionRefusedError: The checks of the project are unknown, since a file of it cannot be used.
    """
    catalog = open_catalog(settings)
    pointers, owners = catalog.pointers(MAIN), find_owners(settings, tell=tell)
    if unowned and "" in owners:
        raise UsageError(
            "Which tables are orphans is unknown: files of the project cannot be used, and may make some.",
            fix="correct the files; `cascade validate` names them.",
        )
    names = dict.fromkeys(known_table(pointers, table, MAIN) for table in tables)
    names.update(dict.fromkeys(orphans(owners, pointers) if unowned else ()))
    plan = plan_action(catalog, "drop", dict.fromkeys(names), owners)
    if dry_run or not names:
        return plan

    def drop(branch: str) -> None:
        reference = catalog.open(branch)
        for one in plan.tables:
            reference.drop_table(one.table)

    return _moved(settings, plan, drop, promote=promote, tell=tell)


def rename_table(
    settings: Settings, table: str, to: str, *, promote: bool = True, dry_run: bool = False, tell: Listener = ignore
) -> TableAction:
    """Give a table of `main` another name; its rows, its history, its loaded partitions and its cursor stay with it.

    When an asset of the project makes the new name, its checks run, and a model is computed.

    Args:
        settings: The project's settings.
        table: The table, `namespace.table`.
        to: Its new name, `namespace.table`.
        promote: Whether the branch is promoted.
        dry_run: Whether nothing is written.
        tell: Told of progress.

    Raises:
        UsageError: `main` does not have it, has the new name already, or the project still makes the old one; or a run
            that has not ended writes one of them.
        CatalogError: The new name is not the name of a table.
        LeaseHeldError: Another process is working towards `main`.
        PromotionRefusedError: The checks of the project are unknown, since a file of it cannot be used.
    """
    catalog = open_catalog(settings)
    pointers, owners = catalog.pointers(MAIN), find_owners(settings, tell=tell)
    name, new = known_table(pointers, table, MAIN), check_table_name(dotted(to))
    _require_free(pointers, owners, name, new)
    plan = plan_action(catalog, "rename", {name: new}, owners)
    if dry_run:
        return plan

    def rename(branch: str) -> None:
        reference = catalog.open(branch)
        for one in plan.tables:
            reference.rename_table(one.table, one.becomes or one.table)

    if new not in owners:
        return _moved(settings, plan, rename, promote=promote, tell=tell)
    return _checked(
        settings, plan, new, lambda lakehouse: rename(lakehouse.ensure_branch()), promote=promote, tell=tell
    )


def reset_table(
    settings: Settings, table: str, *, promote: bool = True, dry_run: bool = False, tell: Listener = ignore
) -> TableAction:
    """Empty a table of `main` that is loaded: rows, rows set aside, loaded partitions and cursor go together.

    The next load begins from the start, and gives the table the columns of its contract or of its rows. What depends on
    the table is computed by the next run.

    Args:
        settings: The project's settings.
        table: The table, `namespace.table`.
        promote: Whether the branch is promoted.
        dry_run: Whether nothing is written.
        tell: Told of progress.

    Raises:
        UsageError: `main` does not have it, no asset loads it, or a run that has not ended writes it.
        DefinitionError: A file or a definition cannot be used, so that nothing could be promoted.
        LeaseHeldError: Another process is working towards `main`.
    """
    catalog = open_catalog(settings)
    pointers, owners = catalog.pointers(MAIN), find_owners(settings, tell=tell)
    name = known_table(pointers, table, MAIN)
    _require_loaded(owner_of(owners, name), name)
    plan = plan_action(catalog, "reset", {name: None}, owners)
    if dry_run:
        return plan
    return _checked(settings, plan, name, lambda lakehouse: empty_tables(lakehouse, [name]), promote=promote, tell=tell)


def plan_refresh(settings: Settings, *, select: Sequence[str] = (), tell: Listener = ignore) -> TableAction:
    """Return which tables of `main` a full refresh would load from the start; `run_pipeline` does it.

    Args:
        settings: The project's settings.
        select: Assets, as for `run_pipeline`.
        tell: Told of progress.

    Raises:
        UsageError: An asset does not exist.
    """
    from cascade_operations.run import load_definitions
    from cascade_operations.selection import select_assets

    definitions = load_definitions(settings, tell, promote=False)
    chosen = select_assets(definitions, select) if select else None
    catalog = open_catalog(settings)
    names = loaded_tables(definitions, chosen, catalog.pointers(MAIN))
    return plan_action(catalog, "refresh", dict.fromkeys(names), owners_of(definitions))


def loaded_tables(definitions: dg.Definitions, chosen: Set[dg.AssetKey] | None, tables: Iterable[str]) -> list[str]:
    """Return which of some tables are loaded by chosen assets, `None` for all; those of models are not among them."""
    from cascade_operations.instead import ingestions_of

    loaded = ingestions_of(definitions)
    return sorted(name for name in tables if name in loaded and (chosen is None or loaded[name].key in chosen))


def plan_action(
    catalog: BranchingCatalog, action: Action, tables: Mapping[str, str | None], owners: Mapping[str, Owner]
) -> TableAction:
    """Return what an action would do to tables of `main`, and to those with their rows that were set aside.

    Args:
        catalog: The catalog.
        action: What is done.
        tables: The tables, and their new names.
        owners: What makes tables, as `find_owners` returns it.
    """
    from cascade.ingestion.quarantine import quarantine_table

    pointers = catalog.pointers(MAIN)
    aside = {quarantine_table(name): quarantine_table(new) if new else None for name, new in tables.items()}
    every = {**tables, **{name: new for name, new in aside.items() if name in pointers}}
    affected = [
        AffectedTable(name, owner.kind, rows_in(catalog.load(name, pointers[name])), new, owner.readers)
        for name, new in every.items()
        for owner in [owner_of(owners, name)]
    ]
    names = {*every, *filter(None, every.values())}
    return TableAction(action, tuple(affected), conflicting(catalog, names))


def conflicting(catalog: BranchingCatalog, tables: Set[str]) -> tuple[str, ...]:
    """Return the open branches that have changed one of some tables; those of runs are not meant to stay.

    Args:
        catalog: The catalog.
        tables: The tables, `namespace.table`.
    """
    branches = (one for one in catalog.branches() if one.kind == "branch" and one.changed)
    names = [one.name for one in branches if one.name != MAIN and not is_run_branch(one.name)]
    return tuple(name for name in names if any(change.table in tables for change in catalog.changes(name)))


def empty_tables(lakehouse: Lakehouse, tables: Sequence[str], *, tell: Listener = ignore) -> None:
    """Empty tables on a branch, and what was set aside of them: all of them at once, or none.

    Loaded partitions and cursors are forgotten in the same commit.

    Args:
        lakehouse: The branch.
        tables: The tables, which the branch has.
        tell: Told of it.
    """
    from cascade.iceberg.write import commit, stage
    from cascade.ingestion.quarantine import quarantine_table

    catalog, branch = lakehouse.catalog, lakehouse.ensure_branch()
    pointers = catalog.pointers(branch)
    aside = [quarantine_table(name) for name in tables]
    told = {RESET_PROPERTY: "true", BRANCH_PROPERTY: branch}
    with contextlib.ExitStack() as staged:
        stagings = []
        for name in (*tables, *(one for one in aside if one in pointers)):
            table = catalog.load(name, pointers[name])
            forgotten = {SOURCE_STATE_PROPERTY: ""}
            if LOADED_PROPERTY in table.properties:
                forgotten[LOADED_PROPERTY] = "[]"
            options: dict[str, Any] = {"mode": "replace", "properties": forgotten, "snapshot_properties": told}
            empty = stage(catalog, branch, name, [], schema=table.schema(), **options)
            stagings.append(staged.enter_context(empty))
        commit(stagings)
    tell(Emptied(tuple(tables), tuple(one for one in conflicting(catalog, set(tables)) if one != branch)))


def _moved(
    settings: Settings, plan: TableAction, work: Callable[[str], None], *, promote: bool, tell: Listener
) -> TableAction:
    """Do the work on a branch, and promote it; no check is on these tables."""
    _require_no_run(settings, plan)
    branch, done = change_main(settings, f"`cascade table {plan.action}`", work, promoted=promote, tell=tell)
    if done is None:
        return replace(plan, branch=branch, branch_kept=True)
    return replace(plan, branch=branch, move=done.move, published=done.published)


def _checked(
    settings: Settings,
    plan: TableAction,
    table: str,
    work: Callable[[Lakehouse], None],
    *,
    promote: bool,
    tell: Listener,
) -> TableAction:
    """Do the work in a run on a branch, in which the checks of the table run, too."""
    import dagster as dg

    from cascade.ingestion.load import LoadResult
    from cascade_operations.instead import ingestions_of, run_instead
    from cascade_operations.run import launch, load_definitions
    from cascade_operations.work import ENDS

    definitions = load_definitions(settings, tell, promote=promote)
    _require_no_run(settings, plan)

    def changed(lakehouse: Lakehouse, _run_id: str) -> LoadResult:
        work(lakehouse)
        rows = lakehouse.row_count(table) or 0
        return LoadResult(partitions=[], total=rows, snapshot_id=lakehouse.head(table))

    asset = ingestions_of(definitions).get(table)
    if asset is not None:
        report, _ = run_instead(settings, definitions, asset, changed, promote=promote, tell=tell, depending=False)
    else:
        key = dg.AssetKey(table.split("."))
        chosen = {key} | (ENDS if promote else set())
        report = launch(settings, definitions, chosen, {key}, tags={}, begin=work, tell=tell)
    return replace(
        plan, branch=report.branch, branch_kept=bool(report.branch_kept), move=report.promotion, report=report
    )


def _require_no_run(settings: Settings, plan: TableAction) -> None:
    """Refuse to change tables that a run of Dagster's UI or daemon is writing.

    Commands hold the lease of `main`; what Dagster says of those that were killed does not count. Neither do runs on
    branches that stay: `main` does not get what they write before the branch is promoted.

    Raises:
        UsageError: There is such a run.
    """
    import dagster as dg

    from cascade.framework.instance import open_instance
    from cascade.lakehouse import branch_of_run
    from cascade_operations.work import ENDS

    names = {*(one.table for one in plan.tables), *(one.becomes for one in plan.tables)}
    alive = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    with open_instance(settings) as instance:
        for run in instance.get_runs(dg.RunsFilter(statuses=alive)):
            selected = run.asset_selection or frozenset()
            writes = {".".join(key.path) for key in selected}
            stays = selected and selected.isdisjoint(ENDS) and not is_run_branch(branch_of_run(run, settings))
            if COMMAND_TAG not in run.tags and not stays and (not writes or writes & names):
                raise UsageError(
                    f"Nothing was done: run {run.run_id[:8]} has not ended, and writes "
                    f"{', '.join(sorted(writes & names)) or 'tables that its record does not name'}.",
                    where=f"job {run.job_name}, {run.status.value.lower()}",
                    fix="wait for it to end, or terminate it in the UI (`cascade dev`), then do it again.",
                )


def _require_loaded(owner: Owner, name: str) -> None:
    """Refuse to reset what no load would fill again.

    Raises:
        UsageError: No asset loads it.
    """
    if owner.kind == "workflow":
        return
    fixes = {
        "quarantine": f"drop the rows: cascade quarantine drop {name}",
        "orphan": f"drop it: cascade table drop {name}",
        "unknown": "see `cascade validate` for the files that cannot be used.",
    }
    made = {"orphan": "nothing of the project makes it", "unknown": "files of the project cannot be used"}
    raise UsageError(
        f"{name} is not reset: {made.get(owner.kind, f'its rows come from a {owner.kind}, not from a load')}.",
        where=f"table {name}",
        fix=fixes.get(owner.kind, f"compute it from the start: cascade run --full-refresh --select {name}"),
    )


def _require_free(pointers: Mapping[str, str], owners: Mapping[str, Owner], name: str, new: str) -> None:
    """Refuse a new name that is taken, and one that would leave the old name to be made again.

    Raises:
        UsageError: It is such a name.
    """
    problem = fix = ""
    taken = [one for one in pointers if one.lower() == new.lower() and one != name]
    if new == name:
        problem, fix = "it is called so already", "give another name."
    elif taken:
        problem, fix = f"main has a table {taken[0]}", "choose another name, or drop that table first."
    elif f"{QUARANTINE}." in (f"{name.partition('.')[0]}.", f"{new.partition('.')[0]}."):
        problem, fix = "rows that were set aside go with their table", "rename the table they were meant for."
    elif name in owners:
        problem = f"a {owners[name].kind} of the project still makes {name}: the next run would make it again"
        fix = "give the workflow or the model its new name first."
    elif "" in owners:
        problem, fix = "files of the project cannot be used, and may make it", "correct them; see `cascade validate`."
    if problem:
        raise UsageError(f"{name} is not renamed to {new}: {problem}.", where=f"table {name}", fix=fix)
