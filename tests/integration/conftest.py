"""Fixtures of the tests that need servers."""

import os
from collections.abc import Iterator

import pytest

from support.browser import browser, page
from support.marts import marts, published
from support.postgres import Postgres, running_postgres

__all__ = ["browser", "marts", "page", "postgres_server", "published"]


@pytest.fixture(scope="module", autouse=True)
def _own_environment() -> Iterator[None]:
    """What a module's projects put into the environment, such as passwords of `.env`, is not there for the next."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """PostgreSQL alone, with databases and roles."""
    with running_postgres() as running:
        yield running
