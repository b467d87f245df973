"""Makes `generated`, `dagster_ui` and the package `servers` importable from every folder of tests; the real servers."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent / "integration"))

# A run starts a thousand processes. Where the machine says that none may keep its bytecode, each of them compiles all
# its imports anew, which takes longer than all else that most of them do.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

if TYPE_CHECKING:
    from servers.stack import Stack


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--on-servers",
        action="store_true",
        help="run the behaviour suites of tests/runtime on PostgreSQL, S3 and Nessie instead of a folder",
    )
    parser.addoption(
        "--whole",
        action="store_true",
        help="every step of the long loops of kills and restarts, and every mixture of catalog and storage",
    )


@pytest.fixture(scope="session")
def whole(request: pytest.FixtureRequest) -> bool:
    """Whether loops of kills, restarts and writers go all their way; else a fixed part of it."""
    return bool(request.config.getoption("--whole"))


@pytest.fixture(scope="session")
def stack() -> "Iterator[Stack]":
    """PostgreSQL, S3, Nessie and Trino, started once for all tests that ask for them."""
    from servers.stack import Stack

    with Stack() as servers:
        yield servers
