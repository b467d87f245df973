"""The rows of one load on their way: fetched, cast, checked, and set aside where they break the contract."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.schema import Schema

from cascade.duck.sql import identifier
from cascade.errors import ContractError, IngestionError, SchemaMismatchError, count
from cascade.iceberg.schema import arrow_schema
from cascade.ingestion.forms import FetchContext
from cascade.ingestion.plan import LoadPlan
from cascade.ingestion.quarantine import Aside
from cascade.ingestion.rows import to_batches
from cascade.ingestion.slices import label_of, partition_of
from cascade.ingestion.text import json_text, listed, shortened
from cascade.names import INGESTED_AT_COLUMN, PARTITION_COLUMN

if TYPE_CHECKING:
    from cascade.iceberg.write import Staging
    from cascade.ingestion.load import LoadResult

__all__ = ["OURS", "Incoming"]

#: The columns that Cascade adds.
OURS = (INGESTED_AT_COLUMN, PARTITION_COLUMN)

_TIME = pa.timestamp("us", "UTC")
_SHOWN = 5


@dataclass
class Incoming:
    """The rows of one load, and what is known of them when all batches were drawn."""

    plan: LoadPlan
    schema: Schema
    keys: list[str]  # the partitions to load
    context: FetchContext  # what forms of rows may know, and what they say
    result: LoadResult  # counts the rows
    rejected: list[Aside] = field(default_factory=list)  # at most one more than the limit
    checked: bool = False  # whether there was a row that the contract could look at

    def batches(self) -> Iterator[pa.Table]:
        """Yield the rows to stage.

        Raises:
            ContractError: Rows break the contract, and they may not, or too many of them do.
            IngestionError: Rows lie outside the run's partitions, or lack a column.
        """
        plan, result = self.plan, self.result
        now = pa.scalar(dt.datetime.now(dt.UTC), _TIME)
        absent: list[frozenset[str]] = []
        columns = [f for f in self.schema.fields if f.name not in OURS]
        schema = arrow_schema(Schema(*columns)) if columns else None
        declared = {f.name for f in plan.schema.fields} if plan.schema else set()
        # One call for all partitions, so that small ones share a batch, unless each row must know its own.
        alone = plan.tagged or (plan.per_key and plan.options.on_invalid == "quarantine")
        for keys in [[key] for key in self.keys] if alone else [self.keys]:
            label = label_of(plan.definition, keys)
            for batch in to_batches(
                plan.fetch(keys),
                schema=schema,
                policy=plan.policy,
                context=self.context,
                inferred=set(schema.names if schema else ()) - declared,
            ):
                schema = batch.rows.schema  # inferred types hold for the whole load
                absent.append(batch.absent)
                result.extracted += batch.rows.num_rows + len(batch.rejected)
                result.dropped |= batch.extra
                texts, reasons = zip(*batch.rejected, strict=True) if batch.rejected else ((), ())
                self._set_aside(batch.uncast, texts, reasons, label)
                rows = self._fulfilling(batch.rows, keys, label) if batch.rows.num_rows else batch.rows
                if result.preview is None and rows.num_rows:
                    result.preview = rows.slice(0, _SHOWN)
                rows = rows.append_column(INGESTED_AT_COLUMN, pa.repeat(now, rows.num_rows))
                if plan.tagged:
                    rows = rows.append_column(PARTITION_COLUMN, pa.repeat(pa.scalar(label), rows.num_rows))
                yield rows
        if absent:
            never = frozenset.intersection(*absent)
            result.absent = never & plan.contract.required if plan.contract else never
        if result.absent and plan.policy == "strict":
            raise SchemaMismatchError(
                f"No fetched row has {listed(sorted(result.absent))}; nothing was written.",
                where=f'table {plan.table}, schema_policy="strict"',
                fix="correct the source; where it renamed or dropped the column, change the contract and let `cascade "
                f"schema plan {plan.table}` say what becomes of the table's; or make it optional in the contract.",
            )
        self._require_few_rejected()

    def _fulfilling(self, rows: pa.Table, keys: Sequence[str], label: str) -> pa.Table:
        """Return the rows that have a key and fulfil the contract; set the others aside."""
        self._require_columns(rows)
        reasons: dict[int, list[str]] = {}
        if self.plan.contract is not None and self.plan.options.validate:
            reasons = self.plan.contract.check(rows)
        for column in self.plan.unique_key:
            _add(reasons, column, pc.is_null(rows[column]), "is part of the key and must not be null")
        self.checked = True
        self._require_inside(rows, keys, reasons)
        if not reasons:
            return rows
        bad = sorted(reasons)
        broken = rows.take(bad[: self._room()])
        self._set_aside(broken, map(json_text, broken.to_pylist()), [reasons[i] for i in bad], label)
        return rows.filter(pa.array([i not in reasons for i in range(rows.num_rows)]))

    def _set_aside(
        self, rows: pa.Table, texts: Iterable[str], reasons: Sequence[list[str]], label: str, labels: Sequence[str] = ()
    ) -> None:
        """Count rejected rows, and keep some: as values (null where a column cannot hold one), as JSON, and why."""
        kept = min(len(reasons), self._room())
        self.result.quarantined += len(reasons)
        columns, definition, key = self.plan.partition_columns, self.plan.definition, self.plan.unique_key
        partitions = list(labels) or [label] * kept
        if definition and columns and {*columns} <= {*rows.column_names} and label not in self.keys:
            found = partition_of(definition, self.keys, rows.slice(0, kept).select(columns).columns).to_pylist()
            partitions = [label if i is None else self.keys[i] for i in found]
        names = [name for name in key if name in rows.column_names]
        values = rows.slice(0, kept).select(names).to_pylist() if names else [{}] * kept
        for row, text, why, partition in zip(values, texts, reasons, partitions, strict=False):
            found_key = [row.get(name) for name in key]
            known = found_key and None not in found_key
            self.rejected.append(Aside(text, why, partition, json_text(found_key) if known else None))

    @property
    def _may_set_aside(self) -> bool:
        return self.plan.options.on_invalid == "quarantine"

    def _room(self) -> int:
        """How many more rejected rows are kept: one beyond the limit is enough to know."""
        return max(self.plan.options.quarantine_limit + 1 - len(self.rejected), 0)

    def _require_columns(self, rows: pa.Table) -> None:
        self.plan.require_columns(rows.column_names, "The fetched rows have", IngestionError)
        if nested := [name for name in self.plan.unique_key if pa.types.is_nested(rows[name].type)]:
            raise IngestionError(
                f"`{nested[0]}` is a {rows[nested[0]].type}, which cannot be a key.",
                where=f"table {self.plan.table}, unique_key",
                fix="name another column in unique_key, or return the value as text.",
            )

    def _require_inside(self, rows: pa.Table, keys: Sequence[str], reasons: dict[int, list[str]]) -> None:
        """Refuse rows outside the run's partitions, or add them to those that are set aside."""
        columns, definition = self.plan.partition_columns, self.plan.definition
        if not columns or definition is None:
            return
        values = rows.select(columns)
        outside = pc.is_null(partition_of(definition, self.keys, values.columns))
        if self._may_set_aside:
            _add(reasons, ", ".join(columns), outside, "lies outside the partitions of this run")
            return
        if reasons:  # a null partition value is outside too, unless its row is refused for another reason
            refused = pa.array([position in reasons for position in range(rows.num_rows)])
            null = functools.reduce(pc.or_, (one.is_null().combine_chunks() for one in values.columns))
            outside = pc.and_not(outside, pc.and_(refused, null))
        if len(positions := pc.indices_nonzero(outside)):
            shown = ["|".join(map(str, row.values())) for row in values.take(positions[:_SHOWN]).to_pylist()]
            raise IngestionError(
                f"Outside the partitions of this run: {count(len(positions), 'row')}.",
                where=f"table {self.plan.table}, column {'|'.join(columns)}, for example {', '.join(shown)}",
                fix=f"return only rows of the partitions asked for ({keys[0]} .. {keys[-1]}).",
            )

    def require_unique(self, staged: Staging) -> None:
        """Refuse rows that share a value which the contract wants once, or set all of them aside.

        Raises:
            ContractError: There are such rows, and they may not be set aside, or too many were.
        """
        contract, label = self.plan.contract, label_of(self.plan.definition, self.keys)
        problems, twice, whys = list[str](), list[str](), list[str]()
        for columns in contract.unique if contract and staged.files.rows else ():
            names = ", ".join(map(identifier, columns))
            found = staged.query(
                f"SELECT {names}, count(*) FROM {{rows}} GROUP BY {names} HAVING count(*) > 1 LIMIT 3"
            ).fetchall()
            if found:
                shown = ", ".join(f"{row[:-1] if len(row) > 2 else row[0]} ({row[-1]} times)" for row in found)
                whys.append(f"{', '.join(f'`{c}`' for c in columns)} must be unique")
                problems.append(f"{whys[-1]}: {shown}")
                twice.append(f"count(*) OVER (PARTITION BY {names}) > 1")
        if problems and not self._may_set_aside:
            raise ContractError(
                "; ".join(problems) + "; nothing was written.",
                where=f"table {self.plan.table}",
                fix="correct the source, or name the column in unique_key: then the last row wins; or set such rows "
                'aside: on_invalid="quarantine".',
            )
        if not problems:
            return
        either, before = " OR ".join(twice), staged.files.rows
        broken = staged.query(
            f"SELECT *, [{', '.join(twice)}] AS _cascade_twice FROM {{rows}} QUALIFY {either} LIMIT {self._room()}"
        ).to_arrow_table()
        staged.keep(f"NOT ({either})")
        reasons = [
            [why for why, is_so in zip(whys, row, strict=True) if is_so] for row in broken["_cascade_twice"].to_pylist()
        ]
        labels = broken[PARTITION_COLUMN].to_pylist() if self.plan.tagged else []
        broken = broken.drop_columns(["_cascade_twice", *OURS[: 1 + self.plan.tagged]])
        self._set_aside(broken, map(json_text, broken.to_pylist()), reasons, label, labels)
        self.result.quarantined += before - staged.files.rows - len(reasons)
        self._require_few_rejected()

    def _require_few_rejected(self) -> None:
        """Decide, when all rows were seen, whether the rejected ones may be set aside."""
        plan, bad, limit = self.plan, self.result.quarantined, self.plan.options.quarantine_limit
        quarantine, share = plan.options.on_invalid == "quarantine", plan.options.quarantine_fraction
        if not bad or (quarantine and bad <= min(limit, share * self.result.extracted)):
            return
        more = f"more than quarantine_{f'limit={limit}' if bad > limit else f'fraction={share}'}"
        shown = "\n".join(f"    {'; '.join(r.reasons)} in {shortened(r.row, 300)}" for r in self.rejected[:_SHOWN])
        contract = f"the contract {plan.contract.name}" if plan.contract else "the table's columns"
        other = "the contract" if plan.contract else "declare other types with `iceberg_schema=` for a new table"
        raise ContractError(
            f"{bad:,} of {count(self.result.extracted, 'row')} break {contract}; nothing was written.\n{shown}",
            where=f"table {plan.table}" + (f", {more}" if quarantine else ""),
            fix=f"correct the source or {other}"
            + (", or raise the limit." if quarantine else ', or set such rows aside: on_invalid="quarantine".'),
        )


def _add(reasons: dict[int, list[str]], column: str, where: pa.Array | pa.ChunkedArray, why: str) -> None:
    """Add a reason to rows; one whose column is named already needs no second one."""
    for position in pc.indices_nonzero(where).to_pylist():
        found = reasons.setdefault(position, [])
        if not any(f"`{column}`" in reason for reason in found):
            found.append(f"column `{column}`: {why}")
