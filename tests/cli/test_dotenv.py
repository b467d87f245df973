"""The promise of `.env`: whatever loads workflows gives them the same variables, dlt's among them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.generated import BIN, Project, run

_WORKFLOW = """\
import json
import os
from pathlib import Path

import dlt

found = {"token": os.environ.get("SHOP_TOKEN"), "key": dlt.secrets.get("sources.shop.api_key")}
Path(__file__).with_name("seen.json").write_text(json.dumps(found))
"""
_TEST = """\
from workflows import seen


def test_nothing():
    assert seen
"""


@pytest.fixture
def seen(fresh: Project) -> Iterator[Path]:
    """A file in which a workflow writes what it has seen when it was imported."""
    made = {
        ".env": "SHOP_TOKEN=s3cr3t\nSOURCES__SHOP__API_KEY=k3y\n",
        "workflows/seen.py": _WORKFLOW,
        "tests/test_seen.py": _TEST,
    }
    for name, text in made.items():
        (fresh.root / name).write_text(text)
    yield fresh.root / "workflows/seen.json"
    for name in [*made, "workflows/seen.json"]:
        (fresh.root / name).unlink(missing_ok=True)


@pytest.mark.parametrize(
    "command",
    [
        "cascade plan weather_observations",
        "dagster definitions validate",
        "dg list defs",
        "pytest -q tests/test_seen.py",
    ],
)
def test_every_way_to_load_workflows_gives_them_the_same_variables(command: str, fresh: Project, seen: Path) -> None:
    """`dagster definitions validate` starts the code server, as `dagster dev` does."""
    program, *arguments = command.split()
    if program == "cascade":
        done = fresh.cascade(*arguments)
    else:
        done = run(BIN / program, *arguments, cwd=fresh.root, environment=fresh.environment)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert json.loads(seen.read_text()) == {"token": "s3cr3t", "key": "k3y"}
