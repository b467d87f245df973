"""Rows set aside: the quarantine table of a table, and which of its rows a load replaces."""

from __future__ import annotations

import datetime as dt
import json
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import ListType, NestedField, StringType, TimestamptzType

from cascade.catalog import check_table_name
from cascade.duck.session import connect
from cascade.duck.sql import identifier
from cascade.errors import CatalogError
from cascade.iceberg.read import view_sql
from cascade.iceberg.rows import NO_ROWS, Where, all_of, any_of, one_of
from cascade.iceberg.schema import arrow_schema
from cascade.ingestion.cast import cast_column
from cascade.ingestion.slices import covers, ends_of, label_of
from cascade.ingestion.text import json_text
from cascade.names import INGESTED_AT_COLUMN, QUARANTINE

if TYPE_CHECKING:
    from cascade.iceberg.write import Replace, Staging
    from cascade.ingestion.plan import LoadPlan

__all__ = ["SCHEMA", "Aside", "quarantine_table", "replaced_rows", "to_arrow"]

#: Columns of every quarantine table.
SCHEMA = Schema(
    NestedField(
        1, "partition", StringType(), doc="Partition of the row; the run's, as first..last, where none is told"
    ),
    NestedField(2, "row", StringType(), doc="The row as JSON"),
    NestedField(3, "reasons", ListType(4, StringType(), element_required=False), doc="Why it was set aside"),
    NestedField(5, INGESTED_AT_COLUMN, TimestamptzType(), doc="When the run set it aside"),
    NestedField(6, "key", StringType(), doc="Values of the unique key as a JSON list; null where one is missing"),
    NestedField(7, "run", StringType(), doc="Id of the run that set it aside"),
    NestedField(8, "source", StringType(), doc="The function that fetched it, or the file that it was replayed from"),
)


class Aside(NamedTuple):
    """A row that is set aside."""

    row: str  # as JSON
    reasons: list[str]
    partition: str  # the label of the run's partitions where the row does not tell its own
    key: str | None  # the values of its key as a JSON list; None without a key, or where a value is missing


def quarantine_table(table: str) -> str:
    """Return the name of a table's quarantine table: `quarantine.raw__orders` for `raw.orders`.

    Where two tables would share the name, or it would be too long, it ends with a checksum of the table's own name.
    """
    namespace, name = table.split(".")
    found = f"{QUARANTINE}.{namespace}__{name}"
    try:
        if "__" not in namespace and not namespace.endswith("_") and not name.startswith("_"):
            return check_table_name(found)
    except CatalogError:
        pass
    return f"{found[:110]}__{zlib.crc32(table.encode()):08x}"


def to_arrow(rows: Iterable[Aside], run_id: str, source: str) -> pa.Table:
    """Return rows as they are written to the quarantine table."""
    common = {INGESTED_AT_COLUMN: dt.datetime.now(dt.UTC), "run": run_id, "source": source}
    return pa.Table.from_pylist([{**row._asdict(), **common} for row in rows], arrow_schema(SCHEMA))


def replaced_rows(plan: LoadPlan, keys: Sequence[str], rejected: Sequence[Aside], staged: Staging) -> Replace:
    """Return which rows of the quarantine table a load replaces; no file is rewritten when there are none.

    With partitions: the rows of these partitions, whichever run set them aside. A row that does not tell its partition
    is replaced when all partitions of its run are loaded again, or when it is set aside again. Without partitions:
    the rows whose key was loaded or set aside again. Without a key no two rows are known to be the same: none.
    """

    def where(table: Table) -> Where:
        if table.current_snapshot() is None:
            return NO_ROWS
        with connect(io=table.io) as connection:
            rows = connection.sql(view_sql(table))
            if plan.definition is not None:
                labels = {label for (label,) in rows.select("partition").distinct().fetchall()}
                meant = _of_partitions(plan.definition, keys, rejected, labels)
            elif plan.write == "replace_partition":
                meant = Where(AlwaysTrue(), "true")
            else:
                again = {row.key for row in rejected if row.key}
                waiting = {key for (key,) in rows.select("key").distinct().fetchall() if key}
                if waiting and plan.unique_key and staged.files.rows:
                    loaded = staged.query(f"SELECT {', '.join(map(identifier, plan.unique_key))} FROM {{rows}}")
                    for batch in loaded.to_arrow_reader():
                        again |= _loaded_keys(batch, plan.unique_key, waiting)
                without = {row.row for row in rejected if plan.unique_key and not row.key}
                meant = any_of([one_of("key", again), one_of("row", without)])
            return meant if rows.filter(meant.rows).limit(1).fetchall() else NO_ROWS

    return where


def _of_partitions(
    definition: dg.PartitionsDefinition[Any], keys: Sequence[str], rejected: Sequence[Aside], labels: set[str]
) -> Where:
    run = label_of(definition, keys)
    settled = {label for label in labels if label == run or covers(definition, keys, label)}
    unsettled = {label for label in labels - settled if len(ends_of(definition, label)) > 1}
    again = {row.row for row in rejected if row.partition == run}
    return any_of([one_of("partition", settled), all_of(one_of("partition", unsettled), one_of("row", again))])


def _loaded_keys(rows: pa.RecordBatch, key: Sequence[str], among: set[str]) -> set[str]:
    """Return which keys, as JSON lists, come among the rows of a load."""
    # Keys of an earlier unique_key may have more columns or fewer.
    fitting = [values for one in among if len(values := json.loads(one)) == len(key)]
    if not fitting:
        return set()
    mask: Any = pa.scalar(True)
    for column, values in zip(key, zip(*fitting, strict=True), strict=True):
        wanted, _ = cast_column(list(values), rows[column].type)
        mask = pc.and_(mask, pc.is_in(rows[column], value_set=wanted.combine_chunks()))
    return {json_text(list(row.values())) for row in rows.filter(mask).to_pylist()} & among
