"""The promises of `cascade run` to models of sources that are asked in each run: without news they are left out.

Modules: `cascade_operations.work`.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from cascade.config import Settings
from cascade.lakehouse import Lakehouse
from cascade_operations import run_pipeline
from cascade_operations.records import RunReport
from support.dbt import dbt_project
from support.projects import Command, make_project

WORKFLOW = """
import json
from pathlib import Path
from cascade.ingestion import cascade_ingestion, none

def news(name):
    return [{"id": number} for number in json.loads(Path(f"{name}.json").read_text())]

@cascade_ingestion(unique_key="id", partitions=none())
def guests():
    return news("guests")

@cascade_ingestion(unique_key="id", partitions=none())
def orders():
    return news("orders")
"""
FILES = {
    "workflows/shop.py": WORKFLOW,
    "guests.json": "[1]",
    "orders.json": "[1]",
    "transforms/dbt/dbt_project.yml": dbt_project("models: { shop: { +materialized: table, +schema: silver } }\n"),
    "transforms/dbt/models/sources.yml": "sources: [{ name: raw, tables: [{ name: guests }, { name: orders }] }]\n",
    "transforms/dbt/models/of_guests.sql": "select id from {{ source('raw', 'guests') }}",
    "transforms/dbt/models/of_orders.sql": "select id from {{ source('raw', 'orders') }}",
    "transforms/dbt/models/both.sql": "select g.id from {{ ref('of_guests') }} g, {{ ref('of_orders') }} o",
}
LOADS = {"raw/guests", "raw/orders"}
MODELS = {"silver/of_guests", "silver/of_orders", "silver/both"}


class Shop:
    """A project that has run once."""

    def __init__(self, root: Path) -> None:
        self.root = make_project(root, FILES)
        self.settings = Settings(project_dir=self.root)
        self.first = self.run()

    def run(self, **options: Any) -> RunReport:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="AssetExecutionContext")  # what dagster-dbt still uses
            return run_pipeline(self.settings, **options)

    def tell(self, name: str, *rows: int) -> None:
        """Let a source have these rows for the next run."""
        (self.root / f"{name}.json").write_text(json.dumps(rows))

    def write(self, model: str, sql: str) -> None:
        (self.root / f"transforms/dbt/models/{model}.sql").write_text(sql)

    def rows(self, table: str) -> int | None:
        return Lakehouse(self.settings, "main").row_count(table)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("shop"))
        return Shop(Path.cwd())


@pytest.fixture(autouse=True)
def quiet(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources without news, asked from the project's folder."""
    monkeypatch.chdir(shop.root)
    for name in ("guests", "orders"):
        shop.tell(name)


def made(report: RunReport) -> set[str]:
    assert report.success, report.failures
    return {done.asset for done in report.assets} & (LOADS | MODELS)


def test_the_first_run_is_one_run(shop: Shop) -> None:
    assert made(shop.first) == LOADS | MODELS
    assert len(shop.first.run_ids) == 1


def test_without_news_no_model_is_computed_and_nothing_is_promoted(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    report = shop.run()
    assert (made(report), {*report.left_out}) == (LOADS, MODELS)
    assert (len(report.run_ids), report.promotion, report.branch_kept) == (1, None, False)
    said = Command(capsys)("run")
    assert said.code == 0
    assert said.out.count("(nothing new)") == 2
    assert "Left out: 3 models" in said.out
    assert "There is nothing new; main is unchanged." in said.out


def test_only_what_reads_news_is_computed(shop: Shop) -> None:
    shop.tell("orders", 2)
    report = shop.run()
    assert (made(report), {*report.left_out}) == (LOADS | MODELS - {"silver/of_guests"}, {"silver/of_guests"})
    assert report.promotion is not None
    assert set(report.promotion.tables) == {"raw.orders", "silver.of_orders", "silver.both"}
    assert shop.rows("silver.both") == 2


def test_a_run_that_failed_has_used_up_no_news(shop: Shop) -> None:
    """And a model whose own SQL has changed is computed without news."""
    sql = FILES["transforms/dbt/models/of_guests.sql"]
    shop.tell("guests", 2)
    shop.write("of_guests", f"{sql} where nonsense")
    failed = shop.run()
    assert (failed.success, failed.promotion, len(failed.run_ids)) == (False, None, 2)
    shop.write("of_guests", f"{sql} where id > 0")
    report = shop.run()
    assert (made(report), {*report.left_out}) == (LOADS | MODELS - {"silver/of_orders"}, {"silver/of_orders"})
    assert shop.rows("silver.of_guests") == 2


def test_a_load_that_is_named_brings_no_more_than_any_other(shop: Shop) -> None:
    report = shop.run(select=["raw/guests+"])
    assert (made(report), {*report.left_out}) == ({"raw/guests"}, {"silver/of_guests", "silver/both"})


def test_a_full_refresh_computes_all(shop: Shop) -> None:
    shop.tell("guests", 1, 2)
    shop.tell("orders", 1, 2)
    assert made(shop.run(full_refresh=True)) == LOADS | MODELS
