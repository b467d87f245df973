"""A lakehouse in a folder whose marts go to PostgreSQL."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cascade.catalog import BranchingCatalog
from cascade.config import Settings
from cascade.publish.marts import publish_marts
from support.lakes import numbers, open_embedded, promoted
from support.postgres import Postgres


@dataclass
class Marts:
    """The lakehouse, and the database as each role sees it."""

    catalog: BranchingCatalog
    settings: Settings
    server: Postgres

    def publish(self) -> dict[str, int]:
        return publish_marts(self.catalog, self.settings)

    def replace(self, name: str, rows: Any) -> None:
        """Promote a mart with these rows and no others, columns included."""
        promoted(self.catalog, f"marts.{name}", rows, mode="replace", exact=True)

    def owner(self, *statements: str) -> None:
        """Run SQL as the role that publishes."""
        with self.server.connect("cascade_publisher") as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def superuser(self, *statements: str) -> None:
        """Run SQL as somebody who may do everything."""
        with self.server.connect(database="marts") as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def rows(self, sql: str, role: str = "cascade_reader") -> list[tuple[Any, ...]]:
        """Return what a role reads."""
        with self.server.connect(role, "marts") as connection:
            return connection.execute(sql.encode()).fetchall()

    def reader(self, isolation: psycopg.IsolationLevel = psycopg.IsolationLevel.READ_COMMITTED) -> psycopg.Connection:
        """Open a transaction that somebody keeps open."""
        connection = psycopg.connect(self.server.url("cascade_reader"))
        connection.isolation_level = isolation
        return connection


@pytest.fixture
def marts(postgres_server: Postgres, tmp_path: Path) -> Iterator[Marts]:
    """An empty lakehouse and an empty database."""
    settings = Settings(project_dir=tmp_path, marts_url=postgres_server.url("cascade_publisher"))
    yield Marts(open_embedded(tmp_path), settings, postgres_server)
    with postgres_server.connect(database="marts") as superuser:
        superuser.execute("DROP SCHEMA marts, cascade CASCADE")
        superuser.execute("DROP SCHEMA IF EXISTS analyst CASCADE")
        superuser.execute("DROP PUBLICATION IF EXISTS p")
    postgres_server.make_roles()


@pytest.fixture
def published(marts: Marts) -> Marts:
    marts.replace("m", [{"id": n, "name": f"n{n}"} for n in (1, 2)])
    marts.replace("other", numbers(1, 2))
    assert marts.publish() == {"marts.m": 2, "marts.other": 2}
    return marts


def more(marts: Marts) -> None:
    """Put a third row into both marts."""
    marts.replace("m", [{"id": n, "name": f"n{n}"} for n in (1, 2, 3)])
    marts.replace("other", numbers(1, 3))


def in_background(work: Callable[[], Any]) -> Callable[[], Any]:
    """Start a function in a thread; calling what is returned waits for its result, or raises what it raised."""
    result: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001 told to whoever waits
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def wait() -> Any:
        thread.join(120)
        assert not thread.is_alive(), "it does not end"
        if failure:
            raise failure[0]
        return result[0]

    return wait
