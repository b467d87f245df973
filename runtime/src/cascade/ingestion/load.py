"""One load: fetch rows, check them, and commit them to the table on the run's branch as one snapshot."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysFalse, BooleanExpression, Or
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.types import ListType, NestedField, StringType, TimestamptzType

from cascade.catalog import BranchingCatalog
from cascade.errors import ContractError, IngestionError
from cascade.iceberg.filters import one_of, within
from cascade.iceberg.read import quote, text
from cascade.iceberg.schema import arrow_schema
from cascade.iceberg.write import WriteResult, write
from cascade.ingestion.partitions import pack_keys, time_ranges, unpack_keys
from cascade.ingestion.rows import Policy, Rejection, to_batches

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
_SHOWN = 5
_QUARANTINE_SCHEMA = Schema(
    NestedField(1, "partition", StringType(), doc="Partitions of the run that rejected the row"),
    NestedField(2, "row", StringType(), doc="The row as JSON"),
    NestedField(3, "reasons", ListType(4, StringType(), element_required=False), doc="Why it was rejected"),
    NestedField(5, INGESTED_AT, TimestamptzType()),
)


@dataclass(frozen=True)
class LoadPlan:
    """What the decorator has decided: how rows of one table are fetched, checked and written.

    Attributes:
        table: `namespace.table`.
        fetch: Called with `partition_date=` or `partition_dates=` (see `per_partition`), or without.
        per_partition: Whether `fetch` is called for each partition; `None` when it takes none.
        partitions: The asset's partitions; `None` when it has none.
        partition_column: Column that says which partition a row belongs to.
        key: Columns that name a row.
        contract: The Pandera model; `None` without.
        schema: Declared columns; `None` when the first load infers them.
        spec: Iceberg partitioning of a new table.
        mode: How rows enter the table.
        policy: What happens to undeclared columns.
        on_invalid: What happens when rows break the contract.
        quarantine_limit: Most rows that one load may quarantine.
        order_by: Column whose greatest value wins among rows with one key.
        validate: Whether the contract is checked.
    """

    table: str
    fetch: Callable[..., object]
    per_partition: bool | None
    partitions: dg.PartitionsDefinition[Any] | None
    partition_column: str | None = None
    key: tuple[str, ...] = ()
    contract: Contract | None = None
    schema: Schema | None = None
    spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC
    mode: Literal["merge", "replace_partition", "append"] = "merge"
    policy: Policy = "additive"
    on_invalid: Literal["fail", "quarantine"] = "fail"
    quarantine_limit: int = 1000
    order_by: str | None = None
    validate: bool = True

    @property
    def tagged(self) -> bool:
        """Whether rows carry their partition in a column of ours: nothing else tells what a re-run replaces."""
        return self.mode == "append" and self.partitions is not None and self.partition_column is None


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
    properties, table_schema = _standing(lake, branch, plan.table)
    held = _held(plan.partitions, properties)
    wanted = [key for key in keys if not (missing_only and key in held)]
    result = LoadResult(partitions=wanted, skipped=len(keys) - len(wanted), inferred=plan.schema is None)
    if keys and not wanted:
        result.snapshot_id, result.total = lakehouse.head(plan.table), lakehouse.row_count(plan.table) or 0
        return result
    if plan.mode == "append" and not keys and _has_loaded(lake, branch, plan.table, run_id):
        # A killed attempt of this run had committed already; appending again would double its rows.
        result.skipped = 1
        result.snapshot_id, result.total = lakehouse.head(plan.table), lakehouse.row_count(plan.table) or 0
        return result
    state: dict[str, Any] = _read_state(properties.get(_STATE_PROPERTY))
    schema = _target_schema(plan, table_schema)
    rows = _Rows(plan, schema, wanted, state, result)
    started = time.monotonic()
    replace, replace_sql = _room(plan, table_schema, wanted)

    def before_commit(standing: Mapping[str, str]) -> dict[str, str]:
        # Called when every row is staged, so the source's state is final; other loads may have committed meanwhile.
        result.seconds["fetch"] = time.monotonic() - started
        rows.settle(lake, branch)
        values: dict[str, str] = {}
        if plan.partitions:
            values[LOADED_PROPERTY] = pack_keys(plan.partitions, _held(plan.partitions, standing) | set(wanted))
        return {**values, _STATE_PROPERTY: _state_text(state)} if state else values

    spill = lakehouse.settings.data_path / "tmp"
    spill.mkdir(parents=True, exist_ok=True)
    written: WriteResult = write(
        lake,
        branch,
        plan.table,
        rows.batches(),
        schema=schema,
        mode="replace" if replace is not None or plan.mode == "replace_partition" else plan.mode,
        key=plan.key,
        order_by=plan.order_by,
        unique=plan.contract.unique if plan.contract and plan.validate else (),
        replace=replace,
        replace_sql=replace_sql,
        spec=plan.spec,
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
    properties, _ = _standing(lake, ref, table)
    return _held(definition, properties)


@dataclass
class _Rows:
    """The rows of one load on their way: fetched, cast, checked, counted."""

    plan: LoadPlan
    schema: Schema
    keys: list[str]
    state: dict[str, Any]
    result: LoadResult
    rejected: list[Rejection] = field(default_factory=list)
    rejected_count: int = 0

    def batches(self) -> Iterator[pa.Table]:
        now = dt.datetime.now(dt.UTC)
        declared = None
        if self.plan.schema is not None or len(self.schema.fields) > 1:
            declared = arrow_schema(Schema(*(f for f in self.schema.fields if f.name not in _OURS)))
        # One call for all partitions: small ones share a batch, and inferred types hold for the whole load.
        calls = ((key, [key]) for key in self.keys) if self.plan.tagged else [("", self.keys)]
        for partition, keys in calls:
            for rows in self._checked_batches(keys, declared):
                stamp = pa.repeat(pa.scalar(now, pa.timestamp("us", "UTC")), rows.num_rows)
                stamped = rows.append_column(INGESTED_AT, stamp)
                if self.plan.tagged:
                    stamped = stamped.append_column(_PARTITION, pa.repeat(pa.scalar(partition), rows.num_rows))
                yield stamped
        self._judge()

    def _checked_batches(self, keys: list[str], declared: pa.Schema | None) -> Iterator[pa.Table]:
        for batch in to_batches(self._fetch(keys), schema=declared, policy=self.plan.policy, state=self.state):
            self.result.extracted += batch.rows.num_rows + len(batch.rejected)
            self.result.dropped |= batch.extra
            self._reject(batch.rejected)
            rows = self._checked(batch.rows)
            if self.result.preview is None and rows.num_rows:
                self.result.preview = rows.slice(0, _SHOWN)
            yield rows

    def settle(self, lake: BranchingCatalog, branch: str) -> None:
        """Put rejected rows into the quarantine table, and take out those of an earlier attempt."""
        table = f"quarantine.{self.plan.table.replace('.', '__')}"
        partition = ", ".join(self.keys) if len(self.keys) < 3 else f"{self.keys[0]}..{self.keys[-1]}"
        if not self.rejected and table not in lake.pointers(branch):
            return
        now = pa.scalar(dt.datetime.now(dt.UTC), pa.timestamp("us", "UTC"))
        rows = pa.table(
            {
                "partition": pa.repeat(pa.scalar(partition), len(self.rejected)),
                "row": pa.array([r.row for r in self.rejected], pa.string()),
                "reasons": pa.array([r.reasons for r in self.rejected], pa.list_(pa.string())),
                INGESTED_AT: pa.repeat(now, len(self.rejected)),
            }
        )
        write(
            lake,
            branch,
            table,
            [rows],
            schema=_QUARANTINE_SCHEMA,
            mode="replace",
            replace=one_of("partition", [partition]),
            replace_sql=f"{quote('partition')} = {text(partition)}",
        )

    def _fetch(self, keys: list[str]) -> Iterator[object]:
        if self.plan.per_partition is None:
            yield self.plan.fetch()
        elif self.plan.per_partition:
            for key in keys:
                yield self.plan.fetch(partition_date=key)
        else:
            yield self.plan.fetch(partition_dates=list(keys))

    def _checked(self, rows: pa.Table) -> pa.Table:
        """Keep the rows that have a key, lie in the run's partitions and fulfil the contract."""
        if not rows.num_rows:
            return rows
        self._require_columns(rows)
        reasons: dict[int, list[str]] = {}
        if self.plan.validate and self.plan.contract is not None:
            reasons = dict(self.plan.contract.check(rows))
        for column in self.plan.key:
            for position in pc.indices_nonzero(pc.is_null(rows[column])).to_pylist():
                found = reasons.setdefault(position, [])
                if not any(f"`{column}`" in reason for reason in found):
                    found.append(f"column `{column}`: is part of the key and must not be null")
        outside = self._outside(rows)
        if outside:
            shown = rows.take(outside[:_SHOWN])[self.plan.partition_column].to_pylist()
            raise IngestionError(
                f"{len(outside):,} rows lie outside the partitions of this run.",
                where=f"table {self.plan.table}, column {self.plan.partition_column}, for example "
                + ", ".join(str(value) for value in shown),
                fix=f"return only rows of the partitions asked for ({self.keys[0]} .. {self.keys[-1]}).",
            )
        if not reasons:
            return rows
        bad = sorted(reasons)
        texts = (json.dumps(row, default=str, ensure_ascii=False) for row in rows.take(bad[: self._room()]).to_pylist())
        self._reject([Rejection(row, reasons[i]) for row, i in zip(texts, bad, strict=False)], count=len(bad))
        mask = pa.array([i not in reasons for i in range(rows.num_rows)])
        return rows.filter(mask)

    def _require_columns(self, rows: pa.Table) -> None:
        needed = [*self.plan.key, *filter(None, [self.plan.partition_column, self.plan.order_by])]
        missing = sorted({c for c in needed if c not in rows.column_names})
        if missing:
            raise IngestionError(
                f"The fetched rows have no column {', '.join(f'`{c}`' for c in missing)}.",
                where=f"table {self.plan.table}, columns {', '.join(rows.column_names)}",
                fix="return it, or name another column in unique_key, partition_column or order_by.",
            )

    def _outside(self, rows: pa.Table) -> list[int]:
        column = self.plan.partition_column
        if column is None or self.plan.partitions is None:
            return []
        values = rows[column]
        if not isinstance(self.plan.partitions, dg.TimeWindowPartitionsDefinition):
            inside = pc.is_in(values.cast(pa.string()), value_set=pa.array(self.keys))
        else:
            inside = pa.chunked_array([pa.repeat(False, rows.num_rows)])
            for begin, end in time_ranges(self.plan.partitions, self.keys):
                low, high = (_scalar(moment, values.type, self.plan.partitions) for moment in (begin, end))
                inside = pc.or_(inside, pc.and_(pc.greater_equal(values, low), pc.less(values, high)))
        # A row without a value belongs nowhere, unless its key is what will be complained of.
        return [
            int(i) for i in pc.indices_nonzero(pc.invert(pc.fill_null(inside, column in self.plan.key))).to_pylist()
        ]

    def _reject(self, rejected: list[Rejection], *, count: int | None = None) -> None:
        self.rejected += rejected[: self._room()]
        self.rejected_count += len(rejected) if count is None else count

    def _room(self) -> int:
        """How many more rejected rows are kept: one beyond the limit is enough to know."""
        return max(self.plan.quarantine_limit + 1 - len(self.rejected), 0)

    def _judge(self) -> None:
        """Decide, when all rows were seen, whether the rejected ones may be set aside."""
        count = self.rejected_count
        self.result.quarantined = count
        if not count or (self.plan.on_invalid == "quarantine" and count <= self.plan.quarantine_limit):
            return
        shown = "\n".join(f"    {'; '.join(r.reasons)} in {_short(r.row)}" for r in self.rejected[:_SHOWN])
        contract = f"the contract {self.plan.contract.name}" if self.plan.contract else "the table's columns"
        quarantine = self.plan.on_invalid == "quarantine"
        raise ContractError(
            f"{count:,} of {self.result.extracted:,} rows break {contract}; nothing was written.\n{shown}",
            where=f"table {self.plan.table}"
            + (f", more than quarantine_limit={self.plan.quarantine_limit}" if quarantine else ""),
            fix="correct the source or the contract"
            + (", or raise the limit." if quarantine else ', or set such rows aside: on_invalid="quarantine".'),
        )


def _standing(lake: BranchingCatalog, ref: str, table: str) -> tuple[dict[str, str], Schema | None]:
    """Return a table's properties and schema on a reference; nothing when it does not exist."""
    location = lake.pointers(ref).get(table)
    if location is None:
        return {}, None
    found = lake.load(table, location)
    return dict(found.properties), found.schema()


def _has_loaded(lake: BranchingCatalog, ref: str, table: str, run_id: str) -> bool:
    location = lake.pointers(ref).get(table)
    if location is None:
        return False
    snapshots = lake.load(table, location).snapshots()
    return any(s.summary is not None and s.summary.additional_properties.get(_RUN_SUMMARY) == run_id for s in snapshots)


def _held(definition: dg.PartitionsDefinition[Any] | None, properties: Mapping[str, str]) -> set[str]:
    """Return the partitions that a table's properties name as loaded."""
    packed = properties.get(LOADED_PROPERTY)
    return unpack_keys(definition, packed) if definition and packed else set()


def _read_state(text_: str | None) -> dict[str, Any]:
    if text_ is None:
        return {}
    # dlt's own JSON brings back the times and decimals of its cursors.
    from dlt.common import json as dlt_json

    state: dict[str, Any] = dlt_json.typed_loads(text_)
    return state


def _state_text(state: dict[str, Any]) -> str:
    from dlt.common import json as dlt_json

    return str(dlt_json.typed_dumps(state))


def _target_schema(plan: LoadPlan, standing: Schema | None) -> Schema:
    """Return the declared columns, those that the table has beyond them, and ours."""
    declared = list(plan.schema.fields) if plan.schema else []
    if standing is not None and plan.policy == "additive":
        names = {f.name for f in declared}
        declared += [f for f in standing.fields if f.name not in names and f.name not in _OURS]
    fields = [*declared, NestedField(0, INGESTED_AT, TimestamptzType(), doc="When the run loaded the row")]
    if plan.tagged:
        fields.append(NestedField(0, _PARTITION, StringType(), doc="The partition that brought the row"))
    # Ids only have to differ here: the table assigns its own.
    from pyiceberg.schema import assign_fresh_schema_ids

    return assign_fresh_schema_ids(Schema(*_renumbered(fields))) if plan.spec.is_unpartitioned() else _keep_ids(fields)


def _renumbered(fields: list[NestedField]) -> list[NestedField]:
    return [field.model_copy(update={"field_id": i + 1}) for i, field in enumerate(fields)]


def _keep_ids(fields: list[NestedField]) -> Schema:
    """Keep declared ids: the given partition spec refers to them."""
    highest = max((f.field_id for f in fields), default=0)
    taken: set[int] = set()
    kept = []
    for f in fields:
        number = f.field_id if f.field_id and f.field_id not in taken else (highest := highest + 1)
        taken.add(number)
        kept.append(f.model_copy(update={"field_id": number}))
    return Schema(*kept)


def _room(plan: LoadPlan, standing: Schema | None, keys: list[str]) -> tuple[BooleanExpression | None, str]:
    """Return which rows make room, as a filter and as SQL: those that an earlier run of the partitions brought.

    `merge` finds them by key; without partitions nothing tells them, or all of them go.
    """
    if plan.mode == "merge" or plan.partitions is None:
        return None, ""
    column = plan.partition_column or _PARTITION
    if standing is None or column not in {f.name for f in standing.fields}:
        return AlwaysFalse(), "false"  # no earlier run has brought anything
    if column == _PARTITION or not isinstance(plan.partitions, dg.TimeWindowPartitionsDefinition):
        return one_of(column, keys), f"{quote(column)} IN ({', '.join(text(key) for key in keys)})"
    word = {"date": "DATE", "timestamp": "TIMESTAMP"}.get(str(standing.find_field(column).field_type), "TIMESTAMPTZ")
    expression: BooleanExpression | None = None
    conditions = []
    for begin, end in time_ranges(plan.partitions, keys):
        low, high = (_literal(moment, word, plan.partitions) for moment in (begin, end))
        part = within(column, low, high)
        expression = part if expression is None else Or(expression, part)
        conditions.append(f"({quote(column)} >= {word} {text(low)} AND {quote(column)} < {word} {text(high)})")
    return expression, " OR ".join(conditions)


def _literal(moment: dt.datetime, word: str, partitions: dg.TimeWindowPartitionsDefinition) -> str:
    if word == "DATE":
        return _date(moment, partitions).isoformat()
    return (moment.replace(tzinfo=None) if word == "TIMESTAMP" else moment).isoformat()


def _date(moment: dt.datetime, partitions: dg.TimeWindowPartitionsDefinition) -> dt.date:
    """Return the date of a boundary where the partitions are at home: in UTC it may be another one."""
    return moment.astimezone(ZoneInfo(partitions.timezone)).date()


def _scalar(moment: dt.datetime, kind: pa.DataType, partitions: dg.TimeWindowPartitionsDefinition) -> pa.Scalar:
    """Return a moment in the type of a partition column; naive timestamps are UTC."""
    if pa.types.is_date(kind):
        return pa.scalar(_date(moment, partitions), kind)
    if pa.types.is_timestamp(kind):
        return pa.scalar(moment if kind.tz else moment.replace(tzinfo=None), kind)
    raise IngestionError(
        f"A partition column must be a timestamp or a date, not {kind}.",
        fix="declare it as one, or name another partition_column.",
    )


def _short(row: str, width: int = 300) -> str:
    return row if len(row) <= width else row[:width] + "…"
