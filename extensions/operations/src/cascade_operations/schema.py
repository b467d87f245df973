"""Columns of tables and their contracts: what has to change, and the run that changes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cascade.catalog import MAIN, open_catalog
from cascade.config import Settings
from cascade.errors import UsageError
from cascade.lakehouse import Lakehouse
from cascade_operations.events import Listener, ignore
from cascade_operations.records import SchemaPlan
from cascade_operations.tables import dotted

if TYPE_CHECKING:
    import dagster as dg

    from cascade.catalog import BranchingCatalog
    from cascade.ingestion.load import LoadResult
    from cascade.ingestion.plan import LoadPlan
    from cascade_operations.evolution import Decisions

__all__ = ["apply_schema", "plan_schema"]

# What makes the column another one, for all that reads it.
_LOSES = {"rename", "drop", "narrow", "retype", "decide"}


def plan_schema(
    settings: Settings,
    tables: Sequence[str] = (),
    *,
    branch: str = MAIN,
    rename: Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
    narrow: Sequence[str] = (),
    tell: Listener = ignore,
) -> tuple[SchemaPlan, ...]:
    """Compare the columns of tables with the contracts of the assets that load them, or with the models that make them.

    Models that have changed are made without rows, on a branch that is dropped afterwards.

    Args:
        settings: The project's settings.
        tables: The tables, `namespace.table`; all that are loaded or made by models, and there, by default.
        branch: The branch or tag.
        rename: Column of the table to its name in the contract. This and the next two are for one table.
        drop: Columns that the table is to lose.
        narrow: Columns that are to be rewritten in the type of the contract.
        tell: Told of progress.

    Raises:
        UsageError: No asset loads a table, the branch does not have it, or what was decided cannot be done.
        TransformError: Models cannot be made as they are now.
        BranchNotFoundError: The branch does not exist.
    """
    from cascade.ingestion import load_plan
    from cascade_operations.evolution import Decisions
    from cascade_operations.instead import ingestion_of, ingestions_of
    from cascade_operations.run import emptied, load_definitions

    decisions, catalog = Decisions(rename or {}, tuple(drop), tuple(narrow)), open_catalog(settings)
    if decisions and len(tables) != 1:
        raise UsageError("What is decided is decided for one table.", fix="name one table.")
    pointers = catalog.pointers(branch)
    definitions = load_definitions(settings, tell, promote=False)
    names = [dotted(table) for table in tables]
    models = {".".join(key.path): key for key in emptied(definitions)}
    fix = "name a table that an asset of @cascade_ingestion loads, or a model makes."
    plans = {name: ingestion_of(definitions, name, fix)[1] for name in names if name not in models}
    if not names:
        plans = {n: load_plan(asset) for n, asset in sorted(ingestions_of(definitions).items()) if n in pointers}
    made = {n: key for n, key in models.items() if n in pointers and (n in names or not names)}
    if decisions and made:
        raise UsageError("A model decides about its columns itself.", where=", ".join(made), fix="change the model.")
    found = [_compare(catalog, branch, plan, decisions) for plan in plans.values()]
    every = (*found, *_compare_models(settings, definitions, catalog, branch, made))
    return _with_reached(settings, catalog, every) if branch == MAIN else every


def _with_reached(settings: Settings, catalog: BranchingCatalog, plans: Sequence[SchemaPlan]) -> tuple[SchemaPlan, ...]:
    """Add to what takes something from a column the columns that come from it."""
    from cascade_operations.columns import find_reached

    lost = [(plan.table, step.column) for plan in plans for step in plan.steps if step.action in _LOSES]
    reached = find_reached(settings, catalog, lost)
    return tuple(
        replace(
            plan, steps=tuple(replace(step, reaches=reached.get((plan.table, step.column), ())) for step in plan.steps)
        )
        for plan in plans
    )


def _compare_models(
    settings: Settings,
    definitions: dg.Definitions,
    catalog: BranchingCatalog,
    branch: str,
    made: Mapping[str, dg.AssetKey],
) -> list[SchemaPlan]:
    """Compare tables of models with what the models make now, of those that are not known to be the same."""
    from cascade_operations.evolution import model_steps
    from cascade_operations.leave_out import find_unchanged
    from cascade_operations.run import emptied, rehearsed

    if not made:
        return []
    every = emptied(definitions)
    plans = {name: SchemaPlan(name, (), 0) for name in made}
    if changed := every - find_unchanged(Lakehouse(settings, MAIN), every, set()).since.keys():
        with rehearsed(settings, definitions, changed) as ref:
            before, after = catalog.pointers(branch), catalog.pointers(ref)
            for name in made:
                steps = model_steps(*(catalog.load(name, pointers[name]) for pointers in (before, after)))
                plans[name] = SchemaPlan(name, tuple(steps), 0)
    return list(plans.values())


def apply_schema(
    settings: Settings,
    table: str,
    *,
    rename: Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
    narrow: Sequence[str] = (),
    promote: bool = True,
    tell: Listener = ignore,
) -> SchemaPlan:
    """Give a table the columns of its contract, by a run on a branch that is promoted.

    What depends on the table is computed in the run, so that a model which still has an old name keeps the change from
    `main`.

    Args:
        settings: The project's settings.
        table: The table, `namespace.table`.
        rename: Column of the table to its name in the contract.
        drop: Columns that the table loses.
        narrow: Columns that are rewritten in the type of the contract.
        promote: Whether the branch is promoted and the marts are published.
        tell: Told of progress.

    Raises:
        UsageError: Something is still to be decided, or what was decided cannot be done.
        DefinitionError: A file or a definition cannot be used, so that nothing could be promoted.
        LeaseHeldError: Another pipeline run is working towards `main`.
    """
    from cascade.ingestion.load import LoadResult
    from cascade_operations.evolution import Decisions, change
    from cascade_operations.instead import ingestion_of, run_instead
    from cascade_operations.run import load_definitions

    decisions, catalog = Decisions(rename or {}, tuple(drop), tuple(narrow)), open_catalog(settings)
    definitions = load_definitions(settings, tell, promote=promote)
    name = dotted(table)
    asset, plan = ingestion_of(definitions, name, "name a table that an asset of @cascade_ingestion loads.")
    planned = _compare(catalog, MAIN, plan, decisions)
    if planned.undecided:
        undecided = "\n".join(f"    {step.column}: {step.note}" for step in planned.steps if step.action == "decide")
        raise UsageError(
            f"Nothing was changed, since this is to be decided:\n{undecided}",
            where=f"table {name}",
            fix="say it with these options.",
        )
    if all(step.action == "keep" for step in planned.steps):
        return planned

    def changed(lakehouse: Lakehouse, run_id: str) -> LoadResult:
        change(plan, lakehouse, decisions, run_id=run_id)
        rows = lakehouse.row_count(name) or 0
        return LoadResult(partitions=[], total=rows, snapshot_id=lakehouse.head(name))

    report, _ = run_instead(settings, definitions, asset, changed, promote=promote, tell=tell)
    return replace(planned, report=report)


def _compare(catalog: BranchingCatalog, branch: str, plan: LoadPlan, decisions: Decisions) -> SchemaPlan:
    from cascade_operations.evolution import steps_of

    location = catalog.pointers(branch).get(plan.table)
    if location is None:
        raise UsageError(
            f"{branch} has no table {plan.table}: its first load gives it the columns of the contract.",
            fix=f"cascade run --select {plan.table}",
        )
    steps = tuple(steps_of(plan, catalog.load(plan.table, location), decisions))
    return SchemaPlan(plan.table, steps, sum(step.action == "decide" for step in steps))
