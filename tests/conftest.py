"""Makes `generated`, `dagster_ui` and the package `servers` importable from every folder of tests; the real servers."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent / "integration"))

if TYPE_CHECKING:
    from servers.stack import Stack


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--on-servers",
        action="store_true",
        help="run the behaviour suites of tests/runtime on PostgreSQL, S3 and Nessie instead of a folder",
    )


@pytest.fixture(scope="session")
def stack() -> "Iterator[Stack]":
    """PostgreSQL, S3, Nessie and Trino, started once for all tests that ask for them."""
    from servers.stack import Stack

    with Stack() as servers:
        yield servers
