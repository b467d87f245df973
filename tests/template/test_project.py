"""A generated project, installed: its pipeline is right, and all its tools work and are quiet."""

from __future__ import annotations

import csv
import gzip
import json
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from support.copies import Run, commit_all
from support.generated import EXTENSIONS, share_bytecode

TABLES = {
    "raw.weather_observations": 26_115,
    "bronze.weather_observations": 26_115,
    "silver.weather_hourly": 26_115,
    "gold.weather_daily": 1_092,
    "marts.weather_monthly": 36,
}


@pytest.fixture(scope="module")
def installed(generate: Callable[..., Path], run: Run) -> Path:
    """A project as a newcomer has it after `uv sync`; its environment is not activated."""
    project = generate()
    commit_all(run, project, "start")
    run("uv", "sync", cwd=project)
    share_bytecode(project / ".venv")
    return project


@pytest.fixture(scope="module")
def lakehouse(installed: Path, run: Run) -> Path:
    """The same project after its first `cascade run`."""
    run(installed / ".venv/bin/cascade", "run", cwd=installed)
    return installed


def test_installing_leaves_nothing_but_the_lock_file(installed: Path, run: Run) -> None:
    changed = run("git", "status", "--porcelain", cwd=installed).stdout.splitlines()
    assert changed in (["?? uv.lock"], [])


@pytest.mark.parametrize(
    "command",
    [
        "cascade validate",
        "dg check defs",
        "dagster definitions validate",
        "pytest -q",
        "ruff check",
        "cascade --help",
    ],
)
def test_every_tool_is_green_and_quiet(command: str, installed: Path, run: Run) -> None:
    """No warning, no deprecation, no traceback; Dagster's own notice on its own command is Dagster's."""
    tool, *arguments = command.split()
    done = run(installed / ".venv/bin" / tool, *arguments, cwd=installed)
    noise = [
        line
        for line in (done.stdout + done.stderr).splitlines()
        if any(word in line.lower() for word in ("warning", "deprecat", "supersed", "traceback"))
        and "definitions_validate_command" not in line
    ]
    assert not noise


def _query(project: Path, run: Run, sql: str, *options: str) -> list[dict[str, object]]:
    done = run(project / ".venv/bin/cascade", "query", sql, "--json", *options, cwd=project)
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


@pytest.mark.parametrize(("table", "rows"), TABLES.items())
def test_every_layer_has_its_rows(table: str, rows: int, lakehouse: Path, run: Run) -> None:
    assert _query(lakehouse, run, f"select count(*) as n from {table}") == [{"n": rows}]


def test_gold_is_what_the_file_says(lakehouse: Path, run: Run) -> None:
    """Computed once more, with nothing but Python's own csv."""
    days: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    with gzip.open(lakehouse / "data/weather.csv.gz", "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            days[row["origin"], row["time_hour"][:10]].append(row)
    found = _query(lakehouse, run, "select * from gold.weather_daily")
    assert {(row["station"], str(row["date"])[:10]) for row in found} == set(days)
    for row in found:
        hours = days[str(row["station"]), str(row["date"])[:10]]
        warmth = [float(hour["temp"]) for hour in hours if hour["temp"] != "NA"]
        rain = [float(hour["precip"]) for hour in hours if hour["precip"] != "NA"]
        assert row["observations"] == len(hours)
        assert row["temperature_mean_f"] == pytest.approx(sum(warmth) / len(warmth))
        assert (row["temperature_min_f"], row["temperature_max_f"]) == (min(warmth), max(warmth))
        assert row["precipitation_total_in"] == pytest.approx(sum(rain))


def test_the_impossible_wind_stops_at_silver(lakehouse: Path, run: Run) -> None:
    sql = "select max({}) as wind from {}"
    assert _query(lakehouse, run, sql.format("wind_speed", "raw.weather_observations")) == [{"wind": 1048.36058}]
    (found,) = _query(lakehouse, run, sql.format("wind_speed_mph", "silver.weather_hourly"))
    assert float(str(found["wind"])) < 250


def test_a_day_loaded_again_changes_no_figure(lakehouse: Path, run: Run) -> None:
    """The incremental model takes the rows in once more and ends with the same ones."""
    before = _query(lakehouse, run, "select * from gold.weather_daily order by station, date")
    run(lakehouse / ".venv/bin/cascade", "run", "--partition", "2013-07-01..2013-07-03", cwd=lakehouse)
    assert _query(lakehouse, run, "select * from gold.weather_daily order by station, date") == before
    assert _query(lakehouse, run, "select count(*) as n from silver.weather_hourly") == [{"n": 26_115}]


def test_running_leaves_nothing_for_git(lakehouse: Path, run: Run) -> None:
    changed = run("git", "status", "--porcelain", cwd=lakehouse).stdout.splitlines()
    assert changed in (["?? uv.lock"], [])


def test_a_missing_data_file_says_so(generate: Callable[..., Path], installed: Path, run: Run) -> None:
    project = generate()
    (project / "data/weather.csv.gz").unlink()
    one_day = ("run", "--partition", "2013-07-01")
    done = run(installed / ".venv/bin/cascade", *one_day, cwd=project, check=False)
    assert done.returncode == 1
    assert "weather.csv.gz is missing" in done.stdout + done.stderr


def test_plain_pip_installs_it(generate: Callable[..., Path], run: Run, tmp_path: Path) -> None:
    """What pip has to build, the project and its runtime; the rest comes from the index, as with uv."""
    project = generate()
    manifest = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv/bin/python"
    install = (python, "-m", "pip", "install", "--quiet", "--no-deps")
    run(*install, project, *manifest["project"]["dependencies"], cwd=tmp_path)
    required = ", ".join(sorted([*(f"cascade-{name}" for name in EXTENSIONS), "cascade-runtime"]))
    assert f"Requires: {required}" in run(python, "-m", "pip", "show", "my-project", cwd=tmp_path).stdout
    run(python, "-c", "import importlib.metadata as m; m.version('cascade-runtime')", cwd=tmp_path)
