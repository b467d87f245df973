"""The process in which dbt works."""

import subprocess
from importlib import metadata
from pathlib import Path

from cascade_dbt.process import main
from cascade_dbt.project import DBT


def test_a_file_of_the_project_does_not_take_the_place_of_a_library(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("raise RuntimeError('this is no library')\n")
    done = subprocess.run([*DBT, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert metadata.version("dbt-core") in done.stdout
    assert main.__module__ in DBT
