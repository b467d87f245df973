"""The promises of `cascade schedules`: what starts runs by itself, and whether Dagster's daemon lets it.

Modules: `cascade_cli.schedules`, `cascade_operations.schedules`.
"""

import json
from pathlib import Path

import pytest

from support.projects import Command, make_project

_WORKFLOW = """
import dagster as dg
from cascade.ingestion import cascade_ingestion

@cascade_ingestion(unique_key="id", partitions="none", cron="0 6 * * *")
def orders():
    return []

@dg.sensor(name="drops", target=dg.AssetSelection.all())
def drops():
    return dg.SkipReason("nothing")
"""
_WORKSPACE = "load_from: [{python_file: {relative_path: definitions.py, location_name: shop}}]\n"


@pytest.fixture
def cascade(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    files = {"workflows/orders.py": _WORKFLOW, "workspace.yaml": _WORKSPACE}
    monkeypatch.chdir(make_project(tmp_path / "shop", files))
    return Command(capsys)


def _states(cascade: Command, *arguments: str) -> dict[str, bool]:
    said = cascade("schedules", *arguments, "--json")
    assert said.code == 0, said
    return {row["name"]: row["running"] for row in json.loads(said.out)}


def test_schedules_and_sensors_of_workflow_files_are_turned_on_and_off(cascade: Command) -> None:
    assert _states(cascade, "list")["raw__orders_schedule"] is False
    assert _states(cascade, "start", "raw__orders_schedule", "drops") == {"raw__orders_schedule": True, "drops": True}
    listed = _states(cascade, "list")
    assert (listed["raw__orders_schedule"], listed["drops"]) == (True, True)
    assert not any(_states(cascade, "stop").values())


def test_one_that_is_on_from_the_start_stays_off_once_it_is_stopped(
    cascade: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASCADE_SCHEDULES", "running")
    assert _states(cascade, "list")["raw__orders_schedule"] is True
    _states(cascade, "stop", "raw__orders_schedule")
    assert _states(cascade, "list")["raw__orders_schedule"] is False


def test_an_unknown_name_changes_nothing_and_the_nearest_one_is_named(cascade: Command) -> None:
    said = cascade("schedules", "start", "raw__order_schedule", "drops")
    assert said.code == 2
    assert "There is no schedule or sensor raw__order_schedule." in said.err
    assert "raw__orders_schedule may be meant" in said.err
    assert _states(cascade, "list")["drops"] is False


def test_without_the_workspace_the_error_says_what_it_is_for(cascade: Command) -> None:
    Path("workspace.yaml").unlink()
    said = cascade("schedules", "list")
    assert said.code == 2
    assert "workspace.yaml" in said.err
