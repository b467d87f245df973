"""The promises of a source's cursor: it moves with the rows, and the next run fetches exactly what is missing.

With `--on-servers` a lift goes from a laptop to Nessie and S3.

Modules: `cascade_dlt.hints`, `cascade.ingestion.record`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dlt
import pandas as pd
import pandera.pandas as pap
import pytest

from cascade.ingestion import cascade_ingestion
from cascade_maintain.lift import lift_lake
from support.ingestion import Lake, Laptop

pytestmark = pytest.mark.on_servers("nessie")


class Events(pap.DataFrameModel):
    """Rows whose number is not negative."""

    id: pd.Int64Dtype
    n: pd.Int64Dtype = pap.Field(ge=0)


class Shop:
    """A source that grows, and a lakehouse that follows it.

    Attributes:
        lake: The lakehouse.
        newest: The greatest id that the source has.
        fetched: The ids that the last run was given.
        breaks: The id at which the source fails; 0 for never.
        bad: The ids that break the contract.
    """

    def __init__(self, lake: Lake, options: dict[str, Any]) -> None:
        self.lake, self.newest, self.breaks = lake, 0, 0
        self.fetched: list[int] = []
        self.bad: set[int] = set()

        @dlt.resource(name="events")
        def events(at: Any = dlt.sources.incremental("id", initial_value=0)) -> Any:  # noqa: B008
            for number in range(at.last_value + 1, self.newest + 1):
                if number == self.breaks:
                    raise RuntimeError("the source is away")
                self.fetched.append(number)
                yield {"id": number, "n": -1 if number in self.bad else number}

        @cascade_ingestion(table_name="t", partitions="none", validation_schema=Events, max_retries=0, **options)
        def fetch() -> Any:
            return events

        self.asset = fetch

    def run(self, newest: int, *, success: bool = True) -> None:
        """Let the source grow to an id, and load it."""
        self.newest, self.fetched = newest, []
        done = self.lake.run(self.asset)
        assert done.success is success, done.errors

    def promote(self) -> None:
        self.lake.lakehouse.catalog.merge("test")

    def start_again(self, source: str = "main") -> None:
        """Drop the run's branch, and make one from another state."""
        catalog = self.lake.lakehouse.catalog
        catalog.delete("test")
        catalog.create("test", source)

    def restore(self, back: int) -> None:
        """Put `main` to where it was some moves ago."""
        catalog = self.lake.lakehouse.catalog
        catalog.restore(catalog.log()[back].id)
        self.start_again()


def _promoted(shop: Shop) -> None:
    shop.promote()
    shop.start_again()


def _branch_lost(shop: Shop) -> None:
    """A run is killed before its promotion: nobody looks at its branch again."""
    shop.promote()
    shop.run(4)
    shop.start_again()


def _restored(shop: Shop) -> None:
    shop.promote()
    shop.run(5)
    shop.promote()
    shop.restore(1)


def _restored_twice(shop: Shop) -> None:
    """The restore is taken back: nothing is missing that had been there."""
    shop.promote()
    shop.run(5)
    shop.promote()
    shop.restore(1)
    shop.restore(1)


def _from_a_time(shop: Shop) -> None:
    """A branch that begins with what `main` was at a time knows nothing of later loads."""
    shop.promote()
    shop.run(5)
    shop.promote()
    catalog = shop.lake.lakehouse.catalog
    catalog.delete("test")
    catalog.create("test", at=catalog.log()[-1].at)


def _lifted(shop: Shop) -> None:
    """A month on a laptop, and then servers: what they had on the branch is not asked for."""
    servers, laptop = shop.lake, Laptop(shop.lake.settings.project_dir / "laptop")
    shop.lake = laptop
    shop.run(3)
    shop.promote()
    lift_lake(servers.settings, laptop.settings.data_path)
    shop.lake = servers
    shop.start_again()


def _source_fails(shop: Shop) -> None:
    shop.breaks = 4
    shop.run(5, success=False)
    shop.breaks = 0


def _contract_fails(shop: Shop) -> None:
    shop.bad = {5}
    shop.run(5, success=False)
    shop.bad = set()


def _contract_fails_before_any_load(shop: Shop) -> None:
    shop.start_again()
    shop.bad = {2}
    shop.run(3, success=False)
    shop.bad = set()


def _nothing_new(shop: Shop) -> None:
    """Nothing is written: neither rows nor a cursor that is the same."""
    catalog = shop.lake.lakehouse.catalog
    before = catalog.pointers("test")
    shop.run(3)
    assert shop.fetched == []
    assert catalog.pointers("test") == before


def _promoted_twice(shop: Shop) -> None:
    """Nothing of the source is new in between: there is nothing to promote, and the cursor stays where it was."""
    shop.promote()
    shop.start_again()
    shop.run(3)
    assert shop.lake.lakehouse.catalog.merge("test") is None
    shop.start_again()


def _diverged(shop: Shop) -> None:
    """A branch without changes of its own follows main, rows and cursor alike."""
    shop.promote()
    shop.run(4)
    catalog = shop.lake.lakehouse.catalog
    catalog.create("other", "main")
    shop.start_again()
    shop.run(5)
    shop.promote()
    shop.start_again("other")


# What happens after ids 1 to 3 are on the branch, and the ids that the next run, up to 6, must fetch.
CASES: dict[str, tuple[Callable[[Shop], None], list[int]]] = {
    "promotion": (_promoted, [4, 5, 6]),
    "promotion of nothing new": (_promoted_twice, [4, 5, 6]),
    "nothing new": (_nothing_new, [4, 5, 6]),
    "branch lost before its promotion": (_branch_lost, [4, 5, 6]),
    "restore": (_restored, [4, 5, 6]),
    "restore taken back": (_restored_twice, [6]),
    "branch from a time": (_from_a_time, [4, 5, 6]),
    "lift": (_lifted, [4, 5, 6]),
    "branch that follows main": (_diverged, [6]),
    "source fails half-way": (_source_fails, [4, 5, 6]),
    "contract fails": (_contract_fails, [4, 5, 6]),
    "contract fails before any load": (_contract_fails_before_any_load, [1, 2, 3, 4, 5, 6]),
}


@pytest.mark.parametrize("write", ["merge", "append"])
@pytest.mark.parametrize(("happens", "missing"), CASES.values(), ids=CASES)
def test_the_next_run_fetches_exactly_what_is_missing(
    happens: Callable[[Shop], None], missing: list[int], write: str, tmp_path: Path
) -> None:
    key = {"unique_key": "id"} if write == "merge" else {}
    shop = Shop(Lake(tmp_path, project_dir=tmp_path), key)
    shop.run(3)
    happens(shop)
    shop.run(6)
    assert shop.fetched == missing
    assert [row["id"] for row in shop.lake.rows("raw.t")] == [1, 2, 3, 4, 5, 6]
    shop.run(6)
    assert shop.fetched == []


def test_rows_set_aside_are_behind_the_cursor_and_stay(tmp_path: Path) -> None:
    """The source does not send them again, so only the quarantine has them."""
    shop = Shop(Lake(tmp_path, project_dir=tmp_path), {"on_invalid": "quarantine"})
    shop.bad = {2}
    shop.run(3)
    shop.promote()
    shop.start_again()
    shop.bad = set()
    shop.run(5)
    assert shop.fetched == [4, 5]
    assert [row["id"] for row in shop.lake.rows("raw.t")] == [1, 3, 4, 5]
    assert [row["row"] for row in shop.lake.rows("quarantine.raw__t")] == ['{"id": 2, "n": -1}']
