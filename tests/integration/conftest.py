"""Fixtures of the tests that need servers."""

from collections.abc import Iterator

import pytest

from support.browser import browser, page
from support.marts import marts, published
from support.postgres import Postgres, running_postgres

__all__ = ["browser", "marts", "page", "postgres_server", "published"]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """PostgreSQL alone, with databases and roles."""
    with running_postgres() as running:
        yield running
