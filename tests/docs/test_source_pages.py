"""The pages about sources are followed command by command, in one project, against an API on loopback.

A block of Python is the workflow that the command before it has written, character by character.
"""

from __future__ import annotations

import re
import shlex
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.api import Api, serve
from support.generated import REPOSITORY, Project, generate, stranger

KINDS = ("load-a-rest-api", "load-a-database", "load-files", "load-from-python")
_PUBLIC = "https://api.example.com/v1"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a database and files."""
    environment = stranger(tmp_path_factory.mktemp("home"))
    root = generate(tmp_path_factory.mktemp("generated") / "my-project", environment)
    with sqlite3.connect(root / "shop.db") as database:
        database.execute("create table orders (order_id integer primary key, customer text, changed text)")
        database.execute("insert into orders values (1, 'Ann', '2026-01-01')")
    database.close()
    (root / "data/drops").mkdir()
    (root / "data/drops/a.csv").write_text("Order ID,Zip\n1,01234\n")
    return Project(root, environment)


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    """The API that the pages call by its public name."""
    with serve() as found:
        answer = found.answer
        found.answer = lambda path, given: answer(path.replace("/v1/tickets", "/next"), given)  # type: ignore[method-assign]
        yield found


@pytest.fixture
def project(fresh: Project, tmp_path: Path) -> Project:
    """A copy of the project."""
    subprocess.run(["cp", "-a", fresh.root, tmp_path / "my-project"], check=True)
    return Project(tmp_path / "my-project", fresh.environment)


@pytest.mark.parametrize("page", ["add-a-source", *KINDS])
def test_the_page_does_what_it_says(page: str, project: Project, api: Api) -> None:
    """Lines after `$ ` are commands, those up to the next one what they print; `...` stands for what is left out."""
    text = (REPOSITORY / "docs/how-to" / f"{page}.md").read_text("utf-8")
    blocks = re.findall(r"^```(console|python)(?: exit=(\d+))?\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    assert blocks
    for kind, exit_code, block in blocks:
        if kind == "python":
            written = max((project.root / "workflows/ingestion").glob("*.py"), key=lambda file: file.stat().st_mtime_ns)
            assert written.read_text("utf-8").replace(f"{api.url}/v1", _PUBLIC) == block
            continue
        for command, printed in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, flags=re.MULTILINE):
            words = shlex.split(command.replace(_PUBLIC, f"{api.url}/v1"))
            if words[:3] == ["uv", "run", "cascade"]:
                done = project.cascade(*words[3:])
            else:
                done = subprocess.run(
                    command, shell=True, cwd=project.root, capture_output=True, text=True, check=False
                )
            out = done.stdout + done.stderr
            assert done.returncode == int(exit_code or 0), f"{command}\n{out}"
            lines = [line.rstrip() for line in printed.splitlines() if line not in ("", "...")]
            shown = [line.rstrip() for line in out.splitlines()]
            assert not [line for line in lines if line not in shown], f"{command}\n{out}"
