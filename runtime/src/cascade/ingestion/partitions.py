"""What one run fills: the partitions of an asset, by words, by functions, or as Dagster defines them."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args
from zoneinfo import ZoneInfo

import dagster as dg

from cascade.config import Settings
from cascade.errors import DefinitionError

__all__ = [
    "Partitions",
    "Word",
    "daily",
    "definition_of",
    "dimensions_of",
    "hourly",
    "monthly",
    "none",
    "of_time",
    "parts_of",
    "refusal",
    "static",
    "weekly",
]

#: Partitions that a word alone describes.
Word = Literal["hourly", "daily", "weekly", "monthly", "none"]
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
    """Partitions of time, or none; made by `daily`, `hourly`, `weekly`, `monthly` and `none`.

    Attributes:
        unit: The kind.
        start: First day; the setting `partitions_start` when it is not given.
        end: Last day, filled too; open when it is not given.
        timezone: Time zone of the boundaries; the setting `timezone` when it is not given.
    """

    unit: Word
    start: dt.date | None = None
    end: dt.date | None = None
    timezone: str | None = None


def definition_of(said: Any, settings: Settings, cron: str | None) -> dg.PartitionsDefinition[Any] | None:
    """Return Dagster's definition of what the option `partitions` says; `None` without partitions.

    Args:
        said: The option, which nothing refuses.
        settings: Where defaults come from.
        cron: The schedule; when it ticks within a partition, the one that has only begun exists too.
    """
    if isinstance(said, dg.PartitionsDefinition):
        return said
    of = said if isinstance(said, Partitions) else Partitions(said or "none")
    if of.unit == "none":
        return None
    kind, hours = _KINDS[of.unit]
    zone = ZoneInfo(of.timezone or settings.timezone)
    # A date means midnight in the zone of the partitions.
    start, end = (
        None if day is None else dt.datetime.combine(day, dt.time(), zone)
        for day in (of.start or settings.partitions_start, of.end and of.end + _ONE_DAY)
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


def static(keys: Sequence[str]) -> dg.StaticPartitionsDefinition:
    """One partition for each key, such as a list of countries.

    Raises:
        DefinitionError: There are no keys, or one comes twice.
    """
    if isinstance(keys, str) or not keys or len(set(keys)) != len(keys):
        raise DefinitionError(
            "Static partitions need keys, each once.", where=repr(keys), fix='for example static(["nl", "be"]).'
        )
    return dg.StaticPartitionsDefinition(list(keys))


def none() -> Partitions:
    """No partitions: every run loads what there is."""
    return Partitions("none")


def refusal(said: object) -> str | None:
    """Return why no run can fill what the option `partitions`, or an asset of Dagster, says; `None` when one can."""
    if isinstance(said, dg.MultiPartitionsDefinition):
        return next(filter(None, (refusal(each.partitions_def) for each in said.partitions_defs)), None)
    if isinstance(said, dg.DynamicPartitionsDefinition) and said.name is None:
        return 'dynamic partitions need a name, under which Dagster keeps their keys: name="..." in place of a function'
    if isinstance(said, dg.PartitionsDefinition) and not type(said).__module__.startswith("dagster."):
        kind = type(said).__qualname__
        return f"no run knows which rows belong to partitions of {kind}; use those of Dagster itself"
    if said is None or isinstance(said, Partitions | dg.PartitionsDefinition) or said in (words := get_args(Word)):
        return None
    return f"partitions={said!r} is not one of {', '.join(words)}, static([...]), or a definition of Dagster"


def dimensions_of(definition: dg.PartitionsDefinition[Any]) -> list[dg.PartitionsDefinition[Any]]:
    """Return the partitions of each dimension, in the order of their keys; partitions of one are their own."""
    several = isinstance(definition, dg.MultiPartitionsDefinition)
    return [each.partitions_def for each in definition.partitions_defs] if several else [definition]  # type: ignore[attr-defined]


def parts_of(definition: dg.PartitionsDefinition[Any], key: str) -> list[str]:
    """Return the key of each dimension."""
    return key.split("|") if isinstance(definition, dg.MultiPartitionsDefinition) else [key]


def of_time(definition: dg.PartitionsDefinition[Any] | None) -> dg.TimeWindowPartitionsDefinition | None:
    """Return the partitions of time, which may be one of two dimensions; `None` where there are none."""
    several = dimensions_of(definition) if definition else []
    return next((one for one in several if isinstance(one, dg.TimeWindowPartitionsDefinition)), None)


def _ticks_within(cron: str, hours: int) -> bool:
    from croniter import croniter

    ticks = croniter(cron, dt.datetime(2024, 1, 1, tzinfo=dt.UTC))
    first, second = ticks.get_next(dt.datetime), ticks.get_next(dt.datetime)
    return bool(second - first < dt.timedelta(hours=hours))


def _time(unit: Word, start: Day, end: Day, timezone: str | None) -> Partitions:
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
