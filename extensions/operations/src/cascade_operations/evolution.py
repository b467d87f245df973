"""How the columns of a table become those of its contract: what is planned, and the commit that does it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.types import DecimalType, NestedField

from cascade.duck.session import connect
from cascade.errors import SchemaMismatchError, UsageError, count
from cascade.iceberg.evolve import evolve
from cascade.iceberg.read import view_sql
from cascade.iceberg.rows import Where
from cascade.iceberg.schema import arrow_schema
from cascade.iceberg.write import write
from cascade.ingestion.cast import cast_column
from cascade.ingestion.incoming import OURS
from cascade.ingestion.text import json_text, listed, shown
from cascade.names import BRANCH_PROPERTY, KEY_PROPERTY, PARTITIONS_PROPERTY, RUN_PROPERTY
from cascade_operations.records import SchemaStep

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from cascade.ingestion.plan import LoadPlan
    from cascade.lakehouse import Lakehouse

__all__ = ["Decisions", "change", "model_steps", "steps_of"]

_SHOWN = 5
_ROWS = 100_000
# Types of a contract, and those of a table that hold all of their values.
_HOLDS = {("int", "long"), ("float", "double")}


@dataclass(frozen=True)
class Decisions:
    """What a person has said.

    Attributes:
        rename: Column of the table to its name in the contract.
        drop: Columns that the table loses.
        narrow: Columns whose values are rewritten in the type of the contract.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    drop: Sequence[str] = ()
    narrow: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.rename or self.drop or self.narrow)


def steps_of(plan: LoadPlan, table: Table, decisions: Decisions) -> list[SchemaStep]:
    """Return what happens to each column that differs, given what was decided.

    Args:
        plan: What the asset of the table does.
        table: The table.
        decisions: What a person has said.

    Raises:
        UsageError: A decision is about no column, or about one that cannot be changed so; all of them are named.
    """
    declared = {f.name: f for f in plan.schema.fields} if plan.schema else {}
    have = {f.name: f for f in table.schema().fields if f.name not in OURS}
    _require_possible(plan, table, declared, have, decisions)
    new = [name for name in declared if name not in have and name not in decisions.rename.values()]
    steps = []
    for name, column in have.items():
        after, before = decisions.rename.get(name, name), str(column.field_type)
        if name in decisions.rename:
            steps.append(SchemaStep("rename", name, before, before, f"becomes {after}"))
        if name in decisions.drop:
            steps.append(SchemaStep("drop", name, before, None, "its values are in older snapshots only"))
        elif after not in declared:
            steps.append(_undeclared(plan, name, before, new))
        elif str(declared[after].field_type) != before or (column.required and not declared[after].required):
            steps += _retyped(table, column, declared[after], narrow=name in decisions.narrow)
    steps += [
        SchemaStep("add", name, None, str(declared[name].field_type), "null in the rows that are there") for name in new
    ]
    return steps


def model_steps(before: Table, after: Table) -> list[SchemaStep]:
    """Return what the next run of a model does to each column that differs.

    Args:
        before: The table that the branch has.
        after: The table that the model makes now.
    """
    have, now = ({f.name: str(f.field_type) for f in table.schema().fields} for table in (before, after))
    steps = [
        SchemaStep("drop", name, have[name], None, "the model has it no longer") for name in have if name not in now
    ]
    steps += [
        SchemaStep("retype", name, have[name], now[name], "the model has another type for it")
        for name in have
        if now.get(name, have[name]) != have[name]
    ]
    return steps + [SchemaStep("add", name, None, now[name], "new in the model") for name in now if name not in have]


def _undeclared(plan: LoadPlan, name: str, before: str, new: Sequence[str]) -> SchemaStep:
    if plan.schema is None or (plan.policy == "additive" and not new):
        return SchemaStep("keep", name, before, None, "the contract does not have it, and takes further columns")
    words = [f"--rename {name}={one}" for one in new]
    if plan.policy == "additive":
        return SchemaStep("keep", name, before, None, f"unless it has another name now: {' or '.join(words)}")
    return SchemaStep(
        "decide", name, before, None, f"the contract does not have it: {' or '.join([*words, f'--drop {name}'])}"
    )


def _retyped(table: Table, column: NestedField, wanted: NestedField, *, narrow: bool) -> Iterator[SchemaStep]:
    """Yield what becomes of a column whose type differs: as a load would have it, unless it is narrowed."""
    name, before, after = column.name, str(column.field_type), str(wanted.field_type)
    if narrow:
        yield SchemaStep("narrow", name, before, after, "all rows are written again, if each value fits")
        return
    now = Schema(NestedField(column.field_id, name, column.field_type, required=column.required))
    transaction = table.transaction()
    try:
        changed = evolve(transaction, "", now, assign_fresh_schema_ids(Schema(_named(wanted, name))))
    except SchemaMismatchError:
        yield SchemaStep("decide", name, before, after, f"its type cannot hold what it has: --narrow {name}")
        return
    now_has = transaction.table_metadata.schema().find_field(name) if changed else column
    if now_has != column:
        yield SchemaStep("widen", name, before, after, "")
    elif (after, before) in _HOLDS or _more_digits(column, wanted):
        yield SchemaStep("keep", name, before, after, f"it holds all of the contract's values, or --narrow {name}")
    elif changed:  # what a load would not do either
        yield SchemaStep("decide", name, before, after, f"its type stays as it is: --narrow {name}")


def _more_digits(column: NestedField, wanted: NestedField) -> bool:
    kinds = column.field_type, wanted.field_type
    if not all(isinstance(kind, DecimalType) for kind in kinds):
        return False
    have, want = (kind for kind in kinds if isinstance(kind, DecimalType))
    return have.scale == want.scale and have.precision >= want.precision


def _named(wanted: NestedField, name: str) -> NestedField:
    return NestedField(wanted.field_id, name, wanted.field_type, required=wanted.required, doc=wanted.doc)


def _require_possible(
    plan: LoadPlan,
    table: Table,
    declared: Mapping[str, NestedField],
    have: Mapping[str, NestedField],
    decisions: Decisions,
) -> None:
    problems = []
    sources = {table.schema().find_column_name(f.source_id) for f in table.spec().fields}
    for old, new in decisions.rename.items():
        if new not in declared or new in have:
            why = "the table has that" if new in have else "the contract has no such column"
            problems.append(f"{old} cannot become {new}: {why}")
    for name in [*decisions.rename, *decisions.drop, *decisions.narrow]:
        if name not in have:
            problems.append(f"the table has no column {name}")
    for name in decisions.drop:
        if name in declared:
            problems.append(f"{name} cannot be dropped: the contract has it")
        if name in plan.unique_key or name in plan.partition_columns:
            problems.append(f"{name} cannot be dropped: unique_key or partition_column name it")
    for name in decisions.narrow:
        if decisions.rename.get(name, name) not in declared:
            problems.append(f"{name} cannot be narrowed: the contract does not say to what")
    problems += [
        f"{name} cannot be dropped or narrowed: the files are partitioned by it"
        for name in [*decisions.drop, *decisions.narrow]
        if name in sources
    ]
    if problems:
        raise UsageError(
            f"What was decided cannot be done: {'; '.join(dict.fromkeys(problems))}.",
            where=f"table {plan.table}, columns {', '.join(have)}; the contract has {', '.join(declared) or 'none'}",
            fix="see `cascade schema plan`.",
        )


def change(plan: LoadPlan, lakehouse: Lakehouse, decisions: Decisions, *, run_id: str) -> None:
    """Give a table on a branch the columns of its contract.

    Columns are renamed and dropped by their ids, without touching a row: older snapshots stay as they were. Columns
    that are narrowed are written again with all rows, as columns of new ids.

    Args:
        plan: What the asset of the table does.
        lakehouse: The branch.
        decisions: What a person has said; nothing else may be undecided.
        run_id: The run; recorded in the snapshot.

    Raises:
        SchemaMismatchError: Values do not fit the type of the contract; some of them are shown.
    """
    catalog, branch = lakehouse.catalog, lakehouse.ensure_branch()
    reference: Any = catalog.open(branch)
    with catalog.table_lock(plan.table):
        table = reference.load_table(plan.table)
        steps = steps_of(plan, table, decisions)
        transaction = table.transaction()
        if decisions.rename or decisions.drop:
            with transaction.update_schema(allow_incompatible_changes=True) as update:
                for name in decisions.drop:
                    update.delete_column(name)
                for old, new in decisions.rename.items():
                    update.rename_column(old, new)
            if renamed := _renamed(table.properties, decisions.rename):
                transaction.set_properties(renamed)
        narrowed = {decisions.rename.get(name, name) for name in decisions.narrow}
        wanted = [f for f in (plan.schema.fields if plan.schema else ()) if f.name not in narrowed]
        if wanted and any(step.action in ("add", "widen") for step in steps):
            now = transaction.table_metadata.schema()
            evolve(transaction, plan.table, now, assign_fresh_schema_ids(Schema(*wanted)))
        if transaction._updates:
            # Not by the transaction itself: PyIceberg would repeat a refused one without planning it again.
            reference.commit_tables([(transaction._table, transaction._requirements, transaction._updates)])
    if narrowed:
        _narrow(plan, lakehouse, reference.load_table(plan.table), narrowed, run_id)


def _renamed(properties: Mapping[str, str], rename: Mapping[str, str]) -> dict[str, str]:
    """Return the properties that name a renamed column, with its new name."""
    found = {}
    if key := properties.get(KEY_PROPERTY):
        found[KEY_PROPERTY] = json_text([rename.get(name, name) for name in json.loads(key)])
    kind, by, told = properties.get(PARTITIONS_PROPERTY, "").rpartition(" by ")
    if kind:
        found[PARTITIONS_PROPERTY] = f"{kind}{by}{','.join(rename.get(name, name) for name in told.split(','))}"
    return {name: value for name, value in found.items() if value != properties[name]}


def _narrow(plan: LoadPlan, lakehouse: Lakehouse, table: Table, columns: set[str], run_id: str) -> None:
    """Write all rows again, with some columns in the types of the contract."""
    assert plan.schema is not None
    declared = {f.name: f for f in plan.schema.fields}
    fields = [declared[f.name] if f.name in columns else f for f in table.schema().fields]
    schema = assign_fresh_schema_ids(Schema(*fields))
    types = {f.name: f.type for f in arrow_schema(schema)}
    failing: list[str] = []
    rows = 0

    def cast() -> Iterator[pa.Table]:
        nonlocal rows
        with connect(io=table.io) as connection:
            for batch in connection.sql(view_sql(table)).to_arrow_reader(_ROWS):
                part = pa.Table.from_batches([batch])
                wrong: dict[int, list[str]] = {}
                for name in sorted(columns):
                    values, problems = cast_column(part[name], types[name])
                    for position, why in problems.items():
                        wrong.setdefault(position, []).append(f"column `{name}`: {why}")
                    part = part.set_column(part.column_names.index(name), name, values)
                rows += len(wrong)
                for position in sorted(wrong)[: _SHOWN - len(failing)]:
                    key = {name: part[name][position].as_py() for name in plan.unique_key if name in part.column_names}
                    failing.append("; ".join(wrong[position]) + (f" in {shown(key)}" if key else ""))
                yield part
        if failing:
            raise SchemaMismatchError(
                f"{count(rows, 'row')} of {plan.table} do not fit {listed(sorted(columns))}; nothing was changed.\n"
                + "\n".join(f"    {line}" for line in failing),
                where=f"table {plan.table}",
                fix="correct them first: load their partitions again from a source that is right; or declare "
                "a type that holds them.",
            )

    told: dict[str, Any] = {RUN_PROPERTY: run_id, BRANCH_PROPERTY: lakehouse.branch}
    head = table.current_snapshot()

    def everything(now: Table) -> Where:
        if now.current_snapshot() != head:
            raise SchemaMismatchError("Another run wrote the table; nothing was changed.", fix="run again.")
        return Where(AlwaysTrue(), "true")

    options: dict[str, Any] = {"exact": True, "replace": everything, "snapshot_properties": told}
    catalog = lakehouse.catalog
    write(catalog, lakehouse.branch, plan.table, cast(), schema=schema, mode="replace", **options)
