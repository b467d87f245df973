"""A lakehouse in a folder, and loads into it through the decorator, for the bench."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandera.polars as pandera

from cascade.config import build_settings
from cascade.ingestion import cascade_ingestion, daily, load_plan
from cascade.ingestion.load import LoadResult, load
from cascade.lakehouse import Lakehouse

__all__ = ["BRANCH", "Contract", "Loads"]

BRANCH = "bench"


class Contract(pandera.DataFrameModel):
    """The contract of the rows: every row is looked at."""

    id: int = pandera.Field(ge=0)
    number_1: float
    number_2: float
    number_3: float
    number_4: float
    word_1: str
    word_2: str
    word_3: str
    word_4: str = pandera.Field(str_length={"min_value": 1})
    count: int = pandera.Field(in_range={"min_value": 0, "max_value": 999})


class Loads:
    """A table `raw.rows` of a lakehouse, and what its fetch function returns next.

    Args:
        folder: Of the lakehouse.
        settings: More of its settings.
        until: The last day of its partitions.
        options: Of the decorator.
    """

    def __init__(
        self, folder: Path, settings: dict[str, str] | None = None, until: str = "2033-12-31", **options: Any
    ) -> None:
        self.lakehouse = Lakehouse(build_settings(folder, settings or {}), BRANCH)
        self._fetch: Callable[[], object] = list

        def each_day(partition_date: str) -> object:
            return self._fetch()

        def all_days(partition_dates: list[str]) -> object:
            return self._fetch()

        function = all_days if "partition_column" in options else each_day
        partitions = daily(start="2024-01-01", end=until)
        self.plan = load_plan(cascade_ingestion(table_name="rows", partitions=partitions, **options)(function))

    def __call__(self, fetch: Callable[[], object], keys: Sequence[str]) -> LoadResult:
        """Load what a function returns as the rows of some days."""
        self._fetch = fetch
        return load(self.plan, self.lakehouse, list(keys), missing_only=False, run_id="bench")
