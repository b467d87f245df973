"""Fixtures of the runtime's tests: nothing of the developer's machine, and a lakehouse of every implementation."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from lake_support import open_embedded

from cascade.catalog import BranchingCatalog

OpenLake = Callable[[], BranchingCatalog]

#: How to open each implementation in a folder: picklable, for the tests with several processes.
IMPLEMENTATIONS: dict[str, Callable[[Path], BranchingCatalog]] = {"embedded": open_embedded}


@pytest.fixture(autouse=True)
def _own_machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide home, settings and the project that the developer may be in."""
    home = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    for name in [n for n in os.environ if n.startswith(("CASCADE_", "DAGSTER_", "DBT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def open_lake(request: pytest.FixtureRequest, tmp_path: Path) -> OpenLake:
    """Open the lakehouse of this test, as any process may do."""
    return partial(IMPLEMENTATIONS[request.param], tmp_path / "lake")


@pytest.fixture
def lake(open_lake: OpenLake) -> BranchingCatalog:
    """A lakehouse with nothing in it."""
    return open_lake()
