"""Commands that people type all day import what they need, and nothing that takes a second.

Modules: `cascade.catalog.files`.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from cascade.catalog import open_catalog
from cascade.config import Settings
from cascade_operations import list_tables
from support.lakes import numbers, promoted, put
from support.projects import make_project

_ASKED = """
import sys
from cascade_cli import main
for arguments in {arguments}:
    try:
        main(arguments)
    except SystemExit as done:
        assert not done.code, arguments
print("imported", *sys.modules)
"""
# What each list of commands must leave alone; the most expensive first.
_NEVER = ("dagster", "dbt", "dlt", "pandera", "polars")
_LIGHT = (*_NEVER, "duckdb", "numpy", "pandas", "pyarrow", "sqlalchemy.orm")
_SETTINGS = (*_LIGHT, "pyiceberg", "sqlalchemy")
_CASES = {
    "settings and plugins": (_SETTINGS, [["config", "show"], ["plugins", "list"]]),
    "branches": ((*_LIGHT, "pyiceberg"), [["branch", "list"], ["branch", "log"]]),
    "tables": (_LIGHT, [["table", "list"], ["table", "list", "-b", "dev"], ["branch", "diff", "same"]]),
    "two states": ((*_NEVER, "numpy", "pandas", "pyarrow", "sqlalchemy.orm"), [["branch", "diff", "dev"]]),
    "rows": (_NEVER, [["query", "select * from raw.a"]]),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("asked") / "project")
    lake = open_catalog(Settings(project_dir=root))
    promoted(lake, "raw.a", numbers(1, 3))
    put(lake, "dev", "raw.a", numbers(2, 9))
    lake.create("same")
    list_tables(Settings(project_dir=root))  # who makes each table is noted, as a run does
    return root


@pytest.mark.parametrize(("never", "arguments"), _CASES.values(), ids=_CASES.keys())
def test_a_command_imports_what_it_needs(project: Path, never: tuple[str, ...], arguments: list[list[str]]) -> None:
    code = _ASKED.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.rpartition("imported ")[2].split())
    assert sorted(imported & {*never}) == []


def test_the_command_guards_against_ctrl_c_at_once() -> None:
    """What is imported before `main` prints a traceback when somebody presses it."""
    code = (
        "import sys; before = {*sys.modules}; import cascade_cli; sys.exit({*sys.modules} - before != {'cascade_cli'})"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
