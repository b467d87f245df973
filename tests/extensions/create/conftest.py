"""One generated project for all tests of the package, without the example; and an API on loopback."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.api import Api, serve
from support.generated import Project, generate, odd_folder, stranger

_EXAMPLE = (
    "workflows/ingestion/weather.py",
    "workflows/schemas/weather.py",
    "workflows/quality/weather.py",
    "transforms/dbt/models/silver",
    "transforms/dbt/models/gold",
    "transforms/dbt/models/marts",
    "transforms/dbt/models/bronze/weather_observations.sql",
    "transforms/dbt/tests/no_hour_is_lost.sql",
    "tests/test_project.py",
    "tests/test_weather.py",
    "data",
)


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose example is taken out; comments in its YAML stay."""
    environment = stranger(tmp_path_factory.mktemp("home"))
    root = generate(odd_folder(tmp_path_factory.mktemp("generated")) / "my-project", environment)
    for path in _EXAMPLE:
        shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()
    models = root / "transforms/dbt/models"
    (models / "sources/raw.yml").write_text(
        "version: 2 # of dbt\n\nsources:\n  # What workflows load.\n  - name: 'raw'\n    schema: raw\n    tables: []\n"
    )
    (models / "bronze/bronze.yml").unlink()
    return Project(root, environment)


@pytest.fixture
def root(fresh: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project for one test, which is the working folder."""
    copy = tmp_path / "project"
    shutil.copytree(fresh.root, copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture(scope="session")
def served() -> Iterator[Api]:
    with serve() as api:
        yield api


@pytest.fixture
def api(served: Api) -> Iterator[Api]:
    """The API as it is at first; and again afterwards."""
    yield served
    vars(served).update({**vars(Api()), "url": served.url})
