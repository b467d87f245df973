"""Partitions of time in the code of a workflow: which of them a row belongs to, and where one begins and ends."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

__all__ = ["UNITS", "Slices", "key_of", "midnight", "recent_start"]

_DAY = "begin = dt.datetime.fromisoformat(partition_date)"
#: The words of `--partitions`; and how a workflow gets the first and the next moment of a partition.
UNITS: Mapping[str, tuple[str, str]] = {
    "hourly": ('begin = dt.datetime.strptime(partition_date, "%Y-%m-%d-%H:%M")', "begin + dt.timedelta(hours=1)"),
    "daily": (_DAY, "begin + dt.timedelta(days=1)"),
    "weekly": (_DAY, "begin + dt.timedelta(days=7)"),
    "monthly": (_DAY, "(begin + dt.timedelta(days=31)).replace(day=1)"),
}


@dataclass(frozen=True)
class Slices:
    """The partitions of a table.

    Attributes:
        unit: A word of `UNITS`.
        start: The first day.
        column: The column that says which partition a row belongs to.
        type: The type of its values in the source.
        between: What stands between day and hour, where the values are text.
    """

    unit: str
    start: dt.date
    column: str
    type: pa.DataType
    between: str = "T"

    @property
    def definition(self) -> str:
        """The option `partitions` as Python."""
        return f'{self.unit}(start="{key_of("daily" if self.unit == "hourly" else self.unit, midnight(self.start))}")'

    @property
    def lines(self) -> str:
        """The lines of the function that say where the partition begins and ends."""
        begin, end = UNITS[self.unit]
        return f"    {begin}\n    end = {end}\n"

    @property
    def bounds(self) -> tuple[str, str]:
        """The two moments, as the cursor of the source has them."""
        if pa.types.is_date(self.type):
            return "begin.date()", "end.date()"
        if pa.types.is_timestamp(self.type):
            zone = ".replace(tzinfo=dt.UTC)" if self.type.tz else ""
            return f"begin{zone}", f"end{zone}"
        form = f"%Y-%m-%d{self.between}%H:%M" if self.unit == "hourly" else "%Y-%m-%d"
        return f'f"{{begin:{form}}}"', f'f"{{end:{form}}}"'


def key_of(unit: str, moment: dt.datetime) -> str:
    """Return the partition that a moment belongs to (UTC); weeks begin on Sunday."""
    day = moment.date()
    if unit == "weekly":
        day -= dt.timedelta(days=(day.weekday() + 1) % 7)
    if unit == "monthly":
        day = day.replace(day=1)
    return f"{moment:%Y-%m-%d-%H}:00" if unit == "hourly" else day.isoformat()


def recent_start(unit: str) -> dt.date:
    """Return a first day that makes some partitions, and not thousands."""
    today = dt.datetime.now(dt.UTC).date()
    return today - dt.timedelta(days={"hourly": 1, "daily": 7, "weekly": 28}.get(unit, 92))


def midnight(day: dt.date) -> dt.datetime:
    """Return the first moment of a day."""
    return dt.datetime(day.year, day.month, day.day)
