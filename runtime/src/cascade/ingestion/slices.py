"""Which rows belong to which partitions: in a batch, in a table, and under a label."""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.schema import Schema
from pyiceberg.types import NestedField

from cascade.errors import IngestionError
from cascade.iceberg.rows import Where, all_of, any_of, one_of, within
from cascade.iceberg.schema import arrow_schema
from cascade.ingestion.partitions import dimensions_of, parts_of

__all__ = ["Span", "covers", "ends_of", "label_of", "partition_of", "rows_of", "spans"]

_Definition = dg.PartitionsDefinition[Any]


class Span(NamedTuple):
    """Partitions without a gap between them, and the time that they cover, `begin <= time < end`, in UTC."""

    first: str
    last: str
    begin: dt.datetime
    end: dt.datetime


def spans(definition: dg.TimeWindowPartitionsDefinition, ends: Iterable[tuple[str, str]]) -> list[Span]:
    """Join ranges of partitions, each given as its first and last key, where they touch or overlap."""
    window = definition.time_window_for_partition_key
    joined: list[Span] = []
    for begin, end, first, last in sorted((window(low).start, window(high).end, low, high) for low, high in ends):
        span = Span(first, last, begin.astimezone(dt.UTC), end.astimezone(dt.UTC))
        if joined and span.begin <= joined[-1].end:
            before = joined.pop()
            newest = max(before, span, key=lambda one: one.end)
            span = before._replace(last=newest.last, end=newest.end)
        joined.append(span)
    return joined


def partition_of(definition: _Definition, keys: Sequence[str], columns: Sequence[pa.ChunkedArray]) -> pa.Array:
    """Return for each row the position of its partition in `keys`, null outside of them; by a column per dimension.

    Partitions of time need timestamps (naive ones are UTC) or dates; for others the value's text is the key.

    Raises:
        IngestionError: The type of a column cannot tell the partition.
    """
    found, wanted = pa.scalar(0, pa.int64()), np.zeros(len(keys), np.int64)
    told = zip(dimensions_of(definition), _by_dimension(definition, keys), columns, strict=True)
    for dimension, part, values in told:  # each is a digit of a number, which is that of one of the partitions or none
        known = {key: i for i, key in enumerate(dict.fromkeys(part))}
        found = pc.add(pc.multiply(found, len(known)), _position(dimension, list(known), values))
        wanted = wanted * len(known) + np.array([known[key] for key in part], np.int64)
    return pc.index_in(found, value_set=pa.array(wanted))


def _by_dimension(definition: _Definition, keys: Sequence[str]) -> list[tuple[str, ...]]:
    """Return for each dimension its part of the keys."""
    return list(zip(*(parts_of(definition, key) for key in keys), strict=True)) or [()] * len(dimensions_of(definition))


def _position(definition: _Definition, keys: Sequence[str], values: pa.ChunkedArray) -> pa.Array:
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return pc.index_in(values.cast(pa.string()).combine_chunks(), value_set=pa.array(list(keys), pa.string()))
    order, lows, highs = _windows(definition, tuple(keys), values.type)
    moments = _integers(values.combine_chunks())
    found = np.searchsorted(lows, moments, side="right") - 1
    outside = (found < 0) | (moments >= highs[np.maximum(found, 0)]) | values.is_null().to_numpy()
    return pa.array(order[np.maximum(found, 0)], pa.int32(), mask=outside)


@functools.lru_cache(maxsize=4)
def _windows(
    definition: dg.TimeWindowPartitionsDefinition, keys: tuple[str, ...], kind: pa.DataType
) -> tuple[Any, Any, Any]:
    """Return positions of partitions in the order of time, and where each begins and ends; asked for by each batch."""
    windows = [definition.time_window_for_partition_key(key) for key in keys]
    order = sorted(range(len(keys)), key=lambda i: windows[i].start)
    lows, highs = (
        _integers(pa.array([_bound(definition, moment, kind) for moment in moments], kind))
        for moments in ([windows[i].start for i in order], [windows[i].end for i in order])
    )
    return np.array(order), lows, highs


def rows_of(definition: _Definition, keys: Sequence[str], columns: Sequence[NestedField | None]) -> Where:
    """Return the rows of a table that belong to some partitions, by the columns of those dimensions that have one."""
    given = zip(dimensions_of(definition), columns, _by_dimension(definition, keys), strict=True)
    (one, column, part), *further = [(of, column, part) for of, column, part in given if column is not None]
    if not further:
        return _rows(one, list(dict.fromkeys(part)), column)
    ((other, beside, others),) = further
    groups: dict[tuple[str, ...], list[str]] = {}
    for key, pairs in itertools.groupby(sorted(zip(others, part, strict=True)), key=lambda pair: pair[0]):
        groups.setdefault(tuple(with_key for _, with_key in pairs), []).append(key)
    return any_of([all_of(_rows(one, some, column), _rows(other, each, beside)) for some, each in groups.items()])


def _rows(definition: _Definition, keys: Sequence[str], column: NestedField) -> Where:
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return one_of(column.name, keys)
    kind = arrow_schema(Schema(column)).field(column.name).type
    bounds = [(span.begin, span.end) for span in spans(definition, zip(keys, keys, strict=True))]
    return any_of([within(column, *(_bound(definition, end, kind).isoformat() for end in ends)) for ends in bounds])


def label_of(definition: _Definition | None, keys: Sequence[str]) -> str:
    """Return the label of rows that do not tell their partition: all keys of the run, in order."""
    if len(keys) < 2:
        return "".join(keys)
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return f"{keys[0]}..{keys[-1]}"
    return json.dumps(list(keys), ensure_ascii=False)


def covers(definition: _Definition, keys: Sequence[str], label: str) -> bool:
    """Say whether all partitions that a label means are among the keys."""
    ends = ends_of(definition, label)
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition) or len(ends) == 1:
        return set(ends) <= set(keys)
    return any(
        span.first <= ends[0] and ends[-1] <= span.last for span in spans(definition, zip(keys, keys, strict=True))
    )


def ends_of(definition: _Definition, label: str) -> list[str]:
    """Return first and last of the partitions of a label, or all of them where they have no order."""
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return label.split("..")
    try:
        keys = json.loads(label) if label.startswith('["') else []
    except ValueError:
        keys = []
    return keys if len(keys) > 1 else [label]


def _bound(definition: dg.TimeWindowPartitionsDefinition, moment: dt.datetime, kind: pa.DataType) -> Any:
    """Return a boundary of partitions as a value of the partition column."""
    if pa.types.is_date(kind) and definition.cron_schedule.startswith("0 0 "):
        # A day is a day of the partitions' time zone: in UTC it may be another one.
        return moment.astimezone(ZoneInfo(definition.timezone)).date()
    if pa.types.is_timestamp(kind):
        return moment.astimezone(dt.UTC) if kind.tz else moment.astimezone(dt.UTC).replace(tzinfo=None)
    hourly = "of hours of a day must be a timestamp" if pa.types.is_date(kind) else "must be a timestamp or a date"
    raise IngestionError(
        f"A partition column {hourly}, not {kind}.", fix="declare it as one, or name another partition_column."
    )


def _integers(values: pa.Array) -> Any:
    """Return times as integers, null as 0."""
    width = pa.int32() if pa.types.is_date32(values.type) else pa.int64()
    return pc.fill_null(values.cast(width), 0).to_numpy(zero_copy_only=False)
