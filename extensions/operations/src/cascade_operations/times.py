"""What a time means for partitions of time: a date covers its hours, a month its days."""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

__all__ = ["ends_in", "holder_of"]

# How people write a time, and when it ends.
_WRITTEN: dict[str, Callable[[dt.datetime], dt.datetime]] = {
    "%Y": lambda begin: begin.replace(year=begin.year + 1),
    "%Y-%m": lambda begin: (begin + dt.timedelta(days=31)).replace(day=1),
    "%Y-%m-%d": lambda begin: begin + dt.timedelta(days=1),
    "%Y-%m-%d-%H:%M": lambda begin: begin + dt.timedelta(hours=1),
}


def ends_in(definition: dg.PartitionsDefinition[Any], keys: Sequence[str], text: str) -> tuple[str | None, str | None]:
    """Return the partition that begins when a time begins, and the one that ends when it ends.

    A time may begin before the first partition of all, and end after the last one. `None`: there is no such partition.

    Args:
        definition: The partitions.
        keys: All of them, in their order.
        text: A time: `2024`, `2024-01`, `2024-01-31`, `2024-01-31-06:00`.
    """
    if not keys or not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return None, None
    if (span := _span(definition, text)) is None:
        return None, None
    (begin, end), window = span, definition.time_window_for_partition_key
    first = bisect_left(keys, begin, key=lambda key: window(key).start)
    last = bisect_right(keys, end, key=lambda key: window(key).end) - 1
    low = keys[first] if first < len(keys) else None
    high = keys[last] if last >= 0 else None
    # Only what there is at all may be less than the time.
    if low and window(low).start != begin and (low != keys[0] or window(low).start >= end):
        low = None
    if high and window(high).end != end and (high != keys[-1] or window(high).end <= begin):
        high = None
    return low, high


def holder_of(definition: dg.PartitionsDefinition[Any], keys: Sequence[str], text: str) -> str | None:
    """Return the partition in which a time lies, such as the month of a date; `None` when there is none."""
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition) or (span := _span(definition, text)) is None:
        return None
    window = definition.time_window_for_partition_key
    at = bisect_right(keys, span[0], key=lambda key: window(key).start) - 1
    return keys[at] if at >= 0 and window(keys[at]).end >= span[1] else None


def _span(definition: dg.TimeWindowPartitionsDefinition, text: str) -> tuple[dt.datetime, dt.datetime] | None:
    """Return when a time begins and ends, in the time zone of the partitions; `None` when the text is no time."""
    for written, end_of in _WRITTEN.items():
        try:
            begin = dt.datetime.strptime(text, written).replace(tzinfo=ZoneInfo(definition.timezone))
        except ValueError:
            continue
        return begin, end_of(begin)
    return None
