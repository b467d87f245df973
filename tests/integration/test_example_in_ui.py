"""The example on all four servers, from `dagster dev`: a schedule and a backfill, Dagster's records in PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from support.dagster_ui import DagsterUI, dagster_dev
from support.generated import Project, generate, stranger
from support.servers.lakes import fresh_lake
from support.servers.stack import Stack

LAYERS = [
    "raw/weather_observations",
    "bronze/weather_observations",
    "silver/weather_hourly",
    "gold/weather_daily",
    "marts/weather_monthly",
]
DAYS = ["2013-07-01", "2013-07-02", "2013-07-03"]


@pytest.fixture(scope="module")
def example(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The example with a schedule, its lake empty."""
    home = stranger(tmp_path_factory.mktemp("home"))
    root = generate(tmp_path_factory.mktemp("generated") / "example", home)
    workflow = root / "workflows" / "ingestion" / "weather.py"
    text = workflow.read_text("utf-8")
    assert "@cascade_ingestion(\n" in text
    workflow.write_text(
        text.replace("@cascade_ingestion(\n", '@cascade_ingestion(\n    cron="0 6 * * *",\n', 1), "utf-8"
    )
    databases = {n: stack.environment[n] for n in ("CASCADE_DAGSTER_URL", "CASCADE_MARTS_URL")}
    return Project(root, home | fresh_lake(stack, "nessie") | databases)


@pytest.fixture(scope="module")
def ui(example: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterUI]:
    with dagster_dev(example, tmp_path_factory.mktemp("dagster") / "dev.log") as running:
        yield running


def _days(example: Project) -> set[str]:
    rows = example.json("query", "select distinct cast(date as varchar) as day from gold.weather_daily")
    return {row["day"] for row in rows}


def test_a_schedule_and_a_backfill_promote_the_example(stack: Stack, example: Project, ui: DagsterUI) -> None:
    (run,) = ui.wait(ui.run_schedule("raw__weather_observations_schedule"))
    assert run["status"] == "SUCCESS", ui.failures(run["runId"])
    days = _days(example)
    assert len(days) == 364  # all that `main` lacked
    backfill = ui.backfill([*LAYERS, "cascade/promote", "cascade/publish"], DAYS)
    assert ui.wait_for_backfill(backfill) == "COMPLETED_SUCCESS"
    assert _days(example) == days
    log = example.json("branch", "log")
    assert [entry["source"] for entry in log] == [f"run-{backfill}", f"run-{run['runId'][:8]}"]
    names = {branch["name"] for branch in example.json("branch", "list")}
    assert not {name for name in names if name.startswith("run-")}
    # Marts and Dagster's records are in PostgreSQL, not in the project.
    with psycopg.connect(stack.reader_url) as reader:
        (rows,) = reader.execute("select count(*) from marts.weather_monthly").fetchone() or (0,)
    assert rows > 0
    assert not list(Path(example.root).rglob("*.duckdb"))
    with psycopg.connect(stack.environment["CASCADE_DAGSTER_URL"]) as records:
        (runs,) = records.execute("select count(*) from runs where status = 'SUCCESS'").fetchone() or (0,)
    assert runs >= 2
