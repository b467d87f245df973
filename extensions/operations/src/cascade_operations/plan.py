"""Say what a run would do, and why, before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import dagster as dg
from pyiceberg.types import TimestamptzType

from cascade.errors import CascadeError
from cascade.framework.base import Unchanged
from cascade.framework.definitions import problems_of
from cascade.ingestion import load_plan
from cascade.lakehouse import Lakehouse
from cascade.names import EMPTY_TAG, INGESTED_AT_COLUMN, MAIN, MARTS, SQL_METADATA, TABLE_METADATA, TOTAL_SECONDS
from cascade_operations.columns import Foreseen, find_reached, foresee
from cascade_operations.evolution import Decisions, steps_of
from cascade_operations.leave_out import find_unchanged
from cascade_operations.owners import orphans, owners_of
from cascade_operations.planned import ColumnChange, Plan, PlannedAsset, PlannedCheck
from cascade_operations.records import SchemaStep
from cascade_operations.work import ENDS, Work

__all__ = ["describe"]

# What a load does to columns, of what `cascade schema plan` tells.
_OF_LOADS: dict[str, Literal["add", "retype", "refuse"]] = {"add": "add", "widen": "retype", "decide": "refuse"}


def describe(
    definitions: dg.Definitions,
    work: Work,
    named: Iterable[dg.AssetKey],
    *,
    full_refresh: bool = False,
    instance: dg.DagsterInstance,
    lakehouse: Lakehouse,
) -> Plan:
    """Return what a run would do, in words.

    Args:
        definitions: The project's definitions.
        work: What it would do.
        named: Assets that are computed because they are named.
        full_refresh: Whether the tables of incremental models are created again.
        instance: Where Dagster keeps how long each took.
        lakehouse: What the run begins with.
    """
    graph = definitions.resolve_asset_graph()
    keys = [key for key in graph.toposorted_asset_keys if key in (work.loaded | work.rest) - ENDS]
    seconds = _durations(instance, keys)
    again: tuple[str, ...] = ("a full refresh makes it from the start",)
    why = dict.fromkeys(keys, again) if full_refresh else _reasons(graph, work, {*named}, keys, lakehouse)
    lacking = {key: found for group in work.groups for key, found in group.lacking.items()}
    loads = _columns_of_loads(graph, keys, lakehouse)
    tables = {".".join(key.path) for key in keys}
    columns = foresee(lakehouse.settings, lakehouse.catalog, loads, tables - loads.keys(), full_refresh=full_refresh)
    broken = [(table, each.column) for table, one in columns.items() for each in one.changes if each.breaking]
    reached = find_reached(lakehouse.settings, lakehouse.catalog, broken)
    assets = []
    for key in keys:
        missing, partitions = lacking.get(key, (0, ()))
        table = ".".join(key.path)
        foreseen = columns.get(table, Foreseen())
        checks = sorted((check.name, graph.get_check_spec(check).blocking) for check in graph.get(key).check_keys)
        assets.append(
            PlannedAsset(
                asset=key.to_user_string(),
                why=why[key],
                missing=missing,
                partitions=partitions,
                columns=tuple(
                    replace(_with_readers(graph, key, change), reaches=reached.get((table, change.column), ()))
                    for change in foreseen.changes
                ),
                columns_known=foreseen.known,
                problem=foreseen.problem,
                checks=tuple(PlannedCheck(name, blocking) for name, blocking in checks),
                seconds=seconds.get(key),
            )
        )
    known = not problems_of(definitions).broken
    return Plan(
        assets=tuple(assets),
        breaking=sum(asset.breaking for asset in assets),
        up_to_date=tuple(sorted(key.to_user_string() for key in work.idle)),
        left_out={key.to_user_string(): since for key, since in sorted(work.unchanged.since.items())},
        promote=bool(work.rest & ENDS),
        seconds=round(sum(asset.seconds or 0 for asset in assets), 2),
        orphans=orphans(owners_of(definitions), lakehouse.catalog.pointers(MAIN)) if known else (),
    )


def _reasons(
    graph: Any, work: Work, named: set[dg.AssetKey], keys: Sequence[dg.AssetKey], lakehouse: Lakehouse
) -> Mapping[dg.AssetKey, tuple[str, ...]]:
    """Say why each asset is in the run."""
    missing = {
        key: ("main does not have these partitions" if group.missing_only else "these partitions are asked for",)
        for group in work.groups
        for key in group.assets
    }
    known = {**missing, **work.unchanged.changed}
    # What is asked for by name, or with all others, may have changed too.
    others = {key for key in keys if key not in known}
    models = {key for key in others if TABLE_METADATA not in graph.get(key).metadata}
    found = find_unchanged(lakehouse, models, {*missing}) if models else Unchanged()
    for key in others:
        if key in found.changed or key in found.since:
            asked = "it is named" if key in named else "all are asked for"
            known[key] = found.changed.get(key) or (asked,)
        else:
            known[key] = ("every run materializes it, for it has no partitions",)
    return known


def _columns_of_loads(graph: Any, keys: Sequence[dg.AssetKey], lakehouse: Lakehouse) -> dict[str, Foreseen]:
    """Return what loads do to the columns of their tables, and why a contract cannot be used."""
    pointers = lakehouse.catalog.pointers(lakehouse.ref)
    found: dict[str, Foreseen] = {}
    for key in keys:
        if (table := graph.get(key).metadata.get(TABLE_METADATA)) is None:
            continue
        try:
            plan = load_plan(graph.get(key).assets_def)
        except CascadeError as error:
            found[table] = Foreseen(problem=error.what)
            continue
        declared = {field.name: field.field_type for field in plan.schema.fields} if plan.schema else {}
        if table not in pointers:
            found[table] = Foreseen(columns={**declared, INGESTED_AT_COLUMN: TimestamptzType()})
            continue
        have = lakehouse.catalog.load(table, pointers[table])
        steps = [step for step in steps_of(plan, have, Decisions()) if step.action in _OF_LOADS]
        columns = {field.name: field.field_type for field in have.schema().fields}
        columns |= {step.column: declared[step.column] for step in steps if step.action in ("add", "widen")}
        found[table] = Foreseen(tuple(map(_change, steps)), columns)
    return found


def _change(step: SchemaStep) -> ColumnChange:
    action = _OF_LOADS[step.action]
    note = step.note if action == "refuse" else ""
    return ColumnChange(action, step.column, step.before, step.after, breaking=action == "refuse", note=note)


def _with_readers(graph: Any, key: dg.AssetKey, change: ColumnChange) -> ColumnChange:
    """Add to a breaking change the checks that name the column, and what reads the table and is no model."""
    if not change.breaking:
        return change
    readers = set(change.consumers)
    for child in graph.get(key).child_keys - ENDS:
        node = graph.get(child)
        if not (node.is_executable and EMPTY_TAG in node.assets_def.op.tags):
            readers.add(child.to_user_string())
    for check in graph.get(key).check_keys:
        spec, column = graph.get_check_spec(check), re.escape(change.column)
        sql, said = str(spec.metadata.get(SQL_METADATA, "")), spec.description or ""
        if re.search(rf"\b{column}\b", sql, re.IGNORECASE) or re.search(f"`{column}`", said):
            readers.add(f"check {check.name}")
    if key.path[0] == MARTS:
        readers.add(f"the published table {'.'.join(key.path)}")
    return replace(change, consumers=tuple(sorted(readers)))


def _durations(instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey]) -> dict[dg.AssetKey, float]:
    """Return how many seconds each asset took when it was last materialized."""
    found: dict[dg.AssetKey, float] = {}
    steps: dict[str, dict[str, float]] = {}
    for record in instance.get_asset_records(keys):
        entry = record.asset_entry.last_materialization
        if entry is None or entry.dagster_event is None:
            continue
        # All models are one step.
        told = entry.asset_materialization.metadata.get(TOTAL_SECONDS) if entry.asset_materialization else None
        if told is not None:
            found[record.asset_entry.asset_key] = round(float(str(told.value)), 2)
            continue
        if entry.run_id not in steps:
            stats = instance.get_run_step_stats(entry.run_id)
            steps[entry.run_id] = {s.step_key: s.end_time - s.start_time for s in stats if s.start_time and s.end_time}
        if (took := steps[entry.run_id].get(entry.dagster_event.step_key or "")) is not None:
            found[record.asset_entry.asset_key] = round(took, 2)
    return found
