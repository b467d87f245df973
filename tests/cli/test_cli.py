"""The command line as a black box: what it prints where, what it exits with, what bad input gets.

Modules: `cascade_project.dev`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cascade.catalog import open_catalog
from cascade.config import load_settings
from support.generated import Project

Done = subprocess.CompletedProcess[str]

COMMANDS = ("run", "materialize", "query", "table", "quarantine", "branch", "validate", "dev", "config")
BRANCH_COMMANDS = ("list", "create", "delete", "diff", "promote", "log", "restore")


# Help


def test_help_names_every_command_and_the_exit_codes(fresh: Project) -> None:
    done = fresh.cascade("--help", cwd=Path("/"))
    assert (done.returncode, done.stderr) == (0, "")
    for word in (*COMMANDS, "Exit code 0"):
        assert word in done.stdout


@pytest.mark.parametrize("command", [*COMMANDS, *(f"branch {name}" for name in BRANCH_COMMANDS), "config show"])
def test_every_command_explains_itself_outside_a_project(command: str, fresh: Project, tmp_path: Path) -> None:
    done = fresh.cascade(*command.split(), "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: cascade " + command in " ".join(done.stdout.split())


# One JSON document


def test_run_prints_one_document_and_progress_beside_it(project: Project) -> None:
    """Not on a terminal, progress is plain lines, and nothing on standard output but the document."""
    done = project.cascade("run", "--select", "weather_observations", "--partition", "2013-07-01", "--json")
    document = json.loads(done.stdout)
    assert document["success"] is True
    assert document["partitions"] == {"raw/weather_observations": "2013-07-01"}
    assert {"asset": "raw/weather_observations", "rows": 26_115}.items() <= document["assets"][0].items()
    assert "started raw/weather_observations" in done.stderr


@pytest.mark.parametrize(
    ("command", "holds"),
    [
        ("config show", lambda found: found[0]["name"] == "project_dir"),
        ("branch list", lambda found: found[0]["name"] == "main"),
    ],
)
def test_json_is_one_document(command: str, holds: Callable[[Any], bool], project: Project) -> None:
    found = project.json(*command.split())
    assert holds(found), found


def test_json_of_a_query_is_an_array_of_rows(project: Project) -> None:
    """Values that JSON has no word for are there all the same."""
    sql = "select id, date '2013-07-01' as day, 1.5::decimal(4, 2) as half, null as nothing from raw.guests order by id"
    rows = project.json("query", sql)
    assert rows[0] == {"id": 1, "day": "2013-07-01", "half": 1.5, "nothing": None}
    assert len(rows) == 2


def test_a_branch_from_its_making_to_its_end(project: Project) -> None:
    """Every command answers with one document."""
    before = open_catalog(load_settings(project.root)).log()[0].id
    assert project.json("branch", "create", "fix-july")["kind"] == "branch"
    done = project.json("materialize", "newcomers", "--branch", "fix-july")
    assert (done["branch"], done["promotion"]) == ("fix-july", None)
    (change,) = project.json("branch", "diff", "fix-july")
    assert (change["table"], change["kind"], change["rows_after"]) == ("raw.newcomers", "created", 1)
    promoted = project.json("branch", "promote", "fix-july")
    assert promoted["move"]["tables"] == ["raw.newcomers"]
    assert project.json("branch", "log")[0] == promoted["move"]
    assert project.json("branch", "restore", str(before))["move"]["tables"] == ["raw.newcomers"]
    assert project.json("branch", "delete", "fix-july")["name"] == "fix-july"


# What is loaded already


def test_a_second_run_has_nothing_to_ingest_and_says_so(project: Project) -> None:
    done = project.cascade("run", "--select", "weather_observations")
    assert done.returncode == 0
    assert "raw/weather_observations: nothing to ingest, every partition is loaded." in done.stdout
    assert "main is unchanged" in done.stdout


# Settings


def test_config_show_says_where_each_value_comes_from(project: Project) -> None:
    """The environment wins over `.env`, which wins over `cascade.yaml`, which wins over `pyproject.toml`."""
    manifest = project.root / "pyproject.toml"
    before = manifest.read_text()
    dotenv, yaml = project.root / ".env", project.root / "cascade.yaml"
    try:
        dotenv.write_text("CASCADE_TIMEZONE=Europe/Paris\nCASCADE_BRANCH=mine\nPOSTGRES_PASSWORD=x\n")
        yaml.write_text("partitions_start: 2020-01-01\ntimezone: Europe/Rome\n")
        manifest.write_text(
            before.replace("[tool.cascade]\n", '[tool.cascade]\nworkflows_dir = "workflows"\nbranch = "x"\n')
        )
        found = {row["name"]: row for row in project.json("config", "show", CASCADE_BRANCH="theirs")}
    finally:
        manifest.write_text(before)
        dotenv.unlink()
        yaml.unlink()
    seen = {name: (row["value"], row["source"]) for name, row in found.items()}
    assert seen["branch"] == ("theirs", "environment")
    assert seen["timezone"] == ("Europe/Paris", ".env")
    assert seen["partitions_start"] == ("2020-01-01", "cascade.yaml")
    assert seen["workflows_dir"] == ("workflows", "pyproject.toml")
    assert seen["dbt_dir"] == ("transforms/dbt", "default")
    assert all(row["description"] for row in found.values())
