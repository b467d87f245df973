"""What one run fills: partitions of an ingestion asset, and which of them a table holds."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args
from zoneinfo import ZoneInfo

import dagster as dg

from cascade.config import Settings
from cascade.errors import DefinitionError

__all__ = ["Partitions", "Word", "daily", "hourly", "kind_of", "monthly", "none", "static", "weekly"]

#: Partitions that a word alone describes.
Word = Literal["hourly", "daily", "weekly", "monthly", "none"]
Unit = Word | Literal["static"]
Day: TypeAlias = str | dt.date | None

# Partitions of time: Dagster's definition, and how many hours one has at least.
_KINDS: dict[str, tuple[type[dg.TimeWindowPartitionsDefinition], int]] = {
    "hourly": (dg.HourlyPartitionsDefinition, 1),
    "daily": (dg.DailyPartitionsDefinition, 24),
    "weekly": (dg.WeeklyPartitionsDefinition, 168),
    "monthly": (dg.MonthlyPartitionsDefinition, 672),
}
# Dagster's end is exclusive, ours is the last day that is filled.
_ONE_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Partitions:
    """How an asset is sliced; made by `daily`, `hourly`, `weekly`, `monthly`, `static` and `none`.

    Attributes:
        unit: The kind.
        start: First day; the setting `partitions_start` when it is not given.
        end: Last day, filled too; open when it is not given.
        timezone: Time zone of the boundaries; the setting `timezone` when it is not given.
        keys: The keys of `static`.
    """

    unit: Unit
    start: dt.date | None = None
    end: dt.date | None = None
    timezone: str | None = None
    keys: tuple[str, ...] = ()

    @classmethod
    def of(cls, said: "Partitions | Word | None") -> "Partitions | None":
        """Return what the option `partitions` says; `None` when it is invalid."""
        if isinstance(said, Partitions):
            return said
        return cls(said or "none") if said is None or said in get_args(Word) else None

    def definition(self, settings: Settings, cron: str | None) -> dg.PartitionsDefinition[Any] | None:
        """Return Dagster's definition; `None` for an unpartitioned asset.

        Args:
            settings: Where defaults come from.
            cron: The schedule; when it ticks within a partition, the one that has only begun exists too.
        """
        if self.unit == "none":
            return None
        if self.unit == "static":
            return dg.StaticPartitionsDefinition(list(self.keys))
        kind, hours = _KINDS[self.unit]
        zone = ZoneInfo(self.timezone or settings.timezone)
        # A date means midnight in the zone of the partitions.
        start, end = (
            None if day is None else dt.datetime.combine(day, dt.time(), zone)
            for day in (self.start or settings.partitions_start, self.end and self.end + _ONE_DAY)
        )
        current = cron is not None and end is None and _ticks_within(cron, hours)
        return kind(start_date=start, end_date=end, timezone=str(zone), end_offset=int(current))  # type: ignore[call-arg]


def daily(*, start: Day = None, end: Day = None, timezone: str | None = None) -> Partitions:
    """One partition a day, from `start` to `end`, both included."""
    return _time("daily", start, end, timezone)


def hourly(*, start: Day = None, end: Day = None, timezone: str | None = None) -> Partitions:
    """One partition an hour, from the first hour of `start` to the last one of `end`."""
    return _time("hourly", start, end, timezone)


def weekly(*, start: Day = None, end: Day = None, timezone: str | None = None) -> Partitions:
    """One partition a week, Sunday to Saturday, of the whole weeks from `start` to `end`."""
    return _time("weekly", start, end, timezone)


def monthly(*, start: Day = None, end: Day = None, timezone: str | None = None) -> Partitions:
    """One partition a month, of the whole months from `start` to `end`."""
    return _time("monthly", start, end, timezone)


def static(keys: Sequence[str]) -> Partitions:
    """One partition for each key, such as a list of countries.

    Raises:
        DefinitionError: There are no keys, or one comes twice.
    """
    if isinstance(keys, str) or not keys or len(set(keys)) != len(keys):
        raise DefinitionError(
            "Static partitions need keys, each once.", where=repr(keys), fix='for example static(["nl", "be"]).'
        )
    return Partitions("static", keys=tuple(keys))


def none() -> Partitions:
    """No partitions: every run loads what there is."""
    return Partitions("none")


def kind_of(definition: dg.PartitionsDefinition[Any]) -> str:
    """Return of which kind and time zone partitions are: `daily Europe/Amsterdam`."""
    unit = next((unit for unit, (kind, _) in _KINDS.items() if isinstance(definition, kind)), "static")
    return f"{unit} {getattr(definition, 'timezone', '')}".strip()


def _ticks_within(cron: str, hours: int) -> bool:
    from croniter import croniter

    ticks = croniter(cron, dt.datetime(2024, 1, 1, tzinfo=dt.UTC))
    first, second = ticks.get_next(dt.datetime), ticks.get_next(dt.datetime)
    return bool(second - first < dt.timedelta(hours=hours))


def _time(unit: Unit, start: Day, end: Day, timezone: str | None) -> Partitions:
    first, last = _day(start, "start"), _day(end, "end")
    if first and last and last < first:
        raise DefinitionError(
            "Partitions end before they start.", where=f"start {first}, end {last}", fix="swap the two."
        )
    if timezone is not None:
        try:
            ZoneInfo(timezone)
        except (KeyError, ValueError) as error:
            raise DefinitionError(f"{timezone!r} is not a time zone.", fix="for example Europe/Amsterdam.") from error
    return Partitions(unit, first, last, timezone)


def _day(value: Day, name: str) -> dt.date | None:
    if value is None or isinstance(value, dt.date):
        return value
    try:
        return dt.date.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"{name}={value!r} is not a day.", fix="for example 2013-01-01.") from error
