"""Fixtures of the tests that need servers."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_support import Postgres, running_postgres

# What the tests of the runtime share, also when only this folder is collected.
sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))

pytest_plugins = ["marts_support"]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """PostgreSQL alone, with databases and roles."""
    with running_postgres() as running:
        yield running
