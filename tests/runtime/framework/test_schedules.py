"""The promise of `cron=`: the schedule asks for the partition that has ended by then.

Modules: `cascade.framework.jobs`.
"""

import datetime as dt
from pathlib import Path

import dagster as dg
import pytest

from cascade.config import Settings
from cascade.framework.definitions import Problems, build_definitions, problems_of

WORKFLOW = """
from cascade.ingestion import cascade_ingestion, daily, hourly, none

YEAR = daily(start="2013-01-01", end="2013-12-30")

@cascade_ingestion(table_name="days", unique_key="id", cron="0 6 * * *", partitions=daily(start="2024-01-01"))
def days(partition_date: str):
    return []

@cascade_ingestion(table_name="hours", unique_key="id", cron="5 * * * *", partitions=hourly(start="2024-03-01"))
def hours(partition_date: str):
    return []

@cascade_ingestion(table_name="past", unique_key="id", cron="5 * * * *", partitions=YEAR)
def past(partition_date: str):
    return []

@cascade_ingestion(table_name="whole", unique_key="id", cron="5 * * * *", partitions=none())
def whole():
    return []
"""


@pytest.mark.parametrize(
    ("name", "partition"),
    [("days", "2024-03-04"), ("hours", "2024-03-05-05:00"), ("past", "2013-12-30"), ("whole", None)],
)
def test_a_schedule_asks_for_the_latest_partition(tmp_path: Path, name: str, partition: str | None) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "loads.py").write_text(WORKFLOW)
    repository = build_definitions(Settings(project_dir=tmp_path)).get_repository_def()
    tick = dg.build_schedule_context(
        scheduled_execution_time=dt.datetime(2024, 3, 5, 6, 5, tzinfo=dt.UTC), repository_def=repository
    )
    (wanted,) = repository.get_schedule_def(f"raw__{name}_schedule").evaluate_tick(tick).run_requests or ()
    assert wanted.partition_key == partition


ORDERS = """
from cascade.ingestion import cascade_ingestion, daily, none

@cascade_ingestion(table_name="orders", namespace="{namespace}", unique_key="id", cron="0 6 * * *", partitions=none())
def orders():
    return []
"""
HOURS = """
import dagster as dg

@dg.asset(deps=[["raw", "days"]], partitions_def=dg.HourlyPartitionsDefinition("2024-01-01-00:00"))
def report(): ...
"""


def built(folder: Path, **files: str) -> dg.Definitions:
    (folder / "workflows").mkdir()
    for name, text in files.items():
        (folder / "workflows" / f"{name}.py").write_text(text)
    return build_definitions(Settings(project_dir=folder))


def test_two_namespaces_may_have_a_table_of_one_name(tmp_path: Path) -> None:
    definitions = built(tmp_path, **{name: ORDERS.format(namespace=name) for name in ("shop", "erp")})
    assert problems_of(definitions) == Problems()
    names = {schedule.name for schedule in definitions.get_repository_def().schedule_defs}
    assert {"shop__orders_schedule", "erp__orders_schedule"} <= names


def test_a_schedule_covers_all_that_depends_on_the_asset_and_the_promotion(tmp_path: Path) -> None:
    below = "import dagster as dg\n\n@dg.asset(deps=[['raw', 'whole']])\ndef report(): ...\n"
    definitions = built(tmp_path, loads=WORKFLOW, below=below)
    keys = definitions.resolve_job_def("raw__whole_pipeline").asset_layer.executable_asset_keys
    assert {key.to_user_string() for key in keys} == {"raw/whole", "report", "cascade/promote", "cascade/publish"}


def test_a_schedule_that_no_run_can_hold_is_left_out_and_named(tmp_path: Path) -> None:
    definitions = built(tmp_path, loads=WORKFLOW, below=HOURS)
    assert problems_of(definitions).broken == []
    (problem,) = problems_of(definitions).jobs
    assert problem.startswith("asset raw/days: its schedule would cover report too, and one run holds")
    names = {schedule.name for schedule in definitions.get_repository_def().schedule_defs}
    assert "raw__hours_schedule" in names
    assert "raw__days_schedule" not in names
