"""Locks in PostgreSQL, which let one of several machines write at a time."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import sqlalchemy as sa

from cascade.catalog.locks import Locks
from cascade_embedded.locks import WAIT_SECONDS, describe_holder, lease_held
from cascade_servers.postgres.server import repeat_while_restarting

if TYPE_CHECKING:
    from pydantic import SecretStr

__all__ = ["PostgresLocks"]


class PostgresLocks(Locks):
    """Advisory locks of a PostgreSQL session: they end with the connection, and so with the process.

    The pool of connections waits for a server that restarts (`wait_for_postgres`). A lock lost with its connection
    only costs the turn: commits compare what they replace, and a writer that was overtaken is refused.
    """

    def __init__(self, engine: sa.Engine, url: SecretStr) -> None:
        self._engine = engine
        self._url = url
        self._mine = threading.local()

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Wait for a lock and hold it."""
        held: set[str] = self._mine.__dict__.setdefault("held", set())
        if name in held:
            yield
            return

        def take(connection: sa.Connection) -> None:
            connection.exec_driver_sql(f"SET lock_timeout = '{WAIT_SECONDS}s'")
            connection.execute(sa.select(sa.func.pg_advisory_lock(_key(name))))

        with self._session(f"cascade {name}", take):
            held.add(name)
            try:
                yield
            finally:
                held.discard(name)

    @contextlib.contextmanager
    def lease(self, target: str, holder: str) -> Iterator[None]:
        """Hold the right to work towards a branch."""
        key = _key(f"lease-{target}")

        def take(connection: sa.Connection) -> None:
            if not connection.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar():
                raise lease_held(target, self._who(connection, key), f"PostgreSQL at {self._engine.url.host}")

        with self._session(describe_holder(holder), take):
            yield

    def _session(self, name: str, take: Callable[[sa.Connection], None]) -> contextlib.ExitStack:
        """Take a lock in a connection of its own, which shows in PostgreSQL what it is for; closing it frees the lock.

        That is repeated when the server restarts in between; the pool waits until it is back.
        """

        def attempt() -> contextlib.ExitStack:
            with contextlib.ExitStack() as session:
                connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                session.callback(connection.close)
                session.callback(connection.invalidate)  # before it is closed, so that nobody gets it again
                connection.execute(sa.select(sa.func.set_config("application_name", name[:63], False)))
                take(connection)
                return session.pop_all()

        return repeat_while_restarting(attempt, self._url, "catalog_url")

    def _who(self, connection: sa.Connection, key: int) -> str:
        return (
            connection.execute(
                sa.text(
                    "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
                    " WHERE l.locktype = 'advisory' AND l.granted AND l.database = a.datid"
                    " AND (l.classid::bigint << 32) + l.objid::bigint = :key"
                ),
                {"key": key},
            ).scalar()
            or ""
        )


def _key(name: str) -> int:
    """Return the number of an advisory lock: 63 bits of the name's hash."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1
