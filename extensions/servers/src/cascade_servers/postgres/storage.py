"""Dagster's runs and events in PostgreSQL."""

from collections.abc import Sequence
from typing import Self

import dagster as dg
import dagster_postgres
import psycopg
import sqlalchemy as sa
from dagster._core.events import ASSET_CHECK_EVENTS
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster_postgres.utils import DagsterPostgresException
from pydantic import SecretStr

from cascade.errors import ServiceError
from cascade_servers.names import DAGSTER_LOCK
from cascade_servers.postgres.server import explain_postgres, open_postgres, wait_for_postgres, with_driver

__all__ = ["PostgresEvents", "PostgresStorage"]

#: The oldest PostgreSQL that psycopg 3 speaks to.
OLDEST = 12
# One process at a time creates the tables.
_TURN = f"SELECT pg_advisory_xact_lock(hashtext('{DAGSTER_LOCK}'))"


class PostgresStorage(dagster_postgres.DagsterPostgresStorage):
    """Dagster's storage in PostgreSQL, which keeps its connections: logging in costs more than storing an event."""

    @classmethod
    def open(cls, url: SecretStr) -> Self:
        """Open the storage, and make its tables unless they are there.

        Args:
            url: The database.

        Raises:
            ServiceError: PostgreSQL cannot be used, or is too old.
        """
        # Dagster wants psycopg 2, and SQLAlchemy has made version 3 the default.
        address = with_driver(url, "psycopg2").update_query_dict({"application_name": "cascade dagster"})
        engine = wait_for_postgres(open_postgres(url), url, "dagster_url")
        try:
            # Asked here, because Dagster tries for long and does not say what it cannot reach.
            with engine.begin() as connection:
                _require_version(connection, address)
                connection.exec_driver_sql(_TURN)
                storage = cls(address.render_as_string(hide_password=False))
        except (sa.exc.DBAPIError, psycopg.Error, DagsterPostgresException) as error:
            raise explain_postgres(error, url, "dagster_url") from error
        finally:
            engine.dispose()
        storage._event_log_storage = PostgresEvents(
            storage._event_log_storage.postgres_url, should_autocreate_tables=False
        )
        for part in (storage._run_storage, storage._event_log_storage, storage._schedule_storage):
            pool = sa.create_engine(
                address,
                isolation_level="AUTOCOMMIT",
                pool_size=1,
                max_overflow=20,
                pool_pre_ping=True,  # the server may restart
                hide_parameters=True,
            )
            # Not left to Dagster, which tells of every attempt, and then of its own function.
            part._engine = wait_for_postgres(pool, url, "dagster_url")
        return storage


class PostgresEvents(dagster_postgres.PostgresEventLogStorage):
    """Dagster's event log in PostgreSQL, which stores at once what a run plans, too, and not only what it has done."""

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store what a run tells of many partitions, in one statement of each kind.

        Args:
            events: Of one run.
        """
        with self._connect() as connection:
            insert = self.prepare_insert_event_batch(events).returning(SqlEventLogStorageTable.c.id)
            numbers: Sequence[int] = connection.execute(insert).scalars().all()
        numbered = list(zip(events, numbers, strict=True))
        with self.index_transaction() as connection:
            self._store_asset_event_tags(connection, events, numbers)
            # What an asset's entry says of its last event; checks have none.
            for event, number in {_asset(event): (event, number) for event, number in numbered}.values():
                self._store_asset_event(connection, event, number)
        for event, number in numbered:
            if event.dagster_event_type in ASSET_CHECK_EVENTS:
                self.store_asset_check_event(event, number)


def _asset(event: EventLogEntry) -> dg.AssetKey | None:
    return event.dagster_event.asset_key if event.dagster_event else None


def _require_version(connection: sa.Connection, address: sa.URL) -> None:
    version, *_ = (int(part) for part in connection.dialect.server_version_info or (0,))
    if version < OLDEST:
        raise ServiceError(
            f"PostgreSQL {version} is too old.",
            where=f"{address.host}:{address.port or 5432}, database {address.database}, setting `dagster_url`",
            fix=f"use PostgreSQL {OLDEST} or newer.",
        )
