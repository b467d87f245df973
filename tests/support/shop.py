"""The project of a small shop: its workflows, what makes them fail, and what its lakehouse holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from cascade.catalog import MAIN, LogEntry, open_catalog
from cascade.config import load_settings
from cascade.engine import query
from support.generated import Project

_WORKFLOW = '''\
"""What a shop knows: its orders by day, and its customers."""

import datetime as dt
import json
import threading
import time
from pathlib import Path

import dagster as dg
from cascade.ingestion import cascade_ingestion, daily, none
from cascade.quality import cascade_quality, not_null

DATA = Path(__file__).resolve().parents[2] / "data"


@cascade_ingestion(
    unique_key="id",
    partitions=daily(start="2024-01-01", end="2024-01-09"),
    partition_column="day",
    group="shop",
    max_retries=0,
)
def orders(partition_dates: list[str]):
    """One order a day."""
    noons = [dt.datetime.fromisoformat(f"{day}T12:00:00Z") for day in partition_dates]
    return [{"id": int(noon.timestamp()), "day": noon} for noon in noons]


@cascade_ingestion(unique_key="id", partitions=none(), cron="0 3 * * *", group="shop", max_retries=0)
def customers():
    """Who buys; waits while a file tells it to."""
    deadline = time.monotonic() + 120
    while (DATA / "hold").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return json.loads((DATA / "customers.json").read_text())


@cascade_ingestion(
    unique_key="id",
    partitions=none(),
    cron="* * * * *",
    freshness_hours=(1, 24),
    max_runtime_seconds=15,
    max_retries=2,
    retry_delay_seconds=0,
    group="shop",
)
def deliveries(context):
    """Of three attempts the first one hangs, and the second one is refused."""
    if context.retry_number == 0:
        threading.Event().wait()
    if context.retry_number == 1:
        raise ConnectionError("the van is late")
    return [{"id": 1}]


@cascade_quality(asset="raw/customers", checks=[not_null("name")])
def named() -> None:
    """Every customer has a name."""


@dg.asset_check(asset=dg.AssetKey(["raw", "customers"]), blocking=True, required_resource_keys={"lakehouse"})
def room_for_all(context):
    """A check written with plain Dagster: the shop has room for so many."""
    (row,) = context.resources.lakehouse.query("select count(*) as n from raw.customers").to_pylist()
    return dg.AssetCheckResult(passed=row["n"] <= int((DATA / "room.txt").read_text()))


@dg.asset(key=["shop", "report"], deps=[orders, customers], required_resource_keys={"lakehouse"}, group_name="shop")
def report(context):
    """An asset written with plain Dagster; fails while a file tells it to."""
    if (DATA / "broken").exists():
        raise RuntimeError("the printer is out of paper")
    (row,) = context.resources.lakehouse.query("select count(*) as n from raw.customers").to_pylist()
    return dg.MaterializeResult(metadata={"customers": row["n"], "branch": context.resources.lakehouse.branch})


customers_to_main = dg.define_asset_job("customers_to_main", ["raw/customers", "shop/report", "cascade/promote"])
'''


def replace_example(root: Path) -> None:
    """Put the shop's workflows in the place of the example's."""
    for file in root.glob("workflows/*/weather.py"):
        file.unlink()
    shutil.rmtree(root / "transforms")
    (root / "workflows/ingestion/shop.py").write_text(_WORKFLOW)


class Shop(Project):
    """The project; the state of its lakehouse is read without a command, in this process."""

    def clean(self) -> None:
        """Drop all branches and everything that makes a workflow fail; `main` stays as it is."""
        for branch in self.branches() - {MAIN}:
            self.catalog.delete(branch)
        for name in ("hold", "broken"):
            (self.root / "data" / name).unlink(missing_ok=True)
        (self.root / "workflows/ingestion/torn.py").unlink(missing_ok=True)
        self.make_room(1000)
        customers = self.root / "data/customers.json"
        if not customers.exists():
            customers.write_text("[]")
        self._write([row for row in json.loads(customers.read_text()) if row["name"]])

    @property
    def catalog(self) -> Any:
        return open_catalog(load_settings(self.root))

    def new_customer(self, name: str | None = "Ada") -> int:
        """Add a row to what the source will return, and return its key."""
        rows = json.loads((self.root / "data/customers.json").read_text())
        key = 1 + max((row["id"] for row in rows), default=0)
        self._write([*rows, {"id": key, "name": name}])
        return key

    def make_room(self, customers: int) -> None:
        """Set what the plain check allows."""
        (self.root / "data/room.txt").write_text(str(customers))

    def hold(self) -> Path:
        """Let the next load of customers wait until the returned file is gone."""
        file = self.root / "data/hold"
        file.touch()
        return file

    def break_report(self) -> Path:
        """Let the report fail until the returned file is gone."""
        file = self.root / "data/broken"
        file.touch()
        return file

    def branches(self) -> set[str]:
        return {branch.name for branch in self.catalog.branches()}

    def log(self) -> list[LogEntry]:
        """The promotions so far, newest first."""
        found: list[LogEntry] = self.catalog.log(MAIN)
        return found

    def customers(self, branch: str = MAIN) -> set[int]:
        """The keys of the customers that a branch holds."""
        return self._ids("raw.customers", branch)

    def order_days(self, branch: str = MAIN) -> set[str]:
        """The days of which a branch holds orders."""
        lake = self.catalog
        if "raw.orders" not in lake.pointers(branch):
            return set()
        rows = query(lake, branch, "select distinct strftime(day, '%Y-%m-%d') as day from raw.orders").to_pylist()
        return {row["day"] for row in rows}

    def _ids(self, table: str, branch: str) -> set[int]:
        lake = self.catalog
        if table not in lake.pointers(branch):
            return set()
        return {row["id"] for row in query(lake, branch, f"select id from {table}").to_pylist()}

    def _write(self, rows: list[dict[str, Any]]) -> None:
        (self.root / "data/customers.json").write_text(json.dumps(rows))
