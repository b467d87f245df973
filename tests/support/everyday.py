"""Tables of cases of everyday data: each is an asset of its own, and all of them run in a few runs of Dagster."""

import dataclasses
import datetime as dt
import math
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from types import FunctionType
from typing import Any

import dagster as dg
import pyarrow as pa

from cascade.iceberg.schema import schema_from_arrow
from cascade.ingestion import cascade_ingestion, daily
from support.ingestion import DAY, Lake
from support.lakes import Rows

FIGURES = ("extracted_rows", "loaded_rows", "quarantined_rows", "duplicate_rows")


@dataclasses.dataclass(frozen=True)
class Case:
    """What a source gives, and what has to be there afterwards.

    Attributes:
        rows: What the fetch function returns, or a function that makes it.
        holds: The rows of the table.
        aside: How many rows are set aside.
        twice: How many rows are left out, because another one has the same key.
        says: What the error says, when the load has to be refused.
        options: Options of the asset.
        days: Partitions to load; none for an asset without partitions.
    """

    rows: Any
    holds: Rows | None = None
    aside: int = 0
    twice: int = 0
    says: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    days: tuple[str, ...] = ()


def kept(*rows: dict[str, Any], **options: Any) -> Case:
    """All rows are loaded as they are."""
    return Case(list(rows), list(rows), options=options)


def becomes(rows: Any, holds: Rows, *, aside: int = 0, twice: int = 0, **options: Any) -> Case:
    """The table holds these rows; the others are set aside, or duplicates."""
    options = {"on_invalid": "quarantine", **options} if aside else options
    return Case(rows, holds, aside, twice, options=options)


def refused(rows: Any, says: str, **options: Any) -> Case:
    """Nothing is written, and the error says why."""
    return Case(rows, says=says, options=options)


def of_day(case: Case, day: str = DAY, timezone: str = "UTC") -> Case:
    """The same case as one day of an asset with partitions."""
    options = {"partitions": daily(start=day, timezone=timezone), **case.options}
    return dataclasses.replace(case, options=options, days=(day,))


def column(kind: pa.DataType, name: str = "v") -> dict[str, Any]:
    """The option that declares one column."""
    return {"iceberg_schema": schema_from_arrow(pa.schema([(name, kind)]))}


def pages(*pages_: Any) -> Callable[[], Iterable[Any]]:
    """A generator of pages."""
    return lambda: iter(pages_)


def plain(value: Any) -> Any:
    """A value so that only the same value of the same type is equal to it: 1 is not True, -0.0 is not 0.0."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        value = value.astimezone(dt.UTC).isoformat()
    if isinstance(value, Decimal):
        value = value.normalize() if value else Decimal(0)
    text = str(value) if isinstance(value, str) and len(value) > 100 else repr(value)
    return f"{type(value).__name__} {'nan' if isinstance(value, float) and math.isnan(value) else text}"


def _asset(name: str, case: Case) -> dg.AssetsDefinition:
    def rows() -> Any:
        return case.rows() if isinstance(case.rows, FunctionType) else case.rows

    def fetch() -> Any:
        return rows()

    def fetch_day(partition_date: str) -> Any:
        return rows()

    options: dict[str, Any] = {"partitions": "none", **case.options}
    return cascade_ingestion(table_name=name, max_retries=0, **options)(fetch_day if case.days else fetch)


class Ran:
    """Cases that ran.

    Args:
        lake: Where they run.
        cases: By name.
        prefix: Begins the names of their tables.
    """

    def __init__(self, lake: Lake, cases: Mapping[str, Case], prefix: str) -> None:
        self.lake, self._cases, self._prefix = lake, cases, prefix
        assets = {name: _asset(self.table(name), case) for name, case in cases.items()}
        together: dict[object, list[str]] = {}
        for name, case in cases.items():
            together.setdefault((case.days, str(case.options.get("partitions"))), []).append(name)
        self.errors: dict[str, str] = {}
        for names in together.values():
            self.errors |= lake.run_all([assets[name] for name in names], cases[names[0]].days)
        self._assets = assets

    def table(self, name: str) -> str:
        """The table of a case, without namespace."""
        return f"{self._prefix}{list(self._cases).index(name)}"

    def judge(self, name: str) -> None:
        """Compare what a case has left with what it promises."""
        case, table = self._cases[name], f"raw.{self.table(name)}"
        error = self.errors.get(f"raw/{self.table(name)}", "")
        if case.holds is None:
            assert case.says in error, error or "nothing was refused"
            # An error of the source is its own; each of ours names the table and a remedy.
            assert "Error: " in error or ("fix: " in error and table in error), error
            assert table not in self.lake.lakehouse.tables()
            return
        assert not error, error
        found = self.lake.metadata(self._assets[name])
        loaded, aside, twice = len(case.holds), case.aside, case.twice
        assert [found[figure] for figure in FIGURES] == [loaded + aside + twice, loaded, aside, twice]
        if aside:
            assert len(self.lake.rows(f"quarantine.raw__{self.table(name)}")) == aside
        held = self.lake.rows(table) if case.holds else []
        assert sorted(map(str, map(plain, held))) == sorted(map(str, map(plain, case.holds)))
