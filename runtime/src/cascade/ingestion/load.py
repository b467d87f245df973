"""One load: fetch rows, check them, and commit them to the table on the run's branch as one snapshot."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, assign_fresh_partition_spec_ids
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.table import Table
from pyiceberg.types import NestedField, StringType, TimestamptzType

from cascade.catalog import BranchingCatalog
from cascade.duck.sql import identifier
from cascade.errors import SchemaMismatchError
from cascade.iceberg.head import is_reset, past
from cascade.iceberg.properties import long_values
from cascade.iceberg.rows import NO_ROWS, Where
from cascade.iceberg.write import Staging, commit, stage
from cascade.ingestion import quarantine
from cascade.ingestion.forms import FetchContext
from cascade.ingestion.incoming import OURS, Incoming
from cascade.ingestion.plan import LoadPlan
from cascade.ingestion.record import (
    held_partitions,
    kept_state,
    loaded_partitions,
    record,
    require_known_rows,
    require_state_fits,
    rows_of_partitions,
    table_of,
)
from cascade.ingestion.slices import partition_of
from cascade.ingestion.text import listed
from cascade.names import BRANCH_PROPERTY, INGESTED_AT_COLUMN, PARTITION_COLUMN, RUN_PROPERTY, SOURCE_STATE_PROPERTY

if TYPE_CHECKING:
    from cascade.lakehouse import Lakehouse

__all__ = ["LoadResult", "load", "loaded_partitions", "target_schema"]


# Seconds that the clocks of two machines may be apart.
_CLOCKS_DIFFER = 3600


@dataclass
class LoadResult:
    """What a load did. `extracted == loaded + quarantined + duplicates`, exactly."""

    partitions: list[str]  # the partitions that were loaded
    skipped: int = 0  # partitions of the run that the branch holds already
    extracted: int = 0  # rows that the fetch function returned
    loaded: int = 0  # rows written
    quarantined: int = 0  # rows set aside
    duplicates: int = 0  # rows left out because another one of this load has the same key
    quarantine: str = ""  # the table that rows were set aside in; empty when there were none
    absent: frozenset[str] = frozenset()  # columns of the contract that no row brought
    per_partition: dict[str, int] = field(default_factory=dict)  # rows of each partition, where that is known
    replaced: int = 0  # rows of the table that were replaced
    total: int = 0  # rows in the table now
    snapshot_id: int | None = None  # the table's newest snapshot; None when it has none
    dropped: set[str] = field(default_factory=set)  # columns left out by `drop_extra`
    inferred: bool = False  # whether the columns came from the data alone
    seconds: dict[str, float] = field(default_factory=dict)  # of fetching and staging, of the commit, and in total
    preview: pa.Table | None = None  # the first rows


def load(
    plan: LoadPlan,
    lakehouse: Lakehouse,
    keys: Sequence[str],
    *,
    missing_only: bool,
    run_id: str,
    run_started: float = 0.0,
) -> LoadResult:
    """Load partitions into the plan's table on the lakehouse's branch, in one commit.

    Args:
        plan: What to load and how.
        lakehouse: The branch to write.
        keys: Partitions of the run, in order; empty for an unpartitioned asset.
        missing_only: Whether partitions that the branch holds already are left alone.
        run_id: The run, or the one that it repeats; recorded in the snapshot.
        run_started: When that run was created, in seconds since 1970: it has not loaded anything before.

    Raises:
        ContractError: Rows break the contract, and they may not, or too many of them do.
        IngestionError: Rows lie outside the run's partitions, or lack their key.
        SchemaMismatchError: Rows and table do not fit together.
    """
    started = time.monotonic()
    branch, catalog = lakehouse.ensure_branch(), lakehouse.catalog
    beside = quarantine.quarantine_table(plan.table)
    table, aside = table_of(catalog, branch, plan.table), table_of(catalog, branch, beside)
    properties = long_values(table.metadata, table.io) if table else {}
    require_known_rows(plan, table)
    held = held_partitions(plan, properties) if missing_only else set()
    wanted = [key for key in keys if key not in held]
    result = LoadResult(partitions=wanted, skipped=len(keys) - len(wanted), inferred=plan.schema is None)
    ours = ((plan.table, table), (beside, aside)) if plan.write == "append" and not keys else ()
    if any(_has_loaded(catalog, name, one, run_id, run_started) for name, one in ours if one):
        # A killed attempt of this run had committed already; appending again would double its rows.
        result.skipped = 1
    if result.skipped and not wanted:
        result.snapshot_id, result.total = lakehouse.head(plan.table), lakehouse.row_count(plan.table) or 0
        return result
    # A cursor that an earlier version of the asset kept says nothing about partitions.
    before = properties.get(SOURCE_STATE_PROPERTY, "") if plan.keeps_state else ""
    context = FetchContext(plan, state=before)
    reset = is_reset(table)
    rows = Incoming(plan, target_schema(plan, None if reset else table), wanted, context, result)

    def recorded(current: Mapping[str, str]) -> dict[str, str]:
        # Under the lock of the commit: other loads may have committed since this one began.
        return record(plan, current, wanted) | kept_state(context, before, current)

    staging = _stage_rows(lakehouse, branch, rows, recorded, run_id=run_id, exact=reset)
    with staging as staged, contextlib.ExitStack() as also:
        require_state_fits(context)
        if plan.contract and plan.options.validate:
            rows.require_unique(staged)
            plan.contract.check_together(
                lambda: staged.query("SELECT * FROM {rows}").to_arrow_table(), nothing_came=not rows.checked
            )
        result.per_partition = _per_partition(plan, staged, wanted)
        result.seconds["fetch"] = time.monotonic() - started
        stagings = [staged]
        # Looked up again: since this load began, another run may have set rows aside that this one replaces.
        if rows.rejected or table_of(catalog, branch, beside):
            stagings.append(also.enter_context(_stage_rejected(rows, staged, run_id)))
        written, *_ = commit(stagings)
    result.quarantine = beside if rows.rejected else ""
    result.seconds["total"] = time.monotonic() - started
    result.seconds["commit"] = result.seconds["total"] - result.seconds["fetch"]
    result.loaded, result.duplicates, result.replaced = written.rows, written.duplicates, written.replaced
    result.total, result.snapshot_id = written.total, written.snapshot_id
    return result


def _has_loaded(catalog: BranchingCatalog, name: str, table: Table, run_id: str, run_started: float) -> bool:
    """Say whether a run has committed to a table."""
    for state in past(catalog, name, table):
        if any(s.summary and s.summary.additional_properties.get(RUN_PROPERTY) == run_id for s in state.snapshots()):
            return True
        if min((s.timestamp_ms for s in state.snapshots()), default=0) < (run_started - _CLOCKS_DIFFER) * 1000:
            break
    return False


def target_schema(plan: LoadPlan, table: Table | None) -> Schema:
    """Return the declared columns, those that the table has beyond them, and Cascade's.

    Raises:
        SchemaMismatchError: The policy takes no further columns, and the table has some: they were renamed or dropped.
    """
    fields = list(plan.schema.fields) if plan.schema else []
    have = [f for f in table.schema().fields if f.name not in OURS] if table else []
    further = [f for f in have if f.name not in {f.name for f in fields}]
    if further and plan.schema and plan.policy != "additive":
        new = [f.name for f in fields if f.name not in {f.name for f in have}]
        words = [" or ".join([*(f"--rename {f.name}={one}" for one in new), f"--drop {f.name}"]) for f in further]
        raise SchemaMismatchError(
            f"{plan.table} has columns that the contract has no longer; nothing was written.\n"
            + "\n".join(f"    {f.name} ({f.field_type}): {word}" for f, word in zip(further, words, strict=True)),
            where=f'schema_policy="{plan.policy}"' + (f", new in the contract: {listed(new)}" if new else ""),
            fix=f"say what becomes of each: `cascade schema apply {plan.table}` with them; or declare it again.",
        )
    fields += further
    fields.append(NestedField(0, INGESTED_AT_COLUMN, TimestamptzType(), doc="When the run loaded the row"))
    if plan.tagged:
        fields.append(NestedField(0, PARTITION_COLUMN, StringType(), doc="The partition that brought the row"))
    # Ids only have to differ here: the table assigns its own.
    return assign_fresh_schema_ids(Schema(*fields))


def _stage_rows(
    lakehouse: Lakehouse,
    branch: str,
    rows: Incoming,
    recorded: Callable[[Mapping[str, str]], dict[str, str]],
    *,
    run_id: str,
    exact: bool,
) -> AbstractContextManager[Staging]:
    """Stage the rows of a load, which draws them; the rows that an earlier run of its partitions wrote are replaced."""
    plan, schema, spill = rows.plan, rows.schema, lakehouse.settings.data_path / "tmp"
    spill.mkdir(parents=True, exist_ok=True)

    def replaced(table: Table) -> Where:
        return rows_of_partitions(plan, table, rows.keys) or NO_ROWS  # no earlier run has loaded anything

    spec = plan.options.partition_spec or UNPARTITIONED_PARTITION_SPEC
    appends = plan.write == "append" and plan.definition is None
    return stage(
        lakehouse.catalog,
        branch,
        plan.table,
        rows.batches(),
        schema=schema,
        mode="merge" if plan.write == "merge" else "append" if appends else "replace",
        key=plan.unique_key,
        order_by=plan.options.order_by,
        replace=replaced if plan.definition else None,
        spec=assign_fresh_partition_spec_ids(spec, plan.schema or schema, schema),
        exact=exact,
        properties=recorded,
        snapshot_properties={RUN_PROPERTY: run_id, BRANCH_PROPERTY: branch},
        spill_to=spill,
    )


def _stage_rejected(rows: Incoming, staged: Staging, run_id: str) -> AbstractContextManager[Staging]:
    """Stage the rows that are set aside; those of earlier runs that this load settles are replaced."""
    return stage(
        staged.catalog,
        staged.branch,
        quarantine.quarantine_table(rows.plan.table),
        [quarantine.to_arrow(rows.rejected, run_id, rows.plan.source)],
        schema=quarantine.SCHEMA,
        mode="replace",
        replace=quarantine.replaced_rows(rows.plan, rows.keys, rows.rejected, staged),
        snapshot_properties={RUN_PROPERTY: run_id, BRANCH_PROPERTY: staged.branch},
    )


def _per_partition(plan: LoadPlan, staged: Staging, keys: Sequence[str]) -> dict[str, int]:
    """Count the loaded rows of each partition, where the rows tell it."""
    columns = [PARTITION_COLUMN] if plan.tagged else plan.partition_columns
    if plan.definition is None or (not columns and len(keys) > 1):
        return {}
    if len(keys) == 1 or not staged.files.rows:
        return dict.fromkeys(keys, staged.files.rows)
    counts, names = dict.fromkeys(keys, 0), ", ".join(map(identifier, columns))
    for batch in staged.query(f"SELECT {names} FROM {{rows}}").to_arrow_reader(1_000_000):
        told = [pa.chunked_array([values]) for values in batch.columns]
        found = pc.index_in(*told, pa.array(keys)) if plan.tagged else partition_of(plan.definition, keys, told)
        for entry in pc.value_counts(found).to_pylist():
            if entry["values"] is not None:
                counts[keys[entry["values"]]] += entry["counts"]
    return counts
