"""The partitions that a run fills, and how many rows each of them has."""

from __future__ import annotations

import bisect
import datetime as dt
from collections.abc import Sequence

import dagster as dg

from cascade.duck.sql import identifier, literal, literals, qualified
from cascade.errors import DefinitionError
from cascade.names import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from cascade.quality import Scope

__all__ = ["partition_counts"]

# A time partition: its start, the first moment after it, its key.
_Window = tuple[dt.datetime, dt.datetime, str]


def partition_counts(scope: Scope, column: str) -> tuple[dict[str, int], str]:
    """Return rows by key of each partition of the run, empty for a run without, and the statement that counted."""
    keys, windows = _partitions(scope, column)
    if not keys:
        return {}, ""
    counts = dict.fromkeys(keys, 0)
    if windows:
        value = f"CAST({identifier(column)} AS timestamp(6))"
        condition = f"{value} >= {literal(windows[0][0])} AND {value} < {literal(max(end for _, end, _ in windows))}"
        group = f"date_trunc('{_unit(windows)}', {value})"
    else:
        group = f"CAST({identifier(column)} AS varchar)"
        condition = f"{group} IN ({literals(keys)})"
    sql = f"SELECT {group} AS part, count(*) AS n FROM {qualified(scope.table)} WHERE {condition} GROUP BY 1"
    for row in scope.query(sql):
        part, rows = row["part"], int(row["n"])
        if not windows:
            counts[part] += rows
            continue
        _, end, key = windows[bisect.bisect_right(windows, part, key=lambda window: window[0]) - 1]
        if part < end:
            counts[key] += rows
    return counts, sql


def _partitions(scope: Scope, column: str) -> tuple[Sequence[str], list[_Window]]:
    """Return the keys of the run's partitions, from its tags, and for time partitions their windows in order."""
    context, asset = scope.context, dg.AssetKey(scope.table.split("."))
    tags = context.run.tags
    first = tags.get(RANGE_START_TAG, tags.get(PARTITION_TAG))
    if first is None:
        return [], []
    last = tags.get(RANGE_END_TAG, first)
    layer = context.job_def.asset_layer
    definition = layer.get(asset).partitions_def if layer.has(asset) else None
    # A table without own partitions is checked by those of the run's job; without these too, keys are days.
    days = dg.DailyPartitionsDefinition("0001-01-02", timezone=scope.lakehouse.settings.timezone)
    definition = definition or context.job_def.partitions_def or days
    if isinstance(definition, dg.MultiPartitionsDefinition):
        raise DefinitionError(
            "`partition_column` is one column, but the table's partitions have several dimensions.",
            fix="leave `partition_column` out, or count with custom_sql.",
        )
    with dg.partition_loading_context(dynamic_partitions_store=context.instance):
        keys = [first] if first == last else definition.get_partition_keys_in_range(dg.PartitionKeyRange(first, last))
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return keys, []
    windows = ((definition.time_window_for_partition_key(key), key) for key in keys)
    # As in a load: a date is a day of the partitions' time zone, a timestamp is in UTC.
    ends = [(w.start, w.end, key) for w, key in windows]
    if not _is_date(scope, column):
        ends = [(start.astimezone(dt.UTC), end.astimezone(dt.UTC), key) for start, end, key in ends]
    return keys, sorted((start.replace(tzinfo=None), end.replace(tzinfo=None), key) for start, end, key in ends)


def _is_date(scope: Scope, column: str) -> bool:
    from pyiceberg.types import DateType

    fields = scope.lakehouse.table(scope.table).schema().fields
    return any(f.name.lower() == column.lower() and isinstance(f.field_type, DateType) for f in fields)


def _unit(windows: Sequence[_Window]) -> str:
    """Return the coarsest unit of time that all windows start on."""
    starts = [start for start, _, _ in windows]
    if any(start.minute or start.second for start in starts):
        return "minute"
    return "hour" if any(start.hour for start in starts) else "day"
