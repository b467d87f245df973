"""Fixtures of the tests that need servers."""

from collections.abc import Iterator

import pytest
from postgres_support import Postgres, running_postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """PostgreSQL alone, with databases and roles."""
    with running_postgres() as running:
        yield running
