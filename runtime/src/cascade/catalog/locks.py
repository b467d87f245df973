"""Take turns: locks that end with the process that holds them, as files on one machine or in PostgreSQL for several."""

from __future__ import annotations

import abc
import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from filelock import FileLock, Timeout

from cascade.errors import LeaseHeldError
from cascade.postgres import explain_postgres, is_restarting

if TYPE_CHECKING:
    from pydantic import SecretStr

__all__ = ["WAIT_SECONDS", "FileLocks", "Locks", "PostgresLocks"]

#: So long a writer waits for its turn.
WAIT_SECONDS = 600
# So long a restart of PostgreSQL may take.
_PATIENCE_SECONDS = 60


class Locks(abc.ABC):
    """Named locks between processes. A thread may take one that it holds already."""

    @abc.abstractmethod
    def hold(self, name: str) -> AbstractContextManager[object]:
        """Wait for a lock and hold it."""

    @abc.abstractmethod
    def lease(self, target: str, holder: str) -> AbstractContextManager[None]:
        """Hold the right to work towards a branch, or refuse at once; see `BranchingCatalog.lease`."""


class FileLocks(Locks):
    """Operating system locks in a folder: they end with the process, also when that is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def hold(self, name: str) -> FileLock:
        """Wait for a lock and hold it."""
        # One object per file and process: a second one would wait for the first for ever.
        return FileLock(str(self._folder / f"{name}.lock"), timeout=WAIT_SECONDS, is_singleton=True)

    @contextlib.contextmanager
    def lease(self, target: str, holder: str) -> Iterator[None]:
        """Hold the right to work towards a branch."""
        lock = FileLock(str(self._folder / f"lease-{target}.lock"), timeout=0)
        note = self._folder / f"lease-{target}.holder"
        try:
            lock.acquire()
        except Timeout:
            raise _held(target, note.read_text("utf-8") if note.exists() else "", str(self._folder.parent)) from None
        try:
            note.write_text(_described(holder), "utf-8")
            yield
        finally:
            note.unlink(missing_ok=True)
            lock.release()


class PostgresLocks(Locks):
    """Advisory locks of a PostgreSQL session: they end with the connection, and so with the process.

    A lock lost with its connection, when the server restarts, only costs the turn: commits compare what
    they replace, and a writer that was overtaken is refused.
    """

    def __init__(self, engine: sa.Engine, url: SecretStr) -> None:
        self._engine = engine
        self._url = url
        self._mine = threading.local()
        self._reached = False

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
                raise _held(target, self._who(connection, key), f"PostgreSQL at {self._engine.url.host}")

        with self._session(_described(holder), take):
            yield

    def _session(self, name: str, take: Callable[[sa.Connection], None]) -> contextlib.ExitStack:
        """Take a lock in a connection of its own, which shows in PostgreSQL what it is for; closing it frees the lock.

        That is repeated for as long as a restart of the server takes, once the server was there.
        """
        until = 0.0
        while True:
            connected = False
            try:
                with contextlib.ExitStack() as session:
                    connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                    session.callback(connection.close)
                    session.callback(connection.invalidate)  # before it is closed, so that nobody gets it again
                    self._reached = connected = True
                    connection.execute(sa.select(sa.func.set_config("application_name", name[:63], False)))
                    take(connection)
                    return session.pop_all()
            except sa.exc.DBAPIError as error:
                gone = is_restarting(error) or (self._reached and not connected)
                until = until or time.monotonic() + _PATIENCE_SECONDS
                if not gone or time.monotonic() > until:
                    raise explain_postgres(error, self._url, "catalog_url") from error
            time.sleep(0.5)

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


def _described(holder: str) -> str:
    return f"{holder}, process {os.getpid()} on {socket.gethostname()}, since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def _held(target: str, who: str, where: str) -> LeaseHeldError:
    return LeaseHeldError(
        f"Another pipeline run is working towards `{target}`: {who or 'another process'}.",
        where=where,
        fix="wait for it to end, or stop it, then run again.",
    )
