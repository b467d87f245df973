"""What a table records of earlier loads: which partitions it holds, and how their rows are found again."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
from pyiceberg.table import Table

from cascade.catalog import BranchingCatalog
from cascade.duck.session import connect
from cascade.duck.sql import identifier
from cascade.errors import IngestionError
from cascade.iceberg.properties import long_values
from cascade.iceberg.read import row_count, view_sql
from cascade.iceberg.rows import Where, one_of
from cascade.ingestion.limits import OvertakenError
from cascade.ingestion.partitions import dimensions_of, parts_of
from cascade.ingestion.slices import rows_of, spans
from cascade.ingestion.text import json_text
from cascade.names import KEY_PROPERTY, LOADED_PROPERTY, PARTITION_COLUMN, PARTITIONS_PROPERTY, SOURCE_STATE_PROPERTY

if TYPE_CHECKING:
    from cascade.ingestion.forms import FetchContext
    from cascade.ingestion.plan import LoadPlan

__all__ = [
    "held_partitions",
    "kept_state",
    "kind_of",
    "loaded_partitions",
    "record",
    "require_known_rows",
    "require_state_fits",
    "rows_of_partitions",
    "table_of",
]

_BY = " by "
_UNITS = {"0 * * * *": "hourly", "0 0 * * *": "daily", "0 0 * * 0": "weekly", "0 0 1 * *": "monthly"}
_FORMATS = ("%Y-%m-%d", "%Y-%m-%d-%H:%M")


def loaded_partitions(
    catalog: BranchingCatalog, ref: str, table: str, definition: dg.PartitionsDefinition[Any]
) -> set[str]:
    """Return which partitions a table holds on a reference, empty ones included, as its commits recorded them."""
    found, kind = table_of(catalog, ref, table), kind_of(definition)
    if found is None or not found.properties.get(PARTITIONS_PROPERTY, kind + _BY).startswith(kind + _BY):
        return set()
    return _unpack(definition, long_values(found.metadata, found.io).get(LOADED_PROPERTY, "[]"))


def table_of(catalog: BranchingCatalog, ref: str, name: str) -> Table | None:
    """Return a table of a reference; `None` when it has none of the name."""
    location = catalog.pointers(ref).get(name)
    return None if location is None else catalog.load(name, location)


def held_partitions(plan: LoadPlan, properties: Mapping[str, str]) -> set[str]:
    """Return the partitions that a table's properties name as loaded; none when they were of another kind."""
    return _unpack(plan.definition, _packed(plan, properties)) if plan.definition else set()


def record(plan: LoadPlan, current: Mapping[str, str], wanted: list[str]) -> dict[str, str]:
    """Return the table properties that record a load, given those that the table has, under the lock of the commit."""
    values: dict[str, str] = {}
    if plan.definition:
        values[LOADED_PROPERTY] = _pack(plan.definition, _packed(plan, current), wanted)
        values[PARTITIONS_PROPERTY] = _kind(plan)
    if plan.write == "merge":
        values[KEY_PROPERTY] = json_text(plan.unique_key)
    return values


def kept_state(context: FetchContext, before: str, current: Mapping[str, str]) -> dict[str, str]:
    """Return the table property that keeps the state of a source, given that before the load, under the commit's lock.

    Raises:
        OvertakenError: Another run moved it since then: its rows would be loaded twice.
    """
    if not context.state:
        return {}
    if current.get(SOURCE_STATE_PROPERTY, "") != before:
        raise OvertakenError(
            "Another run moved the cursor of this source while this one was loading; nothing was written.",
            fix="run again: it starts where the other run ended.",
        )
    return {SOURCE_STATE_PROPERTY: context.state}


def require_state_fits(context: FetchContext) -> None:
    """Refuse a source with a cursor where the table is filled by partitions, or replaced.

    A partition that is loaded again would be emptied, one behind the cursor would never be filled.

    Raises:
        IngestionError: The source keeps a state that does not fit the asset.
    """
    plan = context.plan
    if plan is None or plan.keeps_state or not context.state:
        return
    what = "has partitions" if plan.definition else 'uses write="replace_partition"'
    raise IngestionError(
        f"The source keeps a cursor, but the asset {what}: rows behind the cursor would be missing. Nothing was "
        "written.",
        where=f"table {plan.table}",
        fix='use partitions="none" with write="merge" or "append"; or select the rows of the partition yourself, '
        "without a cursor (with dlt: `initial_value` and `end_value` from partition_date).",
    )


def rows_of_partitions(plan: LoadPlan, table: Table | None, keys: Sequence[str]) -> Where | None:
    """Return the rows of a table that loads of some partitions wrote; `None` where its rows do not tell it."""
    names = [PARTITION_COLUMN] if plan.tagged else plan.partition_columns
    columns = {f.name: f for f in table.schema().fields} if table else {}
    if plan.definition is None or not names or not columns.keys() >= {*names}:
        return None
    if plan.tagged:
        return one_of(PARTITION_COLUMN, keys)
    return rows_of(plan.definition, keys, [columns[name] for name in names])


def require_known_rows(plan: LoadPlan, table: Table | None) -> None:
    """Refuse options under which rows of earlier loads would not be found and would be loaded again.

    Raises:
        IngestionError: The table has such rows.
    """
    snapshot = table.current_snapshot() if table else None
    if table is None or snapshot is None or not row_count(snapshot):
        return
    problem, kind, columns = "", _kind(plan), {f.name for f in table.schema().fields}
    was = table.properties.get(PARTITIONS_PROPERTY, kind)
    if plan.write == "merge":
        if new := set(plan.unique_key) - columns:
            problem = f"unique_key has columns that its rows lack: {', '.join(sorted(new))}"
        elif empty := _keys_without_value(plan, table):
            problem = f"rows without a value in {', '.join(empty)}, which is part of the new unique_key"
    elif plan.definition is None:
        if plan.write == "append" and LOADED_PROPERTY in table.properties:
            problem = "they were loaded by partitions, which it has no longer"
    elif plan.tagged and PARTITION_COLUMN not in columns:
        problem = "it was filled without partitions, or with a partition_column, and now has neither"
    elif plan.tagged and was != kind:
        problem = f"its partitions were {was}, and are now {kind}"
    elif lacks := set(plan.partition_columns) - columns:
        problem = f"its rows lack the partition_column {', '.join(sorted(lacks))}"
    if problem:
        raise IngestionError(
            f"The options of {plan.table} changed so that rows of earlier runs would be loaded twice: {problem}.",
            where=f"table {plan.table}, {row_count(snapshot)} rows",
            fix=f"put the options back, or load all of it again: `cascade run --full-refresh --select {plan.table}`.",
        )


def _keys_without_value(plan: LoadPlan, table: Table) -> list[str]:
    """Return the columns of a new key that are null in some row: a key without a value is equal to none."""
    if table.properties.get(KEY_PROPERTY) == json_text(plan.unique_key):
        return []
    with connect(io=table.io) as connection:
        rows = connection.sql(view_sql(table))
        return [name for name in plan.unique_key if rows.filter(f"{identifier(name)} IS NULL").limit(1).fetchall()]


def _packed(plan: LoadPlan, properties: Mapping[str, str]) -> str:
    """The record of loaded partitions; an empty one when it is of partitions of another kind."""
    same = properties.get(PARTITIONS_PROPERTY, _kind(plan)) == _kind(plan)
    return properties.get(LOADED_PROPERTY, "[]") if same else "[]"


def _pack(definition: dg.PartitionsDefinition[Any], packed: str, loaded: Iterable[str]) -> str:
    """Add partitions to a record: as ranges of neighbours in time, because a table property must stay short."""
    held, new = [(first, last) for first, last in json.loads(packed)], [(key, key) for key in loaded]
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return json.dumps(sorted({*held, *new}))  # other keys have no neighbours: further ones may be declared between
    order = partial(_order, definition)
    for span in spans(definition, new):
        # It can touch its neighbours only; the times of all ranges take long to tell.
        low = bisect_left(held, order(span.first), key=lambda one: order(one[0])) - 1
        near = slice(max(low, 0), bisect_right(held, order(span.last), key=lambda one: order(one[0])) + 1)
        held[near] = [(one.first, one.last) for one in spans(definition, [*held[near], (span.first, span.last)])]
    return json.dumps(held)


def _unpack(definition: dg.PartitionsDefinition[Any], packed: str) -> set[str]:
    """Read what `_pack` wrote; partitions that the definition no longer has are left out, but for dynamic ones.

    Their keys are in Dagster's storage, which may be a new one that knows none of them.
    """
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        fixed = [
            (i, set(each.get_partition_keys()))
            for i, each in enumerate(dimensions_of(definition))
            if not isinstance(each, dg.DynamicPartitionsDefinition)
        ]
        return {key for key, _ in json.loads(packed) if all(parts_of(definition, key)[i] in keys for i, keys in fixed)}
    keys, loaded, order = definition.get_partition_keys(), set[str](), partial(_order, definition)
    for first, last in json.loads(packed):  # a range holds also when its ends are no longer declared
        loaded.update(keys[bisect_left(keys, order(first), key=order) : bisect_right(keys, order(last), key=order)])
    return loaded


def _order(definition: dg.TimeWindowPartitionsDefinition, key: str) -> Any:
    """Return what sorts keys as their times: most do so as text, and windows of time take long to tell."""
    return key if definition.fmt in _FORMATS else definition.time_window_for_partition_key(key).start


def _kind(plan: LoadPlan) -> str:
    """The kind of partitions, and what tells their rows: under another kind a key means something else."""
    return f"{kind_of(plan.definition)}{_BY}{_told_by(plan)}" if plan.definition else ""


def kind_of(definition: dg.PartitionsDefinition[Any]) -> str:
    """Return of which kind partitions are, `daily UTC`: a key of one kind means one thing, also where it is dynamic."""
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return ", ".join(f"{each.name}: {kind_of(each.partitions_def)}" for each in definition.partitions_defs)
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return "static"
    unit = _UNITS.get(definition.cron_schedule, definition.cron_schedule)
    return f"{unit} {definition.timezone}" + ("" if definition.fmt in _FORMATS else f" {definition.fmt}")


def _told_by(plan: LoadPlan) -> str:
    return "key" if plan.write == "merge" else ",".join(plan.partition_columns) or PARTITION_COLUMN
