"""The options of `@cascade_ingestion`: each one's name, type and default, and everything that is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, get_args

import dagster as dg

from cascade.catalog import check_table_name
from cascade.errors import CascadeError
from cascade.ingestion.partitions import Partitions, Word, none, refusal
from cascade.names import QUARANTINE

if TYPE_CHECKING:
    from pyiceberg.partitioning import PartitionSpec
    from pyiceberg.schema import Schema

__all__ = ["PER_RUN", "OnInvalid", "Options", "Policy", "Write"]

Write = Literal["merge", "replace_partition", "append"]
#: What happens to columns that the table does not have: refused, added, or left out.
Policy = Literal["strict", "additive", "drop_extra"]
OnInvalid = Literal["fail", "quarantine"]

#: Parameters of a fetch function that say what to load: the key of each call, the same, or those of the run.
PER_RUN = ("partition_date", "partition_key", "partition_dates")

_CHOICES = {"write": get_args(Write), "schema_policy": get_args(Policy), "on_invalid": get_args(OnInvalid)}
_NUMBERS = ("max_runtime_seconds", "max_retries", "retry_delay_seconds", "quarantine_limit", "quarantine_fraction")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user asks for. `cascade_ingestion` takes these options by name, and documents them."""

    table_name: str | None = None
    unique_key: str | Sequence[str] | None = None
    group: str | None = None
    owners: Sequence[str] = ()
    deps: Sequence[str] = ()
    source: str | None = None
    options: Mapping[str, Any] | None = None
    validation_schema: Any = None
    iceberg_schema: Schema | None = None
    partition_spec: PartitionSpec | None = None
    partitions: Partitions | dg.PartitionsDefinition[Any] | Word | None = "daily"
    partition_column: str | Mapping[str, str] | None = None
    namespace: str = "raw"
    write: Write | None = None
    schema_policy: Policy | None = None
    on_invalid: OnInvalid = "fail"
    quarantine_limit: int = 1000
    quarantine_fraction: float = 1
    order_by: str | None = None
    cron: str | None = None
    automation: dg.AutomationCondition[dg.AssetKey] | None = None
    freshness_hours: tuple[float, float] | None = None
    max_runtime_seconds: float = 300
    max_retries: int = 3
    retry_delay_seconds: float = 30
    validate: bool = True

    @property
    def table(self) -> str:
        """`namespace.table`."""
        return f"{self.namespace}.{self.table_name}"

    @property
    def checked(self) -> bool:
        """Whether rows are checked against a contract."""
        return self.validation_schema is not None and self.validate

    def problems(self, parameters: Collection[str]) -> Iterator[str]:
        """Name everything that is wrong.

        Args:
            parameters: Those of the function.
        """
        yield from _unusable([self.table, *([] if isinstance(self.deps, str) else self.deps)])
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                yield f"{name}={value!r} is not one of {', '.join(choices)}"
        for name in _NUMBERS:
            value, least = getattr(self, name), int(name == "max_runtime_seconds")
            if not isinstance(value, int | float) or not least <= value < float("inf"):
                yield f"{name}={value!r} must be a number, at least {least}"
            elif name in ("max_retries", "quarantine_limit") and isinstance(value, float):
                yield f"{name}={value!r} must be a whole number"
            elif name == "quarantine_fraction" and value > 1:
                yield f"{name}={value!r} is a share of the rows: at most 1"
        for name, many in (("unique_key", list | tuple), ("partition_column", Mapping), ("order_by", ())):
            value = getattr(self, name)
            several = [*(value.values() if many is Mapping else value)] if isinstance(value, many) else [value]
            if value is not None and not all(isinstance(column, str) and column for column in several):
                yield f"{name}={value!r} is not the name of a column" + (", or a list" if name == "unique_key" else "")
        for name, wanted in (("iceberg_schema", "Schema"), ("partition_spec", "PartitionSpec")):
            value = getattr(self, name)
            if value is not None and not type(value).__module__.startswith("pyiceberg."):
                yield f"{name} is a {type(value).__module__}.{type(value).__name__}, not a {wanted} of PyIceberg"
        if problem := refusal(self.partitions):
            yield problem
            return
        of, hours, column = self.partitions, self.freshness_hours, self.partition_column
        sliced, no_column = of not in (None, "none", none()), column is None
        dimensions = of.partition_dimension_names if isinstance(of, dg.MultiPartitionsDefinition) else []
        per_run = [name for name in PER_RUN if name in parameters]
        wrong = {
            "namespace `quarantine` is for rows set aside": str(self.namespace).lower() == QUARANTINE,
            f"group={self.group!r} must be letters, digits and underscores": (
                self.group is not None and not re.fullmatch(r"[A-Za-z0-9_/]+", str(self.group))
            ),
            f"validate={self.validate!r} is neither True nor False": not isinstance(self.validate, bool),
            "options are those of a plugin: name it as source": self.options is not None and self.source is None,
            "deps must be a list of tables": isinstance(self.deps, str),
            f"{self.table} reads itself": self.table in self.deps,
            f"the function takes {' and '.join(per_run)}; choose one": len(per_run) > 1,
            f"the function takes {' and '.join(per_run)}, but the asset has no partitions": per_run and not sliced,
            "the function must take partition_date: str, partition_key: str, context, or partition_dates: list[str] "
            "(or set partitions=none())": sliced and not per_run and "context" not in parameters,
            "a function of partition_dates needs partition_column, which says what belongs to which partition": (
                "partition_dates" in per_run and no_column
            ),
            "partition_column says what belongs to which partition, but the asset has none": not (sliced or no_column),
            'write="merge" needs unique_key': self.write == "merge" and not self.unique_key,
            "order_by needs unique_key: it says which of the rows with one key stays": (
                self.order_by is not None and not self.unique_key
            ),
            f"partition_column={column!r} must name a column for each dimension ({', '.join(dimensions) or 'none'})": (
                not no_column and (sorted(column) if isinstance(column, Mapping) else []) != dimensions
            ),
            f"cron={self.cron!r} is not a cron expression (for example '0 6 * * *', every day at six)": (
                self.cron is not None and not _is_cron(self.cron)
            ),
            f"automation={self.automation!r} is not a condition of Dagster, such as dg.AutomationCondition.eager()": (
                not isinstance(self.automation, dg.AutomationCondition | None)
            ),
            "cron and automation both say when it runs; choose one": None not in (self.cron, self.automation),
            f"freshness_hours={hours!r} must be (warn, fail), hours, with 0 < warn <= fail": (
                hours is not None and not _is_span(hours)
            ),
        }
        yield from (problem for problem, is_so in wrong.items() if is_so)
        by = {str(one.transform) for one in getattr(self.partition_spec, "fields", ())} - {"identity"}
        if by and find_spec("pyiceberg_core") is None:
            yield f"partition_spec by {', '.join(sorted(by))} needs a package: uv add 'pyiceberg[pyiceberg-core]'"


def _unusable(tables: Sequence[str]) -> Iterator[str]:
    for table in tables:
        try:
            check_table_name(table)
        except CascadeError as error:
            yield f"{error.what.rstrip('.')} ({error.fix.rstrip('.')})"


def _is_cron(cron: object) -> bool:
    from croniter import croniter

    return isinstance(cron, str) and bool(croniter.is_valid(cron)) and len(cron.split()) < 6  # Dagster knows no seconds


def _is_span(hours: object) -> bool:
    numbers = isinstance(hours, tuple | list) and len(hours) == 2 and all(isinstance(n, int | float) for n in hours)
    return numbers and 0 < hours[0] <= hours[1]  # type: ignore[index]  # it is a pair
