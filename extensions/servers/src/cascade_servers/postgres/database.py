"""The embedded catalog in PostgreSQL instead of a SQLite file, so that several machines can share it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
from pydantic import SecretStr

from cascade_embedded.database import Database
from cascade_servers.postgres.locks import PostgresLocks
from cascade_servers.postgres.server import open_postgres, repeat_while_restarting, wait_for_postgres

__all__ = ["PostgresDatabase"]

T = TypeVar("T")


class PostgresDatabase(Database):
    """A database of PostgreSQL.

    Args:
        url: `postgresql://user:password@host:port/database`.
    """

    def __init__(self, url: SecretStr) -> None:
        self._url = url
        self.engine = wait_for_postgres(open_postgres(url), url, "catalog_url")
        self.locks = PostgresLocks(self.engine, url)

    def transaction(self, work: Callable[[sa.Connection], T], *, write: bool) -> T:
        """Run inside one transaction, again for as long as a restart of the server takes."""
        isolation = {} if write else {"isolation_level": "REPEATABLE READ"}

        def attempt() -> T:
            with self.engine.connect().execution_options(**isolation) as connection, connection.begin():
                if write:
                    connection.execute(sa.text("LOCK TABLE iceberg_tables IN SHARE ROW EXCLUSIVE MODE"))
                return work(connection)

        return repeat_while_restarting(attempt, self._url, "catalog_url")
