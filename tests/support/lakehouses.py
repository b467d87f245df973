"""Fixtures of tests that use lakehouses: nothing of the developer's machine, and every implementation.

A folder of tests imports those that it needs into its `conftest.py`.

With `--on-servers` the behaviour suites run again on real servers. A test that opens a lakehouse by `lake` or
`open_lake` runs on Nessie, and on the embedded catalog: in PostgreSQL when it is about catalogs, with files on S3 when
it is about files; with `--whole` on both. A module that opens it from settings names those that its promises hold for:

    pytestmark = pytest.mark.on_servers("nessie")
    pytestmark = pytest.mark.on_servers("nessie", shared=True)  # one lakehouse for all tests of the module
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection

from cascade.catalog import BranchingCatalog
from support.lakes import as_settings, open_with

OpenLake = Callable[[], BranchingCatalog]

_HIDDEN = ("CASCADE_", "DAGSTER_", "DBT_")


@pytest.fixture(scope="module")
def lake_kind() -> str:
    """The implementation that a test runs on; `embedded` is a folder."""
    return "embedded"


@pytest.fixture(scope="module", autouse=True)
def _own_machine(
    lake_kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Hide home, settings and the project that the developer may be in."""
    home = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    stack = None if lake_kind == "embedded" else request.getfixturevalue("stack")
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith(_HIDDEN)]:
            patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.chdir(home)
        if stack:
            _use_servers(patch, stack, lake_kind)
        yield


@pytest.fixture(autouse=True)
def _own_lake(lake_kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test an empty lakehouse, unless its module shares one."""
    marker = request.node.get_closest_marker("on_servers")
    if lake_kind == "embedded" or (marker and marker.kwargs.get("shared")):
        yield
        return
    _use_servers(monkeypatch, request.getfixturevalue("stack"), lake_kind)
    with _closed_connections():
        yield


@contextlib.contextmanager
def _closed_connections() -> Iterator[None]:
    """Close the pooled connections of the catalogs that a test opened: left to the collector, they are warned of."""
    import psycopg

    opened: list[DBAPIConnection] = []

    def remember(connection: DBAPIConnection, _record: object) -> None:
        if isinstance(connection, psycopg.Connection):  # not Dagster's SQLite, which belongs to its threads
            opened.append(connection)

    sa.event.listen(sa.Pool, "connect", remember)
    yield
    sa.event.remove(sa.Pool, "connect", remember)
    for connection in opened:
        connection.close()


def _use_servers(patch: pytest.MonkeyPatch, stack: object, kind: str) -> None:
    from support.servers.lakes import fresh_lake

    for name, value in fresh_lake(stack, kind).items():  # type: ignore[arg-type]
        patch.setenv(name, value)


@pytest.fixture
def open_lake(tmp_path: Path, _own_lake: None) -> OpenLake:
    """Open the lakehouse of this test, as any process may do: with settings that go where the function goes."""
    return partial(open_with, as_settings(os.environ), tmp_path / "lake")


@pytest.fixture
def lake(open_lake: OpenLake) -> BranchingCatalog:
    """A lakehouse with nothing in it."""
    return open_lake()
