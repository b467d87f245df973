"""Rows set aside: the quarantine table of a table, and which of its rows a load replaces."""

from __future__ import annotations

import datetime as dt
import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysFalse, AlwaysTrue
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import ListType, NestedField, StringType, TimestamptzType

from cascade.catalog import check_table_name
from cascade.errors import CatalogError
from cascade.iceberg.read import connect, quote, text, texts, view_sql
from cascade.iceberg.rows import Where
from cascade.iceberg.schema import arrow_schema
from cascade.ingestion.cast import cast_column
from cascade.ingestion.text import json_text, snake_case
from cascade.names import INGESTED_AT_COLUMN, QUARANTINE

__all__ = [
    "SCHEMA",
    "Aside",
    "condition",
    "loaded_keys",
    "quarantine_table",
    "replaced_by_key",
    "replaced_rows",
    "to_arrow",
    "typed_values",
    "waiting",
]

_TIME = pa.timestamp("us", "UTC")
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
)


class Aside(NamedTuple):
    """A row that is set aside.

    Attributes:
        row: The row as JSON.
        reasons: Why.
        partition: Its partition; the label of the run's partitions where the row does not tell.
        key: The values of its key as a JSON list; `None` without a key, or where a value is missing.
    """

    row: str
    reasons: list[str]
    partition: str
    key: str | None


def quarantine_table(table: str) -> str:
    """Return the name of a table's quarantine: `quarantine.raw__orders` for `raw.orders`.

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


def to_arrow(rows: Iterable[Aside], run_id: str) -> pa.Table:
    """Return rows as they are written to the quarantine table."""
    common = {INGESTED_AT_COLUMN: dt.datetime.now(dt.UTC), "run": run_id}
    return pa.Table.from_pylist([{**row._asdict(), **common} for row in rows], arrow_schema(SCHEMA))


def typed_values(row: str, schema: pa.Schema) -> dict[str, Any]:
    """Return values of a row that could not be cast as a whole, each as its column would hold it.

    Args:
        row: The row as JSON, by the names that the source gave.
        schema: The wanted columns.

    Returns:
        Column to value; `None` where there is none, or none of the type.
    """
    by_name = {snake_case(name): value for name, value in json.loads(row).items()}
    return {f.name: cast_column([by_name.get(snake_case(f.name))], f.type)[0][0].as_py() for f in schema}


def condition(rows: Sequence[Aside], keys: Sequence[str], ranges: Sequence[tuple[str, str]], label: str) -> str:
    """Return which rows a load of partitions replaces, as SQL: those of its partitions, whichever run set them aside.

    A row whose partition is not known is replaced when all partitions of its run are loaded again, or when it comes
    again.

    Args:
        rows: The rows that this load sets aside.
        keys: The partitions of the load.
        ranges: The same as ranges without gaps, first and last key; empty where keys have no order.
        label: What rows of this load carry whose partition is not known.
    """
    first, last = ("split_part(partition, '..', 1)", "split_part(partition, '..', -1)")
    covered = [f"({first} >= {text(low)} AND {last} <= {text(high)})" for low, high in ranges]
    unknown = [f"partition = {text(label)}", *(f"(contains(partition, '..') AND {r})" for r in covered)]
    several = "contains(partition, '..')"
    if not ranges:
        several = """(starts_with(partition, '["') AND json_valid(partition))"""  # as `label_of` writes keys
        names = (
            f"""json_array_length(partition) > 1 AND list_has_all({texts(keys)}, from_json(partition, '["VARCHAR"]'))"""
        )
        unknown.append(f"CASE WHEN {several} THEN {names} END")
    again = [row.row for row in rows if row.partition == label]
    parts = [_one_of("partition", keys), *unknown]
    parts += [f"({several} AND {_one_of('row', again)})"] if again else []
    return " OR ".join(parts)


def waiting(table: Table) -> set[str]:
    """Return the keys of all rows that are set aside."""
    if "key" not in {f.name for f in table.schema().fields}:
        return set()
    with connect(io=table.io) as connection:
        sql = f"SELECT DISTINCT key FROM ({view_sql(table)}) WHERE key IS NOT NULL"
        return {key for (key,) in connection.sql(sql).fetchall()}


def loaded_keys(rows: pa.Table, key: Sequence[str], among: set[str]) -> set[str]:
    """Return which of some keys come among rows.

    Args:
        rows: Rows that are loaded.
        key: The columns of the key.
        among: Keys as JSON lists.
    """
    mask: Any = pa.scalar(True)
    # Of an earlier unique_key there may be keys with more columns or fewer.
    fitting = [values for one in among if len(values := json.loads(one)) == len(key)]
    if not fitting:
        return set()
    parts = list(zip(*fitting, strict=True))
    for column, values in zip(key, parts, strict=True):
        wanted, _ = cast_column(list(values), rows[column].type)
        mask = pc.and_(mask, pc.is_in(rows[column], value_set=wanted.combine_chunks()))
    found = rows.select(list(key)).filter(mask).to_pylist()
    return {json_text([row[column] for column in key]) for row in found} & among


def replaced_by_key(rows: Sequence[Aside], loaded: set[str], *, keyed: bool) -> str:
    """Return which rows a load without partitions replaces, as SQL: those with a key that was loaded or came again.

    Without a key nothing says that two rows are the same: none is replaced.
    """
    keys = loaded | {row.key for row in rows if row.key is not None}
    texts = [row.row for row in rows if row.key is None] if keyed else []
    parts = [_one_of(column, found) for column, found in (("key", sorted(keys)), ("row", texts)) if found]
    return " OR ".join(parts) or "false"


def replaced_rows(sql: str) -> Callable[[Table], Where]:
    """Return what selects rows of a quarantine table in a write; no file is rewritten where no row is meant."""

    def where(table: Table) -> Where:
        unknown = "key" not in {f.name for f in table.schema().fields} and quote("key") in sql
        if table.current_snapshot() is None or unknown:
            return Where(AlwaysFalse(), "false")
        with connect(io=table.io) as connection:
            hits = connection.sql(f"SELECT 1 FROM ({view_sql(table)}) WHERE {sql} LIMIT 1").fetchall()
        return Where(AlwaysTrue(), sql) if hits else Where(AlwaysFalse(), "false")

    return where


def _one_of(column: str, values: Iterable[str]) -> str:
    return f"{quote(column)} IN ({', '.join(text(value) for value in values)})"
