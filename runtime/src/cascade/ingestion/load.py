"""One load: fetch rows, check them, and commit them to the table on the run's branch as one snapshot."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysFalse
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, assign_fresh_partition_spec_ids
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.table import Table
from pyiceberg.types import NestedField, StringType, TimestamptzType

from cascade.catalog import BranchingCatalog
from cascade.errors import ContractError, IngestionError, count
from cascade.iceberg.read import quote, text
from cascade.iceberg.rows import Where, one_of
from cascade.iceberg.schema import arrow_schema
from cascade.iceberg.write import Replace, Staging, commit, stage
from cascade.ingestion import quarantine
from cascade.ingestion.cursor import check_resource, pack_state, read_state, require_cursor_fits
from cascade.ingestion.plan import LoadPlan
from cascade.ingestion.quarantine import Aside
from cascade.ingestion.record import held_partitions, loaded_partitions, record, require_known_rows, table_of
from cascade.ingestion.rows import Batch, to_batches
from cascade.ingestion.slices import key_ranges, label_of, partition_of, rows_of
from cascade.ingestion.text import json_text
from cascade.names import BRANCH_PROPERTY, DLT_STATE_PROPERTY, INGESTED_AT_COLUMN, PARTITION_COLUMN, RUN_PROPERTY

if TYPE_CHECKING:
    from cascade.lakehouse import Lakehouse

__all__ = ["LoadResult", "load", "loaded_partitions"]

_OURS = (INGESTED_AT_COLUMN, PARTITION_COLUMN)
_TIME = pa.timestamp("us", "UTC")
_SHOWN = 5


@dataclass
class LoadResult:
    """What a load did. `extracted == loaded + quarantined + duplicates`, exactly.

    Attributes:
        partitions: The partitions that were loaded.
        skipped: Partitions of the run that the branch holds already.
        extracted: Rows that the fetch function returned.
        loaded: Rows written.
        quarantined: Rows set aside.
        duplicates: Rows left out because another one of this load has the same key.
        quarantine: The table that rows were set aside in; empty when there were none.
        absent: Columns of the contract that no row brought.
        per_partition: How many rows each partition has, where that is known.
        replaced: Rows of the table that were replaced.
        total: Rows in the table now.
        snapshot_id: The table's newest snapshot; `None` when nothing was loaded and it has none.
        dropped: Columns left out by `drop_extra`.
        inferred: Whether the columns came from the data alone.
        seconds: Duration of fetching and staging, and of the commit.
        preview: The first rows.
    """

    partitions: list[str]
    skipped: int = 0
    extracted: int = 0
    loaded: int = 0
    quarantined: int = 0
    duplicates: int = 0
    quarantine: str = ""
    absent: set[str] = field(default_factory=set)
    per_partition: dict[str, int] = field(default_factory=dict)
    replaced: int = 0
    total: int = 0
    snapshot_id: int | None = None
    dropped: set[str] = field(default_factory=set)
    inferred: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    preview: pa.Table | None = None


def load(plan: LoadPlan, lakehouse: Lakehouse, keys: Sequence[str], *, missing_only: bool, run_id: str) -> LoadResult:
    """Load partitions into the plan's table on the lakehouse's branch, in one commit.

    Args:
        plan: What to load and how.
        lakehouse: The branch to write.
        keys: Partitions of the run, in order; empty for an unpartitioned asset.
        missing_only: Whether partitions that the branch holds already are left alone.
        run_id: The run, or the one that it repeats; recorded in the snapshot.

    Raises:
        ContractError: Rows break the contract, and they may not, or too many of them do.
        IngestionError: Rows lie outside the run's partitions, or lack their key.
        SchemaMismatchError: Rows and table do not fit together.
    """
    branch, catalog = lakehouse.ensure_branch(), lakehouse.catalog
    table = table_of(catalog, branch, plan.table)
    properties = table.properties if table else {}
    require_known_rows(plan, table)
    held = held_partitions(plan, properties)
    wanted = [key for key in keys if not (missing_only and key in held)]
    result = LoadResult(partitions=wanted, skipped=len(keys) - len(wanted), inferred=plan.schema is None)
    aside = table_of(catalog, branch, quarantine.quarantine_table(plan.table))
    if plan.write == "append" and not keys and any(_has_loaded(one, run_id) for one in (table, aside) if one):
        # A killed attempt of this run had committed already; appending again would double its rows.
        result.skipped = 1
    if result.skipped and not wanted:
        result.snapshot_id, result.total = lakehouse.head(plan.table), lakehouse.row_count(plan.table) or 0
        return result
    # A cursor that an earlier version of the asset kept says nothing about partitions.
    state = read_state(properties) if plan.definition is None and plan.write != "replace_partition" else {}
    schema = _target_schema(plan, table)
    rows = _Rows(plan, schema, wanted, state, result, quarantine.waiting(aside) if aside and plan.unique_key else set())
    started = time.monotonic()

    def recorded(current: Mapping[str, str]) -> dict[str, str]:
        # Under the lock of the commit: other loads may have committed since this one began.
        values = record(plan, current, wanted)
        if state:
            values[DLT_STATE_PROPERTY] = pack_state(state, plan.table, properties, current)
        return values

    spill = lakehouse.settings.data_path / "tmp"
    spill.mkdir(parents=True, exist_ok=True)
    spec = plan.options.partition_spec or UNPARTITIONED_PARTITION_SPEC
    replaces_all = plan.write == "replace_partition" and plan.definition is None
    replace = None if plan.write == "merge" or replaces_all else _replaced(plan, wanted)
    data = stage(
        catalog,
        branch,
        plan.table,
        rows.batches(),
        schema=schema,
        mode="replace" if replace or replaces_all else "merge" if plan.write == "merge" else "append",
        key=plan.unique_key,
        order_by=plan.options.order_by,
        unique=plan.contract.unique if plan.contract and plan.options.validate else (),
        replace=replace,
        spec=assign_fresh_partition_spec_ids(spec, plan.schema or schema, schema),
        properties=recorded,
        snapshot_properties={RUN_PROPERTY: run_id, BRANCH_PROPERTY: branch},
        spill_to=spill,
    )
    with data as staged, contextlib.ExitStack() as also:
        require_cursor_fits(plan, state)
        if plan.contract and plan.options.validate:
            everything = partial(staged.query, "SELECT * FROM {rows}")
            plan.contract.check_together(lambda: everything().to_arrow_table(), nothing_came=not rows.checked)
        result.per_partition = _per_partition(plan, staged, wanted)
        result.seconds["fetch"] = time.monotonic() - started
        stagings = [staged]
        # Asked again: another run may have set rows aside meanwhile that this one replaces.
        if rows.rejected or table_of(catalog, branch, quarantine.quarantine_table(plan.table)):
            stagings.append(also.enter_context(_stage_rejected(catalog, branch, plan, rows, run_id)))
        written, *_ = commit(stagings)
    if rows.rejected:
        result.quarantine = quarantine.quarantine_table(plan.table)
    result.seconds["total"] = time.monotonic() - started
    result.seconds["commit"] = result.seconds["total"] - result.seconds["fetch"]
    result.loaded, result.duplicates, result.replaced = written.rows, written.duplicates, written.replaced
    result.total, result.snapshot_id = written.total, written.snapshot_id
    return result


@dataclass
class _Rows:
    """The rows of one load on their way: fetched, cast, checked, counted."""

    plan: LoadPlan
    schema: Schema
    keys: list[str]
    state: dict[str, Any]
    result: LoadResult
    waiting: set[str]  # keys of rows that earlier runs have set aside
    rejected: list[Aside] = field(default_factory=list)
    mended: set[str] = field(default_factory=set)  # those of the waiting keys that were loaded
    checked: bool = False  # whether there was a row that the contract could look at

    def batches(self) -> Iterator[pa.Table]:
        plan, now = self.plan, pa.scalar(dt.datetime.now(dt.UTC), _TIME)
        declared = None
        if fields := [f for f in self.schema.fields if f.name not in _OURS]:
            declared = arrow_schema(Schema(*fields))
        by_plan = plan.schema.column_names if plan.schema else ()
        inferred = set(declared.names if declared else ()).difference(by_plan)
        absent: set[str] | None = None
        # One call for all partitions, so that small ones share a batch, unless each row must know its own.
        alone = plan.tagged or (plan.per_key and plan.options.on_invalid == "quarantine")
        for keys in [[key] for key in self.keys] if alone else [self.keys]:
            opened = partial(check_resource, plan, state=self.state)
            fetched = plan.fetch(keys)
            for batch in to_batches(
                fetched, schema=declared, policy=plan.policy, state=self.state, inferred=inferred, opened=opened
            ):
                declared = batch.rows.schema  # inferred types hold for the whole load
                inferred = set(declared.names).difference(by_plan)
                absent = set(batch.absent) if absent is None else absent & batch.absent
                self.result.extracted += batch.rows.num_rows + len(batch.rejected)
                self.result.dropped |= batch.extra
                label = label_of(plan.definition, keys)
                self._set_aside_uncast(batch, label)
                rows = self._checked(batch.rows, keys, label) if batch.rows.num_rows else batch.rows
                if self.waiting and rows.num_rows:
                    self.mended |= quarantine.loaded_keys(rows, plan.unique_key, self.waiting)
                if self.result.preview is None and rows.num_rows:
                    self.result.preview = rows.slice(0, _SHOWN)
                rows = rows.append_column(INGESTED_AT_COLUMN, pa.repeat(now, rows.num_rows))
                if plan.tagged:
                    rows = rows.append_column(PARTITION_COLUMN, pa.repeat(pa.scalar(label), rows.num_rows))
                yield rows
        if plan.contract and absent:
            self.result.absent = absent & plan.contract.required
        self._judge()

    def _set_aside_uncast(self, batch: Batch, label: str) -> None:
        """Set aside the rows with values that their column cannot hold."""
        self.result.quarantined += len(batch.rejected)
        names = [*self.plan.unique_key, *filter(None, [self.plan.options.partition_column])]
        wanted = pa.schema([f for f in batch.rows.schema if f.name in names])
        for rejection in batch.rejected[: self._left()]:
            values = quarantine.typed_values(rejection.row, wanted)
            one = pa.Table.from_pylist([values], wanted) if wanted.names else None
            (partition,) = self._partitions(one, [0], label) if one is not None else [label]
            self.rejected.append(Aside(rejection.row, rejection.reasons, partition, self._key(values)))

    def _checked(self, rows: pa.Table, keys: Sequence[str], label: str) -> pa.Table:
        """Keep the rows that have a key, lie in the run's partitions and fulfil the contract."""
        if missing := self.plan.missing(rows.column_names):
            raise IngestionError(
                f"The fetched rows have no column {missing}.",
                where=f"table {self.plan.table}, columns {', '.join(rows.column_names)}",
                fix="return it, or name another column in unique_key, partition_column or order_by.",
            )
        if nested := [name for name in self.plan.unique_key if pa.types.is_nested(rows[name].type)]:
            raise IngestionError(
                f"`{nested[0]}` is a {rows[nested[0]].type}, which cannot be a key.",
                where=f"table {self.plan.table}, unique_key",
                fix="name another column in unique_key, or return the value as text.",
            )
        reasons: dict[int, list[str]] = {}
        if self.plan.options.validate and self.plan.contract is not None:
            reasons = self.plan.contract.check(rows)
        for column in self.plan.unique_key:
            for position in pc.indices_nonzero(pc.is_null(rows[column])).to_pylist():
                found = reasons.setdefault(position, [])
                if not any(f"`{column}`" in reason for reason in found):
                    found.append(f"column `{column}`: is part of the key and must not be null")
        self.checked = True
        self._require_inside(rows, keys, reasons)
        if not reasons:
            return rows
        bad = sorted(reasons)
        self.result.quarantined += len(bad)
        shown = bad[: self._left()]
        partitions = self._partitions(rows, shown, label)
        for row, position, partition in zip(rows.take(shown).to_pylist(), shown, partitions, strict=True):
            self.rejected.append(Aside(json_text(row), reasons[position], partition, self._key(row)))
        return rows.filter(pa.array([i not in reasons for i in range(rows.num_rows)]))

    def _key(self, row: Mapping[str, Any]) -> str | None:
        values = [row.get(column) for column in self.plan.unique_key]
        return None if not values or None in values else json_text(values)

    def _partitions(self, rows: pa.Table, positions: Sequence[int], label: str) -> list[str]:
        """Return the partition of some rows; the label where they do not tell it."""
        column, definition = self.plan.options.partition_column, self.plan.definition
        if definition is None or column not in rows.column_names or label in self.keys:
            return [label] * len(positions)
        found = partition_of(definition, self.keys, rows[column].take(list(positions))).to_pylist()
        return [label if i is None else self.keys[i] for i in found]

    def _require_inside(self, rows: pa.Table, keys: Sequence[str], reasons: Mapping[int, list[str]]) -> None:
        """Refuse rows outside the run's partitions."""
        column, definition = self.plan.options.partition_column, self.plan.definition
        if column is None or definition is None:
            return
        values = rows[column]
        outside = pc.is_null(partition_of(definition, self.keys, values))
        if reasons:  # a row without a value belongs nowhere, but may be refused for that already
            refused = pa.array([position in reasons for position in range(rows.num_rows)])
            outside = pc.and_not(outside, pc.and_(refused, values.is_null().combine_chunks()))
        if len(positions := pc.indices_nonzero(outside)):
            shown = values.take(positions[:_SHOWN]).to_pylist()
            raise IngestionError(
                f"Outside the partitions of this run: {count(len(positions), 'row')}.",
                where=f"table {self.plan.table}, column {column}, for example {', '.join(map(str, shown))}",
                fix=f"return only rows of the partitions asked for ({keys[0]} .. {keys[-1]}).",
            )

    def _left(self) -> int:
        """How many more rejected rows are kept: one beyond the limit is enough to know."""
        return max(self.plan.options.quarantine_limit + 1 - len(self.rejected), 0)

    def _judge(self) -> None:
        """Decide, when all rows were seen, whether the rejected ones may be set aside."""
        bad, quarantine = self.result.quarantined, self.plan.options.on_invalid == "quarantine"
        if not bad or (quarantine and bad <= self.plan.options.quarantine_limit):
            return
        shown = "\n".join(f"    {'; '.join(r.reasons)} in {_short(r.row)}" for r in self.rejected[:_SHOWN])
        contract = f"the contract {self.plan.contract.name}" if self.plan.contract else "the table's columns"
        other = "the contract" if self.plan.contract else "declare other types with `iceberg_schema=` for a new table"
        raise ContractError(
            f"{bad:,} of {count(self.result.extracted, 'row')} break {contract}; nothing was written.\n{shown}",
            where=f"table {self.plan.table}"
            + (f", more than quarantine_limit={self.plan.options.quarantine_limit}" if quarantine else ""),
            fix=f"correct the source or {other}"
            + (", or raise the limit." if quarantine else ', or set such rows aside: on_invalid="quarantine".'),
        )


def _has_loaded(table: Table, run_id: str) -> bool:
    return any(s.summary and s.summary.additional_properties.get(RUN_PROPERTY) == run_id for s in table.snapshots())


def _target_schema(plan: LoadPlan, table: Table | None) -> Schema:
    """Return the declared columns, those that the table has beyond them, and ours."""
    fields = list(plan.schema.fields) if plan.schema else []
    if table and (plan.policy == "additive" or plan.schema is None):
        names = {*_OURS, *(f.name for f in fields)}
        fields += [f for f in table.schema().fields if f.name not in names]
    fields.append(NestedField(0, INGESTED_AT_COLUMN, TimestamptzType(), doc="When the run loaded the row"))
    if plan.tagged:
        fields.append(NestedField(0, PARTITION_COLUMN, StringType(), doc="The partition that brought the row"))
    # Ids only have to differ here: the table assigns its own.
    return assign_fresh_schema_ids(Schema(*fields))


def _replaced(plan: LoadPlan, keys: list[str]) -> Replace | None:
    """Return which rows an appending or replacing load replaces: those that an earlier run of its partitions wrote."""
    definition = plan.definition
    if definition is None:
        return None

    def where(table: Table) -> Where:
        name = plan.options.partition_column or PARTITION_COLUMN
        column = next((f for f in table.schema().fields if f.name == name), None)
        if column is None:
            return Where(AlwaysFalse(), "false")  # no earlier run has brought anything
        if name == PARTITION_COLUMN:
            return Where(one_of(name, keys), f"{quote(name)} IN ({', '.join(text(key) for key in keys)})")
        return rows_of(definition, keys, column)

    return where


def _stage_rejected(
    catalog: BranchingCatalog, branch: str, plan: LoadPlan, rows: _Rows, run_id: str
) -> AbstractContextManager[Staging]:
    """Stage the rows that are set aside; those of earlier runs that this load settles are replaced."""
    if plan.definition is not None:
        ranges = key_ranges(plan.definition, rows.keys)
        sql = quarantine.condition(rows.rejected, rows.keys, ranges, label_of(plan.definition, rows.keys))
    else:
        everything = plan.write == "replace_partition"
        sql = (
            "true"
            if everything
            else quarantine.replaced_by_key(rows.rejected, rows.mended, keyed=bool(plan.unique_key))
        )
    return stage(
        catalog,
        branch,
        quarantine.quarantine_table(plan.table),
        [quarantine.to_arrow(rows.rejected, run_id)],
        schema=quarantine.SCHEMA,
        mode="replace",
        replace=quarantine.replaced_rows(sql),
        snapshot_properties={RUN_PROPERTY: run_id, BRANCH_PROPERTY: branch},
    )


def _per_partition(plan: LoadPlan, staged: Staging, keys: Sequence[str]) -> dict[str, int]:
    """Count the loaded rows of each partition, where the rows tell it."""
    column = PARTITION_COLUMN if plan.tagged else plan.options.partition_column
    if plan.definition is None or (column is None and len(keys) > 1):
        return {}
    if len(keys) == 1 or column is None:
        return dict.fromkeys(keys, staged.files.rows)
    counts = dict.fromkeys(keys, 0)
    if not staged.files.rows:
        return counts
    for batch in staged.query(f"SELECT {quote(column)} FROM {{rows}}").to_arrow_reader(1_000_000):
        values = pa.chunked_array([batch.column(0)])
        where = pc.index_in(values.combine_chunks(), value_set=pa.array(keys)) if plan.tagged else None
        found = where if where is not None else partition_of(plan.definition, keys, values)
        for entry in pc.value_counts(found).to_pylist():
            if entry["values"] is not None:
                counts[keys[entry["values"]]] += entry["counts"]
    return counts


def _short(row: str, width: int = 300) -> str:
    return row if len(row) <= width else row[:width] + "…"
