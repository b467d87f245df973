"""The promise of `cron=`: the schedule asks for the partition that has ended by then.

Modules: `cascade_operations.triggers`.
"""

import datetime as dt
import json
import re
from pathlib import Path
from typing import Literal

import dagster as dg
import pytest

from cascade.config import Settings
from cascade.errors import DefinitionError
from cascade.framework.definitions import Problems, build_definitions, problems_of
from cascade.lakehouse import Lakehouse

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
def test_a_schedule_asks_for_the_latest_partition(
    tmp_path: Path, name: str, partition: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "loads.py").write_text(WORKFLOW)
    repository = build_definitions(Settings(project_dir=tmp_path)).get_repository_def()
    tick = dg.build_schedule_context(
        scheduled_execution_time=dt.datetime(2024, 3, 5, 6, 5, tzinfo=dt.UTC), repository_def=repository
    )
    held = {
        name: set(repository.asset_graph.get(dg.AssetKey(["raw", name])).partitions_def.get_partition_keys())
        for name in ("days", "hours", "past")
    }
    monkeypatch.setattr("cascade.ingestion.load.loaded_partitions", lambda *given: held[given[2].partition(".")[2]])
    (wanted,) = repository.get_schedule_def(f"raw__{name}_schedule").evaluate_tick(tick).run_requests or ()
    assert wanted.partition_key == partition


LISTS = """
import dagster as dg
from cascade.ingestion import cascade_ingestion, static

LANDS = static(["nl", "be"])
DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-03")
PAIRS = dg.MultiPartitionsDefinition({"day": DAYS, "land": LANDS})

def load(partition_key: str):
    return []

lands, pairs = (
    cascade_ingestion(table_name=name, unique_key="id", cron="0 6 * * *", partitions=partitions)(load)
    for name, partitions in (("lands", LANDS), ("pairs", PAIRS))
)
"""
_ALL_PAIRS = {f"2024-01-0{day}|{land}" for day in (1, 2) for land in ("nl", "be")}
_FIRST, _LAST = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


@pytest.mark.parametrize(
    ("name", "held", "expected"),
    [
        ("lands", {"nl", "be"}, {_FIRST: "nl", _LAST: "be"}),
        ("lands", {"nl"}, {_FIRST: "nl", _LAST: "be"}),
        ("pairs", _ALL_PAIRS, {_FIRST: "2024-01-02|nl", _LAST: "2024-01-02|be"}),
        (
            "pairs",
            _ALL_PAIRS - {"2024-01-01|be"},
            {_FIRST: "2024-01-01|nl", _LAST: "2024-01-02|be", "cascade/missing_only": "true"},
        ),
    ],
)
def test_without_a_time_all_may_have_grown_and_of_two_dimensions_the_latest(
    tmp_path: Path, name: str, held: set[str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = built(tmp_path, loads=LISTS).get_repository_def()
    monkeypatch.setattr("cascade.ingestion.load.loaded_partitions", lambda *_: held)
    with dg.DagsterInstance.ephemeral() as instance:
        at = dt.datetime(2024, 3, 5, 6, tzinfo=dt.UTC)
        tick = dg.build_schedule_context(instance, scheduled_execution_time=at, repository_def=repository)
        done = repository.get_schedule_def(f"raw__{name}_schedule").evaluate_tick(tick)
        found = [
            {k: v for k, v in run.tags.items() if "partition" in k or "missing" in k} for run in done.run_requests or ()
        ]
    assert found == [expected]


WEEK = """
import datetime as dt
import json
from pathlib import Path
from cascade.ingestion import cascade_ingestion, daily

@cascade_ingestion(unique_key="id", cron="0 6 * * *", partition_column="day", max_retries=0,
                   partitions=daily(start="2024-03-01"))
def visits(partition_dates: list[str]):
    Path("asked.json").write_text(json.dumps(partition_dates))
    return [{"id": day, "day": dt.date.fromisoformat(day)} for day in partition_dates]
"""


def test_a_dead_week_is_caught_up_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day that a run on another day has loaded is not loaded again; nothing but `main` says what is missing."""
    monkeypatch.chdir(tmp_path)
    definitions = built(tmp_path, loads=WEEK)
    repository, settings = definitions.get_repository_def(), Settings(project_dir=tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:

        def tick(day: int) -> dg.RunRequest:
            at = dt.datetime(2024, 3, day, 6, tzinfo=dt.UTC)
            context = dg.build_schedule_context(instance, scheduled_execution_time=at, repository_def=repository)
            (wanted,) = repository.get_schedule_def("raw__visits_schedule").evaluate_tick(context).run_requests or ()
            job = definitions.resolve_job_def("raw__visits_pipeline")
            assert job.execute_in_process(instance=instance, tags=wanted.tags, partition_key=None).success
            return wanted

        asked = tmp_path / "asked.json"
        tick(3)
        assert json.loads(asked.read_text()) == ["2024-03-01", "2024-03-02"]
        wanted = tick(10)
        assert json.loads(asked.read_text()) == [f"2024-03-{day:02}" for day in range(3, 10)]
        assert wanted.partition_key is None
        assert tick(10).tags["dagster/partition"] == "2024-03-09"
    assert Lakehouse(settings, "main").row_count("raw.visits") == 9


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


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_the_setting_says_what_is_on_from_the_start(state: Literal["running", "stopped"], tmp_path: Path) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "loads.py").write_text(ORDERS.format(namespace="raw"))
    definitions = build_definitions(Settings(project_dir=tmp_path, schedules=state))
    schedule = definitions.get_repository_def().get_schedule_def("raw__orders_schedule")
    assert schedule.default_status.value == state.upper()


MOVED = """
import dagster as dg
from cascade.ingestion import cascade_ingestion, none

@dg.asset(key_prefix="raw")
def drops(): ...

@cascade_ingestion(unique_key="id", partitions=none(), deps=["raw.drops"], automation=dg.AutomationCondition.eager(),
                   max_retries=0)
def files():
    return [{"id": 1}]
"""


def test_a_condition_starts_the_pipeline_when_an_upstream_moved(tmp_path: Path) -> None:
    """The run of the asset and all downstream of it, promotion included; once for each time."""
    definitions = built(tmp_path, loads=MOVED)
    assert problems_of(definitions) == Problems()
    repository = definitions.get_repository_def()
    sensor = repository.get_sensor_def("raw__files_automation")
    assert [each.name for each in repository.sensor_defs] == ["raw__files_automation"]  # Dagster adds none of its own
    keys = definitions.resolve_job_def(sensor.job_name).asset_layer.executable_asset_keys
    assert {key.to_user_string() for key in keys} == {"raw/files", "cascade/promote", "cascade/publish"}
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = None

        def requested() -> int:
            nonlocal cursor
            context = dg.build_sensor_context(instance, cursor=cursor, repository_def=repository)
            found = sensor.evaluate_tick(context)
            cursor = found.cursor
            return len(found.run_requests or ())

        assert [requested(), requested()] == [0, 0]
        instance.report_runless_asset_event(dg.AssetMaterialization(["raw", "drops"]))
        assert [requested(), requested()] == [1, 0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("cron='0 6 * * *', automation=dg.AutomationCondition.eager()", "cron and automation both say when it runs"),
        ("automation='eager'", "automation='eager' is not a condition of Dagster, such as"),
    ],
)
def test_a_contradiction_is_refused_at_definition(options: str, said: str) -> None:
    text = "import dagster as dg\nfrom cascade.ingestion import cascade_ingestion\n"
    with pytest.raises(DefinitionError, match=re.escape(said)):
        exec(f"{text}@cascade_ingestion(partitions='none', {options})\ndef x():\n    return []\n", {})
