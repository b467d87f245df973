"""The promise of `cron=`: the schedule asks for the partition that has ended by then."""

import datetime as dt
from pathlib import Path

import dagster as dg
import pytest

from cascade.config import Settings
from cascade.framework.definitions import build_definitions
from cascade_maintain.job import build_maintenance

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
    (wanted,) = repository.get_schedule_def(f"{name}_schedule").evaluate_tick(tick).run_requests or ()
    assert wanted.partition_key == partition


@pytest.mark.parametrize("on", [False, True])
def test_the_lake_is_cleaned_every_night_where_the_setting_says_so(tmp_path: Path, on: bool) -> None:
    """In containers it does: nobody looks at branches of failed runs there."""
    schedule = build_maintenance(Settings(project_dir=tmp_path, nightly_maintenance=on))
    assert (schedule.default_status is dg.DefaultScheduleStatus.RUNNING) is on
