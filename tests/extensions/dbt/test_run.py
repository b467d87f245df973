"""The promises of `cascade run` over a dbt project: only what can have changed is computed.

Modules: `cascade_operations.leave_out`.
"""

import datetime as dt
import re
import warnings
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from cascade.catalog import MAIN
from cascade.config import Settings
from cascade.framework.definitions import build_definitions
from cascade.framework.instance import open_instance
from cascade.lakehouse import Lakehouse
from cascade_operations import run_pipeline
from cascade_operations.records import RunReport
from support.dbt import dbt_project
from support.projects import Command, make_project

WORKFLOW = '''\
"""Events of two days."""

from cascade.ingestion import cascade_ingestion, static


@cascade_ingestion(unique_key="id", partitions=static(["a", "b"]), partition_column="part")
def events(partition_date: str):
    return [{"id": partition_date, "part": partition_date}]
'''
PROJECT = dbt_project("""\
models: { shop: { +materialized: table, +schema: silver, second: { +schema: marts } } }
""")
FILES = {
    "workflows/shop.py": WORKFLOW,
    "transforms/dbt/dbt_project.yml": PROJECT,
    "transforms/dbt/models/sources.yml": "sources: [{ name: raw, tables: [{ name: events }] }]\n",
    "transforms/dbt/models/first.sql": "select id from {{ source('raw', 'events') }}",
    "transforms/dbt/models/exposures.yml": """\
exposures:
  - { name: board, type: dashboard, owner: { name: Ada }, url: "https://bi", depends_on: [ref('second')] }
  - name: study
    type: notebook
    owner: { email: ada@example.com }
    depends_on: [ref('first'), "source('raw', 'events')"]
""",
    "transforms/dbt/models/second.sql": "select id from {{ ref('first') }}",
    "transforms/dbt/models/second.yml": """\
models:
  - name: second
    meta: { owner: [Reports, ada@example.com] }
    columns: [{ name: id, description: The event. }]
""",
}
BOTH = {"silver/first", "marts/second"}


class Shop:
    """A project that has run once."""

    def __init__(self, root: Path) -> None:
        self.settings = Settings(project_dir=make_project(root, FILES), owners=("team:data",))
        first = self.run()
        assert first.success, first.failures

    def run(self, **options: Any) -> RunReport:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="AssetExecutionContext")  # what dagster-dbt still uses
            return run_pipeline(self.settings, **options)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("shop"))
        return Shop(Path.cwd())


def models(report: RunReport) -> set[str]:
    return {done.asset for done in report.assets} & BOTH


def test_a_run_with_nothing_to_do_starts_neither_dagster_nor_dbt(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("subprocess.Popen", None)
    report = shop.run()
    assert report.success
    assert (report.run_ids, report.promotion, report.branch_kept) == ((), None, False)
    assert set(report.left_out) == BOTH
    assert (report.always, report.published) == ({}, {})


def test_it_says_so_and_the_exit_code_is_0(
    shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop.settings.project_dir)
    said = Command(capsys)("run")
    assert said.code == 0
    assert (
        "Left out: 2 models (marts/second, silver/first), for nothing that they are made from has changed" in said.out
    )
    assert "There is nothing new; main is unchanged." in said.out


def test_marts_that_a_killed_run_has_not_published_are_published(shop: Shop) -> None:
    shop.settings.marts_path.unlink()
    report = shop.run()
    assert (report.run_ids, report.published) == ((), {"marts.second": 2})
    assert shop.settings.marts_path.is_file()


def test_what_is_named_is_computed_and_what_plus_adds_only_if_it_can_have_changed(shop: Shop) -> None:
    report = shop.run(select=["+marts/second"])
    assert (models(report), set(report.left_out)) == ({"marts/second"}, {"silver/first"})


def test_a_new_row_is_computed_all_the_way(shop: Shop) -> None:
    report = shop.run(partition="a")
    assert (models(report), report.left_out) == (BOTH, {})
    assert shop.run().run_ids == ()


def test_an_exposure_is_an_asset_behind_what_lets_it_read_and_no_run_computes_it(shop: Shop) -> None:
    graph = build_definitions(shop.settings).resolve_asset_graph()
    board, study = dg.AssetKey(["exposure", "board"]), dg.AssetKey(["exposure", "study"])
    parents = {key: {parent.to_user_string() for parent in graph.get(key).parent_keys} for key in (board, study)}
    assert parents == {
        board: {"marts/second", "cascade/publish"},
        study: {"silver/first", "raw/events", "cascade/promote"},
    }
    assert {board, study}.isdisjoint(graph.executable_asset_keys)
    assert (graph.get(board).group_name, graph.get(board).metadata["owner"]) == ("exposures", "Ada")


@pytest.mark.parametrize(
    ("asset", "owners", "file", "says"),
    [
        ("raw/events", ["team:data"], "workflows/shop.py", None),
        ("silver/first", ["team:data"], "transforms/dbt/models/first.sql", "From `raw.events.id`."),
        (
            "marts/second",
            ["team:Reports", "ada@example.com"],
            "transforms/dbt/models/second.sql",
            "The event.\nFrom `silver.first.id`.",
        ),
    ],
)
def test_the_page_of_an_asset_shows_whose_it_is_its_code_its_columns_and_rows(
    shop: Shop, asset: str, owners: list[str], file: str, says: str | None
) -> None:
    key = dg.AssetKey(asset.split("/"))
    node = build_definitions(shop.settings).resolve_asset_graph().get(key)
    [code] = node.metadata["dagster/code_references"].code_references
    kinds = {"python", "iceberg"} if asset.startswith("raw") else {"dbt", "duckdb", "iceberg"}
    assert (node.kinds, node.owners) == (kinds, owners)
    assert node.metadata.get("dagster/storage_kind", "iceberg") == "iceberg"
    assert code.file_path == str(shop.settings.project_dir / file)
    assert node.metadata["dagster/table_name"] == asset.replace("/", ".")
    assert "select" not in (node.description or "")  # lists show its first line
    assert "dagster/column_schema" not in node.metadata  # the UI would show its descriptions in place of the events'
    with open_instance(shop.settings) as instance:
        event = instance.get_latest_materialization_event(key)
    assert event is not None
    assert event.asset_materialization is not None
    told = event.asset_materialization.metadata
    shown = {column.name: (column.type, column.description) for column in told["dagster/column_schema"].value.columns}
    assert shown["id"] == ("string", says)
    assert {record.data["id"] for record in told["preview"].records} <= {"a", "b"}


def test_all_computes_all(shop: Shop) -> None:
    report = shop.run(everything=True)
    assert (models(report), report.left_out) == (BOTH, {})


# A failing source

_SOURCES = '''\
"""Three sources, one of which is away for a while."""

from pathlib import Path

from cascade.ingestion import cascade_ingestion, static

AWAY = Path(__file__).with_name("away")


@cascade_ingestion(unique_key="id", partitions=static(["a", "b"]), partition_column="part")
def events(partition_date: str):
    return [{"id": partition_date, "part": partition_date}]


@cascade_ingestion(unique_key="id", partitions="none")
def prices():
    return [{"id": 1}]


@cascade_ingestion(unique_key="id", partitions="none")
def orders():
    row = {"id": 1}
    return [{"id": row["number" if AWAY.exists() else "id"]}]
'''


BEGIN = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=5)
# What a failed run has left of them is not what their tables have to hold.
LEFT = {
    "transforms/dbt/models/appended.sql": "{{ config(materialized='incremental') }} select 1 as id",
    "transforms/dbt/models/by_day.sql": f"""\
{{{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='day', batch_size='day',
           begin='{BEGIN}') }}}}
{{% set day = model.batch.event_time_start.date() if model.batch else '2026-01-01' %}}
{{% set n = 'oops' if day | string == '{BEGIN + dt.timedelta(days=2)}' else 1 %}}
select date '{{{{ day }}}}' as day, cast('{{{{ n }}}}' as integer) as n
""",
}


def test_a_failing_source_stops_what_depends_on_it_and_a_resumed_run_makes_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dbt is one step: models of other sources are computed by one more run on the same branch."""
    tables = ("events", "prices", "orders")
    models = {f"transforms/dbt/models/of_{t}.sql": f"select id from {{{{ source('raw', '{t}') }}}}" for t in tables}
    sources = "sources: [{ name: raw, tables: [{ name: events }, { name: prices }, { name: orders }] }]\n"
    project = {"transforms/dbt/dbt_project.yml": PROJECT, "transforms/dbt/models/sources.yml": sources, **models}
    root = make_project(tmp_path, {"workflows/sources.py": _SOURCES, "workflows/away": "", **project, **LEFT})
    monkeypatch.chdir(root)
    settings = Settings(project_dir=root)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="AssetExecutionContext")
        failed = run_pipeline(settings)
        kept = Lakehouse(settings, failed.branch).catalog.pointers(failed.branch)
        (root / "workflows" / "away").unlink()
        by_day = root / "transforms/dbt/models/by_day.sql"
        by_day.write_text(by_day.read_text().replace("'oops'", "1"))
        mended = run_pipeline(settings, resume=failed.branch)
    why, of_dbt = sorted(failed.failures, reverse=True)
    assert why == "raw/orders: KeyError: 'number'\n  where: workflows/sources.py:23"
    bad = rf"batch {BEGIN + dt.timedelta(days=2)} of silver\.by_day"
    assert re.match(rf"dbt: \S+/by_day\.sql\S*: model by_day: {bad}: Conversion Error", of_dbt)
    assert "silver.by_day" not in kept
    independent = {"raw/events", "raw/prices", "silver/of_events", "silver/of_prices"}
    assert {done.asset for done in failed.assets} == independent | {"silver/appended"}
    assert (failed.promotion, failed.branch_kept) == (None, True)
    assert mended.success, mended.failures
    assert {*mended.up_to_date, *mended.left_out} == independent
    assert {done.asset for done in mended.assets} == {
        *("raw/orders", "silver/of_orders", "silver/by_day", "silver/appended"),
        *("cascade/promote", "cascade/publish"),
    }
    assert mended.promotion is not None
    assert len(mended.promotion.tables) == 8
    main = Lakehouse(settings, MAIN)
    rows = "(select count(*) from silver.by_day) as days, (select count(*) from silver.appended) as appended"
    assert main.query(f"select {rows}").to_pylist() == [{"days": 6, "appended": 1}]
