"""The options of `@cascade_ingestion`: what was asked for, defaults filled in, and everything wrong with it."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cascade.catalog import check_table_name
from cascade.errors import CascadeError
from cascade.ingestion.partitions import Partitions, daily, hourly, monthly, none, weekly

__all__ = ["Options", "more_often"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "write": ("merge", "replace_partition", "append"),
    "schema_policy": ("strict", "additive", "drop_extra"),
    "on_invalid": ("fail", "quarantine"),
}
_PARTITIONS: dict[str, Callable[[], Partitions]] = {
    "hourly": hourly,
    "daily": daily,
    "weekly": weekly,
    "monthly": monthly,
    "none": none,
}
_LEAST = {"max_runtime_seconds": 1, "max_retries": 0, "retry_delay_seconds": 0, "quarantine_limit": 0}
_HOURS = {"hourly": 1, "daily": 24, "weekly": 168, "monthly": 672}


@dataclass(frozen=True)
class Options:
    """The options by the names that `cascade_ingestion` documents; `key` is `unique_key` as a tuple."""

    table_name: str
    key: tuple[str, ...]
    group: str | None
    validation_schema: Any
    iceberg_schema: Any
    partition_spec: Any
    partitions: Any  # Partitions, once `problems` finds nothing
    partition_column: str | None
    namespace: str
    write: Any
    schema_policy: Any
    on_invalid: Any
    quarantine_limit: int
    order_by: str | None
    cron: str | None
    freshness_hours: tuple[float, float] | None
    max_runtime_seconds: float
    max_retries: int
    retry_delay_seconds: float
    validate: bool

    @classmethod
    def of(cls, function: str, given: dict[str, Any]) -> "Options":
        """Fill in the defaults that depend on other options.

        Args:
            function: Name of the fetch function.
            given: The options as they were written.
        """
        values = dict(given)
        unique_key: str | Sequence[str] | None = values.pop("unique_key")
        key = (unique_key,) if isinstance(unique_key, str) else tuple(unique_key or ())
        named = values["partitions"]
        partitions = _PARTITIONS[named]() if isinstance(named, str) and named in _PARTITIONS else named
        values |= {
            "key": key,
            "table_name": values["table_name"] or function,
            "partitions": none() if partitions is None else partitions,
            "write": values["write"] or ("merge" if key else "append"),
        }
        return cls(**values)

    def problems(self, per_run: Sequence[str]) -> Iterator[str]:
        """Name everything that is wrong.

        Args:
            per_run: Which of `partition_date` and `partition_dates` the function takes.
        """
        try:
            check_table_name(f"{self.namespace}.{self.table_name}")
        except CascadeError as error:
            yield f"{error.what.rstrip('.')} ({error.fix.rstrip('.')})"
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                yield f"{name}={value!r} is not one of {', '.join(choices)}"
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or value < least:
                yield f"{name}={value!r} must be a number, at least {least}"
        for name in ("max_retries", "quarantine_limit"):
            if isinstance(getattr(self, name), float):
                yield f"{name}={getattr(self, name)!r} must be a whole number"
        if not isinstance(self.partitions, Partitions):
            yield f"partitions={self.partitions!r} is not one of {', '.join(_PARTITIONS)}, static([...])"
            return
        sliced = self.partitions.unit != "none"
        hours = self.freshness_hours
        wrong = {
            "namespace `quarantine` is for rows set aside": self.namespace == "quarantine",
            "the function takes both partition_date and partition_dates; choose one": len(per_run) > 1,
            f"the function takes {' and '.join(per_run)}, but the asset has no partitions": bool(per_run)
            and not sliced,
            "the function must take partition_date: str or partition_dates: list[str] (or set partitions=none())": (
                sliced and not per_run
            ),
            "a function of partition_dates needs partition_column, which says what belongs to which partition": (
                "partition_dates" in per_run and self.partition_column is None
            ),
            'write="merge" needs unique_key': self.write == "merge" and not self.key,
            "order_by needs unique_key: it says which of the rows with one key stays": (
                self.order_by is not None and not self.key
            ),
            'write="replace_partition" needs partition_column': (
                self.write == "replace_partition" and sliced and self.partition_column is None
            ),
            f"cron={self.cron!r} is not a cron expression (for example '0 6 * * *', every day at six)": (
                self.cron is not None and not _is_cron(self.cron)
            ),
            f"freshness_hours={hours!r} must be (warn, fail), hours, with 0 < warn <= fail": (
                hours is not None and not _is_span(hours)
            ),
        }
        yield from (problem for problem, is_so in wrong.items() if is_so)


def more_often(cron: str | None, kind: Partitions) -> bool:
    """Say whether a schedule ticks within a partition, which then must exist before it ends."""
    if cron is None or kind.unit not in _HOURS:
        return False
    from croniter import croniter

    ticks = croniter(cron, dt.datetime(2024, 1, 1, tzinfo=dt.UTC))
    first, second = ticks.get_next(dt.datetime), ticks.get_next(dt.datetime)
    return bool(second - first < dt.timedelta(hours=_HOURS[kind.unit]))


def _is_cron(cron: object) -> bool:
    from croniter import croniter

    return isinstance(cron, str) and bool(croniter.is_valid(cron))


def _is_span(hours: object) -> bool:
    return isinstance(hours, tuple | list) and len(hours) == 2 and 0 < hours[0] <= hours[1]
