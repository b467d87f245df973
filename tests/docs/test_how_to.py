"""How-to pages about data are followed command by command, in a small project that has the files they show."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from support import forks
from support.generated import REPOSITORY
from support.projects import make_project

PAGES = ("mend-quarantined-rows", "change-a-tables-schema", "transform-in-python")


@pytest.mark.parametrize("page", PAGES)
def test_the_page_does_what_it_says(page: str, environment: dict[str, str], tmp_path: Path) -> None:
    """Lines after `$ ` are commands, those up to the next one what they print; `...` stands for what is left out.

    A block of Python whose first line ends with a path is that file.
    """
    text = (REPOSITORY / "docs/how-to" / f"{page}.md").read_text("utf-8")
    files = re.findall(r"^```python\n(\"\"\"[^\n]*: (\S+)\.\"\"\"\n.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    root = make_project(tmp_path / "project", {path: code for code, path in files})
    blocks = re.findall(r"^```console(?: exit=(\d+))?\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    for exit_code, block in blocks:
        for command, printed in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, flags=re.MULTILINE):
            words = shlex.split(command)
            if words[:3] == ["uv", "run", "cascade"]:
                done = forks.call(*words[3:], cwd=root, environment=environment, seconds=120)
            else:
                done = subprocess.run(command, shell=True, cwd=root, capture_output=True, text=True, check=False)
            out = done.stdout + done.stderr
            assert done.returncode == int(exit_code or 0), f"{command}\n{out}"
            lines = [line.rstrip() for line in printed.splitlines() if line not in ("", "...")]
            missing = [line for line in lines if line not in [one.rstrip() for one in out.splitlines()]]
            assert not missing, f"{command}\n{out}"
