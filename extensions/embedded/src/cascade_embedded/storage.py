"""Dagster's runs and events in SQLite files, whose connections stay open."""

import contextlib
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, Self

import dagster as dg
import sqlalchemy as sa
from dagster._core.events import ASSET_CHECK_EVENTS
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage, sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage, _event_logs_directory
from pydantic import SecretStr

__all__ = ["SqliteEvents", "SqliteStorage"]

_BUSY_SECONDS = 60
# How many files stay open: each run has one, and the daemon reads them all.
_KEPT_FILES = 8


def _address(base_dir: str, db_name: str) -> str:
    """Return the URL of a SQLite file. Dagster's own is not quoted: a folder `50%20` would become `50 `."""
    return str(sa.URL.create("sqlite", database=os.path.abspath(f"{base_dir}/{db_name}.db")))


for _module in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
    _module.create_db_conn_string = _address  # type: ignore[attr-defined]


class SqliteStorage(DagsterSqliteStorage):
    """Dagster's storage in a folder of SQLite files, which keeps events with `SqliteEvents`."""

    @classmethod
    def open(cls, url: SecretStr) -> Self:
        """Open the storage.

        Args:
            url: The folder, as the database of a SQLite URL.
        """
        folder = sa.make_url(url.get_secret_value()).database or "."
        events = SqliteEvents(_event_logs_directory(folder))  # before Dagster's own creates the file of all runs
        storage = cls.from_local(folder)
        storage._event_log_storage = events
        return storage


class SqliteEvents(SqliteEventLogStorage):
    """Dagster's event log in SQLite, with connections that stay open, and one transaction for many events.

    Dagster opens connections for every event, and a run over a range of days writes thousands.
    """

    def __init__(self, base_dir: str) -> None:
        self._engines: OrderedDict[str, sa.Engine] = OrderedDict()
        super().__init__(base_dir)

    def _initdb(self, engine: sa.Engine, for_index_shard: bool = False) -> None:
        sa.event.listen(engine, "connect", _size_pages)
        super()._initdb(engine, for_index_shard)

    @contextlib.contextmanager
    def _connect(self, shard: str) -> Iterator[sa.Connection]:
        with self._db_lock:
            if shard not in self._engines:
                url = self.conn_string_for_shard(shard)
                self._engines[shard] = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
                sa.event.listen(self._engines[shard], "connect", _sync_at_checkpoints)
            self._engines.move_to_end(shard)
            if len(self._engines) > _KEPT_FILES:
                self._engines.popitem(last=False)[1].dispose()
            engine = self._engines[shard]
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store what a run tells of many partitions, in one transaction of each file.

        Args:
            events: Of one run.
        """
        insert = SqlEventLogStorageTable.insert()
        rows = [self._event_to_row(event) for event in events]
        with self.run_connection(events[0].run_id) as connection:
            connection.execute(insert, rows)
        with self.index_transaction() as connection:
            connection.execute(insert, rows)
            # Nobody else writes during the transaction: the numbers are consecutive.
            newest: int = connection.execute(sa.select(sa.func.max(SqlEventLogStorageTable.c.id))).scalar_one()
            numbered = list(zip(events, range(newest - len(events) + 1, newest + 1), strict=True))
            self._store_asset_event_tags(connection, events, [number for _, number in numbered])
            # What an asset's entry says of its last event; checks have none.
            for event, number in {_asset(event): (event, number) for event, number in numbered}.values():
                self._store_asset_event(connection, event, number)
        for event, number in numbered:
            if event.dagster_event_type in ASSET_CHECK_EVENTS:
                self.store_asset_check_event(event, number)

    def dispose(self) -> None:
        """Close the files."""
        super().dispose()
        while self._engines:
            self._engines.popitem()[1].dispose()


def _asset(event: EventLogEntry) -> dg.AssetKey | None:
    return event.dagster_event.asset_key if event.dagster_event else None


def _sync_at_checkpoints(connection: Any, _record: object) -> None:
    # The log is in WAL mode: a power cut may lose the last events, never their order. Data is synced elsewhere.
    connection.execute("PRAGMA synchronous=NORMAL")


def _size_pages(connection: Any, _record: object) -> None:
    # Of a new file. Of events, which take 2 kB each, a page of SQLite's own size, 4 kB, would hold one.
    connection.execute("PRAGMA page_size=8192")
