"""Which rows belong to which partitions: found in a batch, and selected in a table."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysFalse, BooleanExpression, Or
from pyiceberg.schema import Schema
from pyiceberg.types import NestedField

from cascade.errors import IngestionError
from cascade.iceberg.read import duckdb_type, quote, text
from cascade.iceberg.rows import Where, one_of, within
from cascade.iceberg.schema import arrow_schema
from cascade.ingestion.partitions import time_ranges

__all__ = ["key_ranges", "label_of", "partition_of", "rows_of"]

_Definition = dg.PartitionsDefinition[Any]


def partition_of(definition: _Definition, keys: Sequence[str], values: pa.ChunkedArray) -> pa.Array:
    """Return to which partition each value of a partition column belongs.

    Args:
        definition: The partitions.
        keys: Those of the run.
        values: The column: timestamps or dates for partitions of time (naive ones are UTC), else anything.

    Returns:
        Positions in `keys`; null for a value outside of them, and for null.

    Raises:
        IngestionError: The type of the column cannot tell the partition.
    """
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return pc.index_in(values.cast(pa.string()).combine_chunks(), value_set=pa.array(list(keys), pa.string()))
    windows = [definition.time_window_for_partition_key(key) for key in keys]
    order = sorted(range(len(keys)), key=lambda i: windows[i].start)
    lows, highs = (
        _integers(pa.array([_bound(definition, moment, values.type) for moment in moments], values.type))
        for moments in ([windows[i].start for i in order], [windows[i].end for i in order])
    )
    moments = _integers(values.combine_chunks())
    found = np.searchsorted(lows, moments, side="right") - 1
    outside = (found < 0) | (moments >= highs[np.maximum(found, 0)]) | values.is_null().to_numpy()
    return pa.array(np.array(order)[np.maximum(found, 0)], pa.int32(), mask=outside)


def rows_of(definition: _Definition, keys: Sequence[str], column: NestedField) -> Where:
    """Return the rows of a table that belong to partitions.

    Args:
        definition: The partitions.
        keys: Some of them.
        column: The table's column that tells the partition: by its time, else by its text.
    """
    name = column.name
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return Where(one_of(name, keys), f"{quote(name)} IN ({', '.join(text(key) for key in keys)})")
    files: BooleanExpression = AlwaysFalse()
    conditions = []
    word, kind = duckdb_type(column.field_type), arrow_schema(Schema(column)).field(name).type
    for begin, end in time_ranges(definition, keys):
        low, high = (_bound(definition, moment, kind).isoformat() for moment in (begin, end))
        files = Or(files, within(name, low, high))
        conditions.append(f"({quote(name)} >= {word} {text(low)} AND {quote(name)} < {word} {text(high)})")
    return Where(files, " OR ".join(conditions) or "false")


def key_ranges(definition: _Definition, keys: Sequence[str]) -> list[tuple[str, str]]:
    """Return partitions of time as ranges without gaps, first and last key; none for others, which have no order."""
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return []
    starts = {definition.time_window_for_partition_key(key).start: key for key in keys}
    ends = {definition.time_window_for_partition_key(key).end: key for key in keys}
    ranges = []
    for begin, end in time_ranges(definition, keys):
        first = next(key for start, key in starts.items() if start.astimezone(dt.UTC) == begin)
        ranges.append((first, next(key for stop, key in ends.items() if stop.astimezone(dt.UTC) == end)))
    return ranges


def label_of(definition: _Definition | None, keys: Sequence[str]) -> str:
    """Return what a row is labelled with that does not tell its partition: that of the run, or all of them."""
    if len(keys) < 2:
        return "".join(keys)
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return f"{keys[0]}..{keys[-1]}"
    return json.dumps(list(keys), ensure_ascii=False)


def _bound(definition: dg.TimeWindowPartitionsDefinition, moment: dt.datetime, kind: pa.DataType) -> Any:
    """Return a boundary of partitions as a value of the partition column."""
    if pa.types.is_date(kind) and not isinstance(definition, dg.HourlyPartitionsDefinition):
        # A day is one where the partitions are at home: in UTC it may be another one.
        return moment.astimezone(ZoneInfo(definition.timezone)).date()
    if pa.types.is_timestamp(kind):
        return moment.astimezone(dt.UTC) if kind.tz else moment.astimezone(dt.UTC).replace(tzinfo=None)
    hourly = "of hourly partitions must be a timestamp" if pa.types.is_date(kind) else "must be a timestamp or a date"
    raise IngestionError(
        f"A partition column {hourly}, not {kind}.", fix="declare it as one, or name another partition_column."
    )


def _integers(values: pa.Array) -> Any:
    """Return times as integers, null as 0."""
    width = pa.int32() if pa.types.is_date32(values.type) else pa.int64()
    return pc.fill_null(values.cast(width), 0).to_numpy(zero_copy_only=False)
