"""One load: fetch rows, check them, and commit them to the table on the run's branch as one snapshot."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysFalse, BooleanExpression, Or
from pyiceberg.partitioning import PartitionSpec, assign_fresh_partition_spec_ids
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.table import Table
from pyiceberg.types import ListType, NestedField, StringType, TimestamptzType

from cascade.catalog import BranchingCatalog
from cascade.errors import ContractError, IngestionError
from cascade.iceberg.filters import Where, one_of, within
from cascade.iceberg.read import duckdb_type, quote, text
from cascade.iceberg.schema import arrow_schema
from cascade.iceberg.write import write
from cascade.ingestion.options import Options, Policy
from cascade.ingestion.partitions import pack_keys, time_ranges, unpack_keys
from cascade.ingestion.rows import Rejection, to_batches
from cascade.ingestion.text import json_text

if TYPE_CHECKING:
    from cascade.ingestion.contract import Contract
    from cascade.lakehouse import Lakehouse

__all__ = ["INGESTED_AT", "LOADED_PROPERTY", "LoadPlan", "LoadResult", "load", "loaded_partitions"]

#: Column of every table: when the run loaded the row, UTC.
INGESTED_AT = "_cascade_ingested_at"
#: Table property: the loaded partitions, empty ones included. It travels inside the commit of the data.
LOADED_PROPERTY = "cascade.loaded-partitions"
# Table property: the state of the dlt source, such as incremental cursors; never ahead of the data.
_STATE_PROPERTY = "cascade.dlt-state"
# Column of appended tables without a partition column: which partition of which run brought the row.
_PARTITION = "_cascade_partition"
_RUN_SUMMARY = "cascade.run-id"

_OURS = (INGESTED_AT, _PARTITION)
_TIME = pa.timestamp("us", "UTC")
_SHOWN = 5
_QUARANTINE_SCHEMA = Schema(
    NestedField(1, "partition", StringType(), doc="Partitions of the run that rejected the row"),
    NestedField(2, "row", StringType(), doc="The row as JSON"),
    NestedField(3, "reasons", ListType(4, StringType(), element_required=False), doc="Why it was rejected"),
    NestedField(5, INGESTED_AT, TimestamptzType()),
)


@dataclass(frozen=True)
class LoadPlan(Options):
    """How rows of one table are fetched, checked and written: the options, and what follows from them.

    Attributes:
        fetch: Calls the function for some partitions, and yields what it returns.
        definition: The asset's partitions; `None` when it has none.
        contract: The Pandera model; `None` without.
        schema: Declared columns; `None` when the first load infers them.
        spec: Iceberg partitioning of a new table.
        policy: What happens to undeclared columns.
    """

    fetch: Callable[[Sequence[str]], Iterator[object]]
    definition: dg.PartitionsDefinition[Any] | None
    contract: Contract | None
    schema: Schema | None
    spec: PartitionSpec
    policy: Policy

    @property
    def tagged(self) -> bool:
        """Whether rows carry their partition in a column of ours: nothing else tells what a re-run replaces."""
        return self.write == "append" and self.definition is not None and self.partition_column is None


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
        replaced: Rows of the table that made room.
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
    branch, lake = lakehouse.ensure_branch(), lakehouse.lake
    table = _table(lake, branch, plan.table)
    properties = table.properties if table else {}
    held = _held(plan.definition, properties)
    wanted = [key for key in keys if not (missing_only and key in held)]
    result = LoadResult(partitions=wanted, skipped=len(keys) - len(wanted), inferred=plan.schema is None)
    if plan.write == "append" and not keys and table and _has_loaded(table, run_id):
        # A killed attempt of this run had committed already; appending again would double its rows.
        result.skipped = 1
    if result.skipped and not wanted:
        result.snapshot_id, result.total = lakehouse.head(plan.table), lakehouse.row_count(plan.table) or 0
        return result
    state: dict[str, Any] = {}
    if packed := properties.get(_STATE_PROPERTY):
        state = _dlt_json().typed_loads(packed)
    schema = _target_schema(plan, table)
    rows = _Rows(plan, schema, wanted, state, result)
    started = time.monotonic()
    replace, replace_sql = _room(plan, table, wanted)

    def before_commit(standing: Mapping[str, str]) -> dict[str, str]:
        # Called when every row is staged, so the source's state is final; other loads may have committed meanwhile.
        result.seconds["fetch"] = time.monotonic() - started
        rows.settle(lake, branch)
        values: dict[str, str] = {}
        if plan.definition:
            values[LOADED_PROPERTY] = pack_keys(plan.definition, _held(plan.definition, standing) | set(wanted))
        if state:
            values[_STATE_PROPERTY] = _dlt_json().typed_dumps(state)
        return values

    spill = lakehouse.settings.data_path / "tmp"
    spill.mkdir(parents=True, exist_ok=True)
    written = write(
        lake,
        branch,
        plan.table,
        rows.batches(),
        schema=schema,
        mode="replace" if replace is not None or plan.write == "replace_partition" else plan.write,
        key=plan.key,
        order_by=plan.order_by,
        unique=plan.contract.unique if plan.contract and plan.validate else (),
        replace=(lambda _: Where(replace, replace_sql)) if replace is not None else None,
        spec=assign_fresh_partition_spec_ids(plan.spec, plan.schema or schema, schema),
        properties=before_commit,
        snapshot_properties={_RUN_SUMMARY: run_id, "cascade.branch": branch},
        spill_to=spill,
    )
    result.seconds["total"] = time.monotonic() - started
    result.seconds["commit"] = result.seconds["total"] - result.seconds["fetch"]
    result.loaded, result.duplicates, result.replaced = written.rows, written.duplicates, written.replaced
    result.total, result.snapshot_id = written.total, written.snapshot_id
    return result


def loaded_partitions(
    lake: BranchingCatalog, ref: str, table: str, definition: dg.PartitionsDefinition[Any]
) -> set[str]:
    """Return which partitions a table holds on a reference, empty ones included, as its commits recorded them."""
    found = _table(lake, ref, table)
    return _held(definition, found.properties) if found else set()


@dataclass
class _Rows:
    """The rows of one load on their way: fetched, cast, checked, counted."""

    plan: LoadPlan
    schema: Schema
    keys: list[str]
    state: dict[str, Any]
    result: LoadResult
    rejected: list[Rejection] = field(default_factory=list)

    def batches(self) -> Iterator[pa.Table]:
        now = pa.scalar(dt.datetime.now(dt.UTC), _TIME)
        declared = None
        if self.plan.schema is not None or len(self.schema.fields) > 1:
            declared = arrow_schema(Schema(*(f for f in self.schema.fields if f.name not in _OURS)))
        by_plan = self.plan.schema.column_names if self.plan.schema else ()
        inferred = set(declared.names if declared else ()).difference(by_plan)
        # One call for all partitions: small ones share a batch, and inferred types hold for the whole load.
        calls = [(key, [key]) for key in self.keys] if self.plan.tagged else [("", self.keys)]
        for partition, keys in calls:
            fetched = self.plan.fetch(keys)
            for batch in to_batches(
                fetched, schema=declared, policy=self.plan.policy, state=self.state, inferred=inferred
            ):
                self.result.extracted += batch.rows.num_rows + len(batch.rejected)
                self.result.dropped |= batch.extra
                self._reject(batch.rejected, len(batch.rejected))
                rows = self._checked(batch.rows) if batch.rows.num_rows else batch.rows
                if self.result.preview is None and rows.num_rows:
                    self.result.preview = rows.slice(0, _SHOWN)
                rows = rows.append_column(INGESTED_AT, pa.repeat(now, rows.num_rows))
                if self.plan.tagged:
                    rows = rows.append_column(_PARTITION, pa.repeat(pa.scalar(partition), rows.num_rows))
                yield rows
        self._judge()

    def settle(self, lake: BranchingCatalog, branch: str) -> None:
        """Put rejected rows into the quarantine table, and take out those of an earlier attempt."""
        table = f"quarantine.{self.plan.table.replace('.', '__')}"
        if not self.rejected and table not in lake.pointers(branch):
            return
        partition = ", ".join(self.keys) if len(self.keys) < 3 else f"{self.keys[0]}..{self.keys[-1]}"
        now = dt.datetime.now(dt.UTC)
        rows = [{"partition": partition, "row": r.row, "reasons": r.reasons, INGESTED_AT: now} for r in self.rejected]
        write(
            lake,
            branch,
            table,
            [pa.Table.from_pylist(rows, arrow_schema(_QUARANTINE_SCHEMA))],
            schema=_QUARANTINE_SCHEMA,
            mode="replace",
            replace=lambda _: Where(one_of("partition", [partition]), f"{quote('partition')} = {text(partition)}"),
        )

    def _checked(self, rows: pa.Table) -> pa.Table:
        """Keep the rows that have a key, lie in the run's partitions and fulfil the contract."""
        if missing := self.plan.missing(rows.column_names):
            raise IngestionError(
                f"The fetched rows have no column {missing}.",
                where=f"table {self.plan.table}, columns {', '.join(rows.column_names)}",
                fix="return it, or name another column in unique_key, partition_column or order_by.",
            )
        if nested := [name for name in self.plan.key if pa.types.is_nested(rows[name].type)]:
            raise IngestionError(
                f"`{nested[0]}` is a {rows[nested[0]].type}, which cannot be a key.",
                where=f"table {self.plan.table}, unique_key",
                fix="name another column in unique_key, or return the value as text.",
            )
        reasons: dict[int, list[str]] = {}
        if self.plan.validate and self.plan.contract is not None:
            reasons = self.plan.contract.check(rows)
        for column in self.plan.key:
            for position in pc.indices_nonzero(pc.is_null(rows[column])).to_pylist():
                found = reasons.setdefault(position, [])
                if not any(f"`{column}`" in reason for reason in found):
                    found.append(f"column `{column}`: is part of the key and must not be null")
        self._require_inside(rows)
        if not reasons:
            return rows
        bad = sorted(reasons)
        texts = map(json_text, rows.take(bad[: self._room()]).to_pylist())
        self._reject([Rejection(row, reasons[i]) for row, i in zip(texts, bad, strict=False)], len(bad))
        return rows.filter(pa.array([i not in reasons for i in range(rows.num_rows)]))

    def _require_inside(self, rows: pa.Table) -> None:
        """Refuse rows outside the run's partitions."""
        column, definition = self.plan.partition_column, self.plan.definition
        if column is None or definition is None:
            return
        values = rows[column]
        if isinstance(definition, dg.TimeWindowPartitionsDefinition):
            inside = pa.chunked_array([pa.repeat(False, rows.num_rows)])
            for begin, end in _bounds(definition, self.keys, values.type):
                inside = pc.or_(inside, pc.and_(pc.greater_equal(values, begin), pc.less(values, end)))
        else:
            inside = pc.is_in(values.cast(pa.string()), value_set=pa.array(self.keys))
        # A row without a value belongs nowhere, unless its key is what will be complained of.
        outside = pc.indices_nonzero(pc.invert(pc.fill_null(inside, column in self.plan.key)))
        if len(outside):
            shown = values.take(outside[:_SHOWN]).to_pylist()
            raise IngestionError(
                f"{len(outside):,} rows lie outside the partitions of this run.",
                where=f"table {self.plan.table}, column {column}, for example {', '.join(map(str, shown))}",
                fix=f"return only rows of the partitions asked for ({self.keys[0]} .. {self.keys[-1]}).",
            )

    def _reject(self, rejected: list[Rejection], count: int) -> None:
        self.rejected += rejected[: self._room()]
        self.result.quarantined += count

    def _room(self) -> int:
        """How many more rejected rows are kept: one beyond the limit is enough to know."""
        return max(self.plan.quarantine_limit + 1 - len(self.rejected), 0)

    def _judge(self) -> None:
        """Decide, when all rows were seen, whether the rejected ones may be set aside."""
        count, quarantine = self.result.quarantined, self.plan.on_invalid == "quarantine"
        if not count or (quarantine and count <= self.plan.quarantine_limit):
            return
        shown = "\n".join(f"    {'; '.join(r.reasons)} in {_short(r.row)}" for r in self.rejected[:_SHOWN])
        contract = f"the contract {self.plan.contract.name}" if self.plan.contract else "the table's columns"
        other = "the contract" if self.plan.contract else "declare other types with `iceberg_schema=` for a new table"
        raise ContractError(
            f"{count:,} of {self.result.extracted:,} rows break {contract}; nothing was written.\n{shown}",
            where=f"table {self.plan.table}"
            + (f", more than quarantine_limit={self.plan.quarantine_limit}" if quarantine else ""),
            fix=f"correct the source or {other}"
            + (", or raise the limit." if quarantine else ', or set such rows aside: on_invalid="quarantine".'),
        )


def _table(lake: BranchingCatalog, ref: str, name: str) -> Table | None:
    location = lake.pointers(ref).get(name)
    return None if location is None else lake.load(name, location)


def _has_loaded(table: Table, run_id: str) -> bool:
    return any(s.summary and s.summary.additional_properties.get(_RUN_SUMMARY) == run_id for s in table.snapshots())


def _held(definition: dg.PartitionsDefinition[Any] | None, properties: Mapping[str, str]) -> set[str]:
    """Return the partitions that a table's properties name as loaded."""
    packed = properties.get(LOADED_PROPERTY)
    return unpack_keys(definition, packed) if definition and packed else set()


def _dlt_json() -> Any:
    """Return dlt's own JSON, which brings back the times and decimals of its cursors."""
    from dlt.common import json

    return json


def _target_schema(plan: LoadPlan, table: Table | None) -> Schema:
    """Return the declared columns, those that the table has beyond them, and ours."""
    fields = list(plan.schema.fields) if plan.schema else []
    if table and plan.policy == "additive":
        names = {*_OURS, *(f.name for f in fields)}
        fields += [f for f in table.schema().fields if f.name not in names]
    fields.append(NestedField(0, INGESTED_AT, TimestamptzType(), doc="When the run loaded the row"))
    if plan.tagged:
        fields.append(NestedField(0, _PARTITION, StringType(), doc="The partition that brought the row"))
    # Ids only have to differ here: the table assigns its own.
    return assign_fresh_schema_ids(Schema(*fields))


def _room(plan: LoadPlan, table: Table | None, keys: list[str]) -> tuple[BooleanExpression | None, str]:
    """Return which rows make room, as a filter and as SQL: those that an earlier run of the partitions brought.

    `merge` finds them by key; without partitions nothing tells them, or all of them go.
    """
    if plan.write == "merge" or plan.definition is None:
        return None, ""
    column = plan.partition_column or _PARTITION
    found = [f for f in table.schema().fields if f.name == column] if table else []
    if not found:
        return AlwaysFalse(), "false"  # no earlier run has brought anything
    if column == _PARTITION or not isinstance(plan.definition, dg.TimeWindowPartitionsDefinition):
        return one_of(column, keys), f"{quote(column)} IN ({', '.join(text(key) for key in keys)})"
    expression: BooleanExpression = AlwaysFalse()
    conditions = []
    word, kind = duckdb_type(found[0].field_type), arrow_schema(Schema(*found)).field(column).type
    for bounds in _bounds(plan.definition, keys, kind):
        low, high = (bound.as_py().isoformat() for bound in bounds)
        expression = Or(expression, within(column, low, high))
        conditions.append(f"({quote(column)} >= {word} {text(low)} AND {quote(column)} < {word} {text(high)})")
    return expression, " OR ".join(conditions)


def _bounds(
    definition: dg.TimeWindowPartitionsDefinition, keys: Sequence[str], kind: pa.DataType
) -> list[tuple[pa.Scalar, pa.Scalar]]:
    """Return the time that partitions cover as values of a partition column; naive timestamps are UTC."""
    if not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        raise IngestionError(
            f"A partition column must be a timestamp or a date, not {kind}.",
            fix="declare it as one, or name another partition_column.",
        )

    def bound(moment: dt.datetime) -> pa.Scalar:
        if pa.types.is_date(kind):  # where the partitions are at home: in UTC it may be another one
            return pa.scalar(moment.astimezone(ZoneInfo(definition.timezone)).date(), kind)
        return pa.scalar(moment if kind.tz else moment.replace(tzinfo=None), kind)

    return [(bound(begin), bound(end)) for begin, end in time_ranges(definition, keys)]


def _short(row: str, width: int = 300) -> str:
    return row if len(row) <= width else row[:width] + "…"
