"""The database and role of Marquez, made by its script on a real PostgreSQL, as often as one likes."""

import psycopg
import pytest

from cascade.errors import ServiceError
from cascade_services.native.postgres import make_roles, url
from support.generated import REPOSITORY
from support.postgres import Postgres

_SCRIPT = REPOSITORY / "extensions/openlineage/src/cascade_openlineage/files/database.sql"


def _make(postgres: Postgres, password: str) -> None:
    passwords = postgres.passwords | {"POSTGRES_MARQUEZ_PASSWORD": password}
    make_roles(postgres.programs, _SCRIPT, port=postgres.port, passwords=passwords)


def test_marquez_fills_its_own_database_and_enters_no_other(postgres_server: Postgres) -> None:
    _make(postgres_server, "before")
    _make(postgres_server, "it's after")  # on an old cluster: what exists stays, the password is the new one

    def connect(database: str, password: str = "it%27s%20after") -> psycopg.Connection:
        return psycopg.connect(url(postgres_server.port, "cascade_marquez", password, database), autocommit=True)

    with connect("marquez") as own:
        own.execute("CREATE TABLE runs (id int)")
        for statement in ("CREATE ROLE another", "CREATE DATABASE another", "DROP DATABASE marquez", "CREATE SCHEMA s"):
            with pytest.raises(psycopg.Error):
                own.execute(statement)
    for database in ("marts", "nessie", "cascade", "dagster"):
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            connect(database)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect("marquez", "before")


def test_without_a_password_nothing_is_made(postgres_server: Postgres) -> None:
    with pytest.raises(ServiceError, match="Not set: POSTGRES_MARQUEZ_PASSWORD"):
        _make(postgres_server, "")
