"""Logs of real runs: each line is of the documented form, says where it comes from, and holds no secret.

Modules: `cascade_logs.handler`, `cascade_logs.entry`, `cascade_logs.settings`.
"""

import datetime as dt
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from cascade_logs.entry import SCHEMA, entry_of, secrets_of
from support.projects import Command, make_project

DAGSTER = """
telemetry: {enabled: false}
python_logs:
  managed_python_loggers: [workflows, cascade_servers]
  python_log_level: INFO
  dagster_handler_config:
    handlers:
      cascade: {class: cascade_logs.handler.Handler}
"""
WORKFLOW = '''
import logging
import os

import dagster as dg

from cascade.ingestion import cascade_ingestion


@cascade_ingestion(
    partitions=dg.StaticPartitionsDefinition(["north", "south"]), partition_column="shop",
    write="replace_partition", max_retries=0,
)
def sales(context):
    """Sales of a shop."""
    logging.getLogger("workflows.sales").info("asking %s", os.environ["SHOP_TOKEN"])
    logging.getLogger("workflows.sales").debug("not told")
    context.log.warning("a word to the wise: é")
    if os.environ.get("BREAK"):
        raise RuntimeError(f"https://me:{os.environ['SHOP_TOKEN']}@shop is away")
    return [{"id": 1, "shop": context.partition_key}, {"id": 2, "shop": context.partition_key}]
'''
TOKEN = "tok-12345"
# Dagster says once a process that handlers in dagster.yaml are a beta; pytest has its own filters.
pytestmark = pytest.mark.filterwarnings("ignore:Handling yaml-defined logging configuration")
VALID = Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")), format_checker=Draft202012Validator.FORMAT_CHECKER)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = make_project(tmp_path / "shop", {"dagster.yaml": DAGSTER, "workflows/sales.py": WORKFLOW})
    monkeypatch.chdir(root)
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)
    monkeypatch.setenv("CASCADE_LOGS__FOLDER", "logs")
    return root


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def entries(root: Path) -> list[dict[str, Any]]:
    """Return what was written, each line checked against the schema."""
    (file,) = (root / "logs").glob("*.jsonl")
    assert TOKEN not in file.read_text("utf-8")
    found = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    for entry in found:
        VALID.validate(entry)
    return found


def test_every_line_of_a_run_is_of_the_documented_form_and_says_where_it_comes_from(
    project: Path, command: Command
) -> None:
    done = command("run", "--partition", "north")
    assert done.code == 0, done.err
    assert "{" not in done.err  # people read text
    found = entries(project)
    asked = next(entry for entry in found if entry["message"].startswith("asking"))
    assert asked["message"] == "asking ***"
    assert (asked["level"], asked["logger"]) == ("INFO", "workflows.sales")
    said = next(entry for entry in found if "wise" in entry["message"])
    assert (said["level"], said["message"]) == ("WARNING", "a word to the wise: é")
    for entry in (asked, said):
        assert (entry["asset"], entry["partition"]) == ("raw/sales", "north")
        assert entry["branch"] == f"run-{entry['run'][:8]}"
    loaded = next(entry for entry in found if entry.get("rows") is not None and entry["asset"] == "raw/sales")
    assert loaded["rows"] == 2
    assert {"snapshot", "milliseconds"} <= loaded.keys()
    assert not [entry for entry in found if entry["message"] == "not told"]
    assert len({entry["run"] for entry in found}) == 1


def test_a_failure_has_its_traceback_without_the_secret(
    project: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREAK", "1")
    assert command("run", "--partition", "south").code == 1
    failed = next(entry for entry in entries(project) if "RuntimeError" in entry.get("exception", ""))
    assert failed["level"] == "ERROR"
    assert "https://me:***@shop is away" in failed["exception"]


def test_json_goes_to_standard_error_when_asked_for(
    project: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CASCADE_LOGS__FOLDER")
    assert "{" not in command("run", "--partition", "north").err
    monkeypatch.setenv("CASCADE_LOGS__FORMAT", "json")
    err = command("run", "--partition", "south").err
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert any(line["message"] == "asking ***" for line in lines)
    for line in lines:
        VALID.validate(line)
    assert not (project / "logs").exists()


def test_a_wrong_setting_is_refused_before_anything_runs(
    project: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASCADE_LOGS__FORMAT", "xml")
    done = command("run")
    assert done.code != 0
    assert "logs.format" in done.err or "CASCADE_LOGS__FORMAT" in done.err


def test_records_of_anybody_become_entries() -> None:
    record = logging.makeLogRecord({"name": "x", "levelno": logging.ERROR, "msg": "pass%s", "args": ("word-1",)})
    entry = entry_of(record, secrets_of({"DB_PASSWORD": "word-1"}))
    VALID.validate(entry)
    assert (entry["level"], entry["message"]) == ("ERROR", "pass***")


def test_secrets_are_found_by_name_and_in_addresses() -> None:
    values = {"A_TOKEN": "t" * 8, "SHORT_KEY": "abc", "DB": "postgresql://u:p%40ssword@h/d", "HOME": "/root", "X": None}
    assert sorted(secrets_of(values)) == ["p%40ssword", "p@ssword", "t" * 8]


def test_old_files_go(project: Path, command: Command) -> None:
    (project / "logs").mkdir()
    recent = f"{dt.datetime.now(dt.UTC).date() - dt.timedelta(days=2)}.jsonl"
    for name in ("2020-01-01.jsonl", "2020-01-01.txt", recent):
        (project / "logs" / name).touch()
    assert command("run", "--partition", "north").code == 0
    kept = sorted(path.name for path in (project / "logs").iterdir())
    assert (kept[:2], len(kept)) == (["2020-01-01.txt", recent], 3)
