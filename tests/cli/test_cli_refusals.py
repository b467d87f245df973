"""The command line as a black box, with bad input: what is wrong, where, how to fix it, and nothing is written."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cascade.catalog import open_catalog
from cascade.config import load_settings
from support.generated import Project

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def nothing_written(project: Project) -> Iterator[None]:
    """Whatever the test does leaves tables and files of the lakehouse as they are.

    A failed run keeps its branch; one that wrote nothing holds what `main` holds.
    """
    before = _state(project.root)
    yield
    assert _state(project.root) == before


def _state(root: Path) -> dict[str, Any]:
    settings = load_settings(root)
    lake = open_catalog(settings)
    return {
        "main": lake.pointers("main"),
        "tables": {pointer for ref in lake.branches() for pointer in lake.pointers(ref.name).values()},
        "files": sorted(str(path) for path in settings.data_path.rglob("*.parquet")),
        "published": settings.marts_path.exists(),
    }


def refuses(done: Done, *words: str, code: int) -> None:
    """Assert that a command failed with a message of ours: what, where, how to fix."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for word in words:
        assert word in done.stderr, f"{word!r} is not in:\n{done.stderr}"


# Settings


@pytest.mark.parametrize(
    ("dotenv", "words"),
    [
        ("CASCADE_BRANCHH=dev", ("branchh", "is not a setting", "the settings are", ".env")),
        ("CASCADE_BRANCH=main", ("`branch`", "never written directly")),
        ("CASCADE_TIMEZONE=Mars", ("`timezone`", "Mars", "Europe/Amsterdam")),
    ],
)
def test_a_wrong_setting_is_named(dotenv: str, words: tuple[str, ...], fresh: Project) -> None:
    file = fresh.root / ".env"
    file.write_text(dotenv)
    try:
        done = fresh.cascade("branch", "list")
    finally:
        file.unlink()
    refuses(done, *words, code=2)


def test_outside_of_a_project_it_says_how_to_get_into_one(fresh: Project, tmp_path: Path) -> None:
    refuses(fresh.cascade("run", cwd=tmp_path), "not a Cascade project", str(tmp_path), "copier copy", code=2)


# Wrong usage


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("rnu", ("No such command", "rnu")),
        ("run --partitoin 2013-07-01", ("No such option", "--partitoin")),
        ("materialize", ("Missing argument", "ASSETS")),
        ("materialize weather_observatoins", ("weather_observatoins", "did you mean raw/weather_observations?\n")),
        (
            "run --select weather_observations --partition 2099-01-01",
            ("'2099-01-01'", "2013-01-01 .. 2013-12-30", "give one of them"),
        ),
        ("run --branch main", ("Nothing was run on main", "`cascade run` without --branch")),
        ("run --branch mine --dry-run", ("towards `main`", "leave out --branch, or --dry-run")),
        ("materialize weather_observations --partition yesterday-ish", ("'yesterday-ish'", "give one of them")),
    ],
)
def test_wrong_usage_is_explained(command: str, words: tuple[str, ...], project: Project) -> None:
    refuses(project.cascade(*command.split()), *words, code=2)


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("branch delete main", ("`main`", "fix:")),
        ("branch delete nope", ("nope", "fix:")),
        ("branch promote nope", ("nope", "fix:")),
        ("branch create ../x", ("'../x' is not a name", "for example")),
        ("branch restore 4711", ("4711", "fix:")),
    ],
)
def test_a_branch_that_cannot_be_is_explained(command: str, words: tuple[str, ...], project: Project) -> None:
    refuses(project.cascade(*command.split()), *words, code=1)


# SQL


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("drop table raw.guests", "Only one statement that reads is allowed, not DROP"),
        ("select 1; delete from raw.guests", "one"),
        ("copy (select 1) to 'stolen.csv'", "not COPY"),
        ("select * from read_text('/etc/passwd')", "fix:"),
        ("select * from raw.nope", "raw.nope"),
        ("selec 1", "selec"),
    ],
)
def test_query_reads_tables_and_nothing_else(sql: str, word: str, project: Project) -> None:
    done = project.cascade("query", sql)
    refuses(done, word, code=1)
    assert not (project.root / "stolen.csv").exists()


def test_query_of_an_unknown_branch_lists_the_known_ones(project: Project) -> None:
    refuses(project.cascade("query", "select 1 from raw.guests", "--branch", "nope"), "nope", "main", code=1)


# Bad rows and bad files


@pytest.mark.usefixtures("nothing_written")
def test_a_key_without_a_value_is_named_and_nothing_is_written(project: Project) -> None:
    refuses(project.cascade("run", "--select", "raw/nameless"), "raw/nameless", "badge", "main is unchanged", code=1)


@pytest.mark.usefixtures("nothing_written")
def test_rows_that_break_the_contract_are_shown_and_nothing_is_written(project: Project) -> None:
    """A failed run prints its document too."""
    done = project.cascade("run", "--select", "raw/grim_guests", "--json")
    refuses(done, code=1)
    document = json.loads(done.stdout)
    assert (document["success"], document["promotion"]) == (False, None)
    (failure,) = document["failures"]
    for word in ("raw/grim_guests", "age", "1985"):
        assert word in failure


@pytest.mark.usefixtures("nothing_written")
def test_a_missing_data_file_is_named(project: Project) -> None:
    file = project.root / "data/weather.csv.gz"
    file.rename(file.with_suffix(".away"))
    try:
        done = project.cascade("run", "--select", "weather_observations", "--partition", "2013-07-05")
    finally:
        file.with_suffix(".away").rename(file)
    refuses(done, "weather.csv.gz is missing", "git restore data", "main is unchanged", code=1)


_HEAD = "from cascade.ingestion import cascade_ingestion\n\n"
BROKEN = {
    "syntax.py": ("def f(:\n", "1", "SyntaxError"),
    "module.py": ("import not_there_at_all\n", "1", "not_there_at_all"),
    "option.py": (
        _HEAD + "@cascade_ingestion(table_nam='x')\ndef f(partition_date: str): ...\n",
        "3",
        "no option `table_nam`",
    ),
    "table.py": (
        _HEAD + "@cascade_ingestion(table_name='../../x', unique_key='id')\ndef g(partition_date: str): ...\n",
        "3",
        "../../x",
    ),
    "cron.py": (
        _HEAD + "@cascade_ingestion(cron='every day', unique_key='id')\ndef h(partition_date: str): ...\n",
        "3",
        "every day",
    ),
    "leaving.py": ("raise SystemExit('bye')\n", "1", "bye"),
}


@pytest.mark.usefixtures("nothing_written")
def test_broken_workflow_files_are_named_together_and_the_rest_loads(project: Project) -> None:
    """Each with file, line and cause."""
    folder = project.root / "workflows/broken"
    folder.mkdir()
    try:
        for name, (text, _, _) in BROKEN.items():
            (folder / name).write_text(text)
        done = project.cascade("validate", "--json")
    finally:
        for file in folder.glob("*.py"):
            file.unlink()
        # Python leaves its cache behind.
        for file in [*folder.rglob("*.pyc")]:
            file.unlink()
    found = json.loads(done.stdout)
    refuses(done, code=1)
    assert len(found["problems"]) == len(BROKEN)
    for name, (_, line, cause) in BROKEN.items():
        (problem,) = [p for p in found["problems"] if p.startswith(f"workflows/broken/{name}:")]
        assert problem.startswith(f"workflows/broken/{name}:{line}")
        assert cause in problem
    assert {"raw/weather_observations", "raw/guests"} <= set(found["assets"])


def test_an_error_is_a_document_for_programs_too(project: Project) -> None:
    done = project.cascade("query", "select * from raw.nobody", "--json")
    refuses(done, "raw.nobody does not exist", code=1)
    error = json.loads(done.stdout)["error"]
    assert (error["what"], error["where"]) == ("Table raw.nobody does not exist.", "branch main")
    assert "raw.guests" in error["fix"]


# A project that moves


def test_a_moved_project_works_or_says_what_to_do(project: Project) -> None:
    """Iceberg's metadata holds absolute paths: a lakehouse cannot just be moved."""
    away = project.root.with_name("moved")
    project.root.rename(away)
    try:
        done = project.cascade("query", "select count(*) as n from raw.guests", "--json", cwd=away)
    finally:
        away.rename(project.root)
    if done.returncode == 0:
        assert json.loads(done.stdout) == [{"n": 2}]
    else:
        refuses(done, "moved", str(project.root), "fix:", code=done.returncode)
    assert project.json("query", "select count(*) as n from raw.guests") == [{"n": 2}]
