"""The process in which dbt works."""

import select
import subprocess
import sys
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


def test_dbt_ends_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    """A thread of it that can print no longer would keep it waiting for ever, with the catalog open."""
    child = (
        "from cascade_dbt.process import end_with_parent as e; e(); print(1, flush=True); import time; time.sleep(600)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], cwd=tmp_path, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"1\n"
        started.kill()
        # The pipe is closed when its last writer, the child, has ended.
        assert select.select([started.stdout], [], [], 60)[0]
        assert started.stdout.read() == b""
