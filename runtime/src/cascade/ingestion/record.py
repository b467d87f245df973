"""What a table records of earlier loads: which partitions it holds, and how their rows are found again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from pyiceberg.table import Table

from cascade.catalog import BranchingCatalog
from cascade.errors import IngestionError
from cascade.iceberg.read import connect, quote, row_count, view_sql
from cascade.ingestion.partitions import kind_of, pack_keys, unpack_keys
from cascade.ingestion.text import json_text
from cascade.names import KEY_PROPERTY, LOADED_PROPERTY, PARTITION_COLUMN, PARTITIONS_PROPERTY

if TYPE_CHECKING:
    from cascade.ingestion.plan import LoadPlan

__all__ = ["held_partitions", "loaded_partitions", "record", "require_known_rows", "table_of"]

_BY = " by "


def loaded_partitions(
    catalog: BranchingCatalog, ref: str, table: str, definition: dg.PartitionsDefinition[Any]
) -> set[str]:
    """Return which partitions a table holds on a reference, empty ones included, as its commits recorded them."""
    found = table_of(catalog, ref, table)
    properties = found.properties if found else {}
    kind = kind_of(definition)
    if properties.get(PARTITIONS_PROPERTY, kind).split(_BY)[0] != kind:
        return set()
    packed = properties.get(LOADED_PROPERTY)
    return unpack_keys(definition, packed) if packed else set()


def table_of(catalog: BranchingCatalog, ref: str, name: str) -> Table | None:
    """Return a table of a reference; `None` when it has none of the name."""
    location = catalog.pointers(ref).get(name)
    return None if location is None else catalog.load(name, location)


def held_partitions(plan: LoadPlan, properties: Mapping[str, str]) -> set[str]:
    """Return the partitions that a table's properties name as loaded; none when they were of another kind."""
    packed = properties.get(LOADED_PROPERTY)
    if not plan.definition or not packed or properties.get(PARTITIONS_PROPERTY, _kind(plan)) != _kind(plan):
        return set()
    return unpack_keys(plan.definition, packed)


def require_known_rows(plan: LoadPlan, table: Table | None) -> None:
    """Refuse options under which rows of earlier loads would not be found, and come twice."""
    columns = {f.name for f in table.schema().fields} if table else set()
    snapshot = table.current_snapshot() if table else None
    if table is None or snapshot is None or not row_count(snapshot):
        return
    problem, kind = "", _kind(plan)
    was = table.properties.get(PARTITIONS_PROPERTY, kind)
    if plan.write == "merge" and (new := set(plan.unique_key) - columns):
        problem = f"unique_key has columns that its rows lack: {', '.join(sorted(new))}"
    elif plan.definition is not None and plan.tagged and PARTITION_COLUMN not in columns:
        problem = "it was filled without partitions, or with a partition_column, and now has neither"
    elif plan.definition is not None and plan.tagged and was != kind:
        problem = f"its partitions were {was}, and are now {kind}"
    elif plan.definition is None and plan.write == "append" and LOADED_PROPERTY in table.properties:
        problem = "they were loaded by partitions, which it has no longer"
    elif plan.write == "merge" and table.properties.get(KEY_PROPERTY) != _packed_key(plan):
        # A key without a value is equal to none.
        with connect(io=table.io) as connection:
            view = connection.sql(view_sql(table))
            empty = [name for name in plan.unique_key if view.filter(f"{quote(name)} IS NULL").limit(1).fetchall()]
        if empty:
            problem = f"rows without a value in {', '.join(empty)}, which is part of the new unique_key"
    elif (
        plan.definition is not None
        and plan.write != "merge"
        and (plan.options.partition_column or PARTITION_COLUMN) not in columns
    ):
        problem = f"its rows lack the partition_column {plan.options.partition_column}"
    if problem:
        raise IngestionError(
            f"The options of {plan.table} changed so that rows of earlier runs would come twice: {problem}.",
            where=f"table {plan.table}, {snapshot.summary['total-records'] if snapshot.summary else '?'} rows",
            fix="put the options back, or load into a new table (table_name=…).",
        )


def record(plan: LoadPlan, current: Mapping[str, str], wanted: list[str]) -> dict[str, str]:
    """Return the table properties that record a load.

    Args:
        plan: Of the load.
        current: The properties that the table has, under the lock of the commit.
        wanted: The partitions of the load.
    """
    values: dict[str, str] = {}
    if plan.definition:
        values[LOADED_PROPERTY] = pack_keys(plan.definition, held_partitions(plan, current) | set(wanted))
        values[PARTITIONS_PROPERTY] = _kind(plan)
    if plan.write == "merge" and current.get(KEY_PROPERTY) != _packed_key(plan):
        values[KEY_PROPERTY] = _packed_key(plan)
    return values


def _kind(plan: LoadPlan) -> str:
    """The kind of partitions, and what tells their rows: under another kind a key means something else."""
    return f"{kind_of(plan.definition)}{_BY}{_told_by(plan)}" if plan.definition else ""


def _told_by(plan: LoadPlan) -> str:
    return "key" if plan.write == "merge" else plan.options.partition_column or PARTITION_COLUMN


def _packed_key(plan: LoadPlan) -> str:
    return json_text(list(plan.unique_key))
