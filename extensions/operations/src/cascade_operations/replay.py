"""Load rows from quarantine again: the same cast, contract and merge as any load, in one commit with the quarantine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.schema import Schema

from cascade.catalog import BranchingCatalog
from cascade.duck.session import connect
from cascade.duck.sql import identifier, literal
from cascade.errors import ContractError, UsageError
from cascade.iceberg.read import view_sql
from cascade.iceberg.rows import Where
from cascade.iceberg.schema import arrow_schema
from cascade.iceberg.write import Staging, commit, stage
from cascade.ingestion.forms import FetchContext
from cascade.ingestion.incoming import OURS, Incoming
from cascade.ingestion.load import LoadResult, target_schema
from cascade.ingestion.quarantine import SCHEMA, quarantine_table
from cascade.ingestion.record import require_known_rows, rows_of_partitions, table_of
from cascade.ingestion.slices import ends_of
from cascade.ingestion.text import listed
from cascade.names import BRANCH_PROPERTY, INGESTED_AT_COLUMN, RUN_PROPERTY
from cascade_operations.aside import Chosen, read_aside, taken_out, to_aside
from cascade_operations.partitions import may_have
from cascade_operations.records import QuarantinedRow

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from cascade.ingestion.plan import LoadPlan
    from cascade.lakehouse import Lakehouse

__all__ = ["Replayed", "columns_of", "partitions_of", "replay"]


@dataclass
class Replayed:
    """What became of the rows.

    Attributes:
        result: As of any load; rows that are outdated are duplicates.
        failed: The rows that stay in quarantine, with their new reasons.
    """

    result: LoadResult
    failed: list[QuarantinedRow] = field(default_factory=list)


def columns_of(plan: LoadPlan, table: Table | None) -> pa.Schema:
    """Return the columns that rows of a plan's table are cast to, Cascade's own left out."""
    fields = [f for f in target_schema(plan, table).fields if f.name not in OURS]
    return arrow_schema(Schema(*fields)) if fields else pa.schema([])


def partitions_of(plan: LoadPlan, label: str) -> list[str]:
    """Return the partitions that the label of a row in quarantine means.

    Raises:
        UsageError: The asset does not have them, or a row of several could not tell its own.
    """
    definition = plan.definition
    ends = [label] if definition is None else ends_of(definition, label)
    if missing := [key for key in ends if (key if definition is None else not may_have(definition, key))]:
        raise UsageError(
            f"Rows in quarantine are of the partition {missing[0]!r}, which the asset does not have.",
            where=f"table {plan.table}",
            fix="choose rows of other partitions with --partition; "
            "put the partitions of the asset back as they were, or drop these rows.",
        )
    if plan.tagged and len(ends) > 1:
        raise UsageError(
            f"Rows in quarantine do not tell to which partition of {label} they belong.",
            where=f"table {plan.table}",
            fix="load these partitions again: that replaces them.",
        )
    if definition is None:
        return []
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return list(definition.get_partition_keys_in_range(dg.PartitionKeyRange(ends[0], ends[-1])))
    return ends


def replay(
    plan: LoadPlan, lakehouse: Lakehouse, chosen: Sequence[Chosen], *, run_id: str, dry_run: bool = False
) -> Replayed:
    """Load rows from quarantine into the plan's table: those that pass leave quarantine in the same commit.

    Rows are added: nothing of a partition is replaced but rows with the same key. The cursor of a source and the
    record of loaded partitions stay as they are.

    Args:
        plan: What the asset does when it runs.
        lakehouse: The branch to write, or to read in a dry run.
        chosen: The rows. Those that are not in quarantine on the branch are left out: they have left it.
        run_id: The run; recorded in the snapshot.
        dry_run: Whether nothing is committed.

    Raises:
        ContractError: All rows together, with those of their partition, break the contract.
        IngestionError: Rows lie outside the partition that they were set aside for.
        SchemaMismatchError: Rows and table do not fit together.
    """
    catalog = lakehouse.catalog
    branch = lakehouse.ref if dry_run else lakehouse.ensure_branch()
    beside = quarantine_table(plan.table)
    table, aside = table_of(catalog, branch, plan.table), table_of(catalog, branch, beside)
    require_known_rows(plan, table)
    waiting = {row.id for row in read_aside(aside)}
    chosen = sorted((one for one in chosen if one.row.id in waiting), key=lambda one: one.row.at)
    done = Replayed(LoadResult(partitions=[]))
    done.result.snapshot_id, done.result.total = lakehouse.head(plan.table), lakehouse.row_count(plan.table) or 0
    if not chosen:
        return done
    arriving = _Arriving(plan, table, chosen, done)
    where, equal = taken_out(aside, [one.row for one in chosen])
    with contextlib.ExitStack() as stack:
        staged = stack.enter_context(_stage_rows(plan, catalog, branch, arriving, run_id))
        _require_together(plan, table, arriving.partitions, staged)
        result = done.result
        result.quarantine = beside if done.failed else ""
        result.loaded, result.duplicates = staged.files.rows, result.duplicates + staged.duplicates
        stays = stack.enter_context(
            stage(
                catalog,
                branch,
                beside,
                [to_aside(done.failed), equal],
                schema=SCHEMA,
                mode="replace",
                replace=where,
                snapshot_properties={RUN_PROPERTY: run_id, BRANCH_PROPERTY: branch},
            )
        )
        unchanged = {row.id: row for row in done.failed} == {one.row.id: one.row for one in chosen}
        if not dry_run and not unchanged:
            *loads, _ = commit([staged, stays] if staged.files.rows else [stays])
            for load in loads:
                result.duplicates += staged.files.rows - load.rows
                result.loaded, result.replaced, result.total = load.rows, load.replaced, load.total
                result.snapshot_id = load.snapshot_id
    return done


def _stage_rows(
    plan: LoadPlan, catalog: BranchingCatalog, branch: str, arriving: _Arriving, run_id: str
) -> contextlib.AbstractContextManager[Staging]:
    spill = catalog.settings.data_path / "tmp"
    spill.mkdir(parents=True, exist_ok=True)
    return stage(
        catalog,
        branch,
        plan.table,
        arriving.batches(),
        schema=arriving.schema,
        # Never a whole partition: the rest of it was loaded well.
        mode="merge" if plan.write == "merge" else "append",
        key=plan.unique_key,
        order_by=plan.options.order_by,
        snapshot_properties={RUN_PROPERTY: run_id, BRANCH_PROPERTY: branch},
        spill_to=spill,
    )


class _Arriving:
    """The rows on their way: cast and checked, with those left out that the table has newer ones of."""

    def __init__(self, plan: LoadPlan, table: Table | None, chosen: Sequence[Chosen], done: Replayed) -> None:
        self.plan, self.table, self.chosen, self.done = plan, table, chosen, done
        self.schema = target_schema(plan, table)
        self.partitions = {one.row.partition: partitions_of(plan, one.row.partition) for one in chosen}

    def batches(self) -> Iterator[pa.Table]:
        """Yield the rows to stage, the oldest first: of rows with one key the last one wins."""
        parts = []
        for (at, label), group in groupby(self.chosen, key=lambda one: (one.row.at, one.row.partition)):
            for batch in self._fulfilling(label, list(group)):
                parts.append((batch, at, label))
        for (batch, *_), outdated in zip(parts, self._outdated(parts), strict=True):
            self.done.result.duplicates += len(outdated)
            yield batch.filter(pa.array([i not in outdated for i in range(batch.num_rows)], pa.bool_()))

    def _fulfilling(self, label: str, group: Sequence[Chosen]) -> Iterator[pa.Table]:
        """Cast and check rows that were set aside together; halve them until each that fails is found."""
        options = replace(
            self.plan.options, on_invalid="quarantine", quarantine_limit=len(group), quarantine_fraction=1
        )
        rows = [one.values for one in group]
        plan = replace(self.plan, fetch=lambda _: iter([rows]), options=options, per_key=False)
        alone = LoadResult(partitions=[])
        incoming = Incoming(plan, self.schema, self.partitions[label], FetchContext(), alone)
        found = list(incoming.batches())
        if alone.quarantined and len(group) > 1:
            half = len(group) // 2
            yield from self._fulfilling(label, group[:half])
            yield from self._fulfilling(label, group[half:])
            return
        result = self.done.result
        result.extracted += alone.extracted
        result.quarantined += alone.quarantined
        result.dropped |= alone.dropped
        result.preview = alone.preview if result.preview is None else result.preview
        for one, row in zip(group, incoming.rejected, strict=False):
            again = replace(one.row, reasons=tuple(row.reasons), key=row.key)
            self.done.failed.append(again if one.source is None else replace(again, row=row.row, source=one.source))
        yield from found

    def _outdated(self, parts: Sequence[tuple[pa.Table, object, str]]) -> list[set[int]]:
        """Return for each part the positions of the rows that the table has newer ones of."""
        found: list[set[int]] = [set() for _ in parts]
        newer, table = self._newer(), self.table
        if newer is None or table is None or not parts:
            return found
        key, order_by = self.plan.unique_key, self.plan.options.order_by
        if not {*key, *filter(None, [order_by])} <= {f.name for f in table.schema().fields}:
            return found
        columns = list(dict.fromkeys([*key, *filter(None, [order_by])]))
        rows = [
            batch.select(columns)
            .append_column("_part", pa.repeat(pa.scalar(number), batch.num_rows))
            .append_column("_row", pa.array(range(batch.num_rows), pa.int64()))
            .append_column("_at", pa.repeat(pa.scalar(at, pa.timestamp("us", "UTC")), batch.num_rows))
            .append_column("_label", pa.repeat(pa.scalar(label), batch.num_rows))
            for number, (batch, at, label) in enumerate(parts)
        ]
        same = " AND ".join(f"new.{identifier(name)} = old.{identifier(name)}" for name in key)
        with connect(io=table.io) as connection:
            connection.register("new", pa.concat_tables(rows, promote_options="permissive"))
            connection.execute(
                f"CREATE TEMP TABLE old AS SELECT * FROM ({view_sql(table)}) AS old"
                f" WHERE EXISTS (SELECT 1 FROM new WHERE {same})"
            )
            sql = f"SELECT DISTINCT _part, _row FROM new JOIN old ON {same} WHERE {newer}"
            for part, row in connection.sql(sql).fetchall():
                found[part].add(row)
        return found

    def _newer(self) -> str | None:
        """Return the condition of a row `old` of the table that stays where a row `new` with its key arrives."""
        plan = self.plan
        if not plan.unique_key:
            return None
        if plan.write == "merge":
            if order_by := plan.options.order_by:
                return f"old.{identifier(order_by)} > new.{identifier(order_by)}"
            # The last load wins, and the row's own was the one that set it aside.
            return f"old.{identifier(INGESTED_AT_COLUMN)} > new._at"
        # A key is one row of a load.
        told = {label: rows_in(plan, self.table, keys) for label, keys in self.partitions.items()}
        parts = [f"(new._label = {literal(label)} AND ({where.rows}))" for label, where in told.items() if where]
        return " OR ".join(parts) or None


def rows_in(plan: LoadPlan, table: Table | None, keys: Sequence[str]) -> Where | None:
    """Return the rows of a table that loads of some partitions wrote; `None` where the rows do not tell it."""
    if plan.definition is None:
        return Where(AlwaysTrue(), "true") if plan.write == "replace_partition" else None
    return rows_of_partitions(plan, table, keys)


def _require_together(
    plan: LoadPlan, table: Table | None, partitions: Mapping[str, Sequence[str]], staged: Staging
) -> None:
    """Check what only all rows of a partition can tell: unique values, and checks of whole frames.

    Where the rows do not tell which load brought them, values are unique among the rows that arrive.

    Raises:
        ContractError: The rows of these partitions break the contract together.
    """
    if plan.contract is None or not plan.options.validate or not staged.files.rows:
        return
    keys = list(dict.fromkeys(key for some in partitions.values() for key in some))
    whole, there = "SELECT *, true AS _new FROM {rows}", rows_in(plan, table, keys)
    if there is not None and table is not None:
        whole += f" UNION ALL BY NAME SELECT *, false AS _new FROM ({view_sql(table)}) AS old WHERE ({there.rows})"
        if plan.write == "merge":
            same = " AND ".join(f"new.{identifier(name)} = old.{identifier(name)}" for name in plan.unique_key)
            whole += f" AND NOT EXISTS (SELECT 1 FROM {{rows}} AS new WHERE {same})"
    problems = []
    for columns in plan.contract.unique:
        names = ", ".join(map(identifier, columns))
        sql = f"SELECT {names} FROM ({whole}) GROUP BY {names} HAVING count(*) > 1 AND bool_or(_new) LIMIT 3"
        if twice := staged.query(sql).fetchall():
            shown = ", ".join(str(row if len(row) > 1 else row[0]) for row in twice)
            problems.append(f"{listed(columns)} must be unique, and would be there twice: {shown}")
    if problems:
        raise ContractError(
            f"{'; '.join(problems)}. Nothing was written.",
            where=f"table {plan.table}",
            fix="correct these rows, leave them out, or drop them: `cascade quarantine drop`.",
        )
    if there is None:
        return
    names = ", ".join(identifier(f.name) for f in staged.files.schema.fields)
    plan.contract.check_together(
        lambda: staged.query(f"SELECT {names} FROM ({whole})").to_arrow_table(), nothing_came=False
    )
