"""Dagster's runs and events in PostgreSQL."""

from typing import Self

import dagster_postgres
import psycopg
import sqlalchemy as sa
from dagster_postgres.utils import DagsterPostgresException
from pydantic import SecretStr

from cascade.errors import ServiceError
from cascade_servers.names import DAGSTER_LOCK
from cascade_servers.postgres.server import explain_postgres, open_postgres, wait_for_postgres, with_driver

__all__ = ["PostgresStorage"]

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


def _require_version(connection: sa.Connection, address: sa.URL) -> None:
    version, *_ = (int(part) for part in connection.dialect.server_version_info or (0,))
    if version < OLDEST:
        raise ServiceError(
            f"PostgreSQL {version} is too old.",
            where=f"{address.host}:{address.port or 5432}, database {address.database}, setting `dagster_url`",
            fix=f"use PostgreSQL {OLDEST} or newer.",
        )
