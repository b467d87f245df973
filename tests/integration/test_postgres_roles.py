"""What each role of PostgreSQL may do, tried for real: every role, every database, every action."""

from collections.abc import Iterator

import psycopg
import pytest

from cascade.errors import ServiceError
from support.postgres import HOMES, Postgres

DATABASES = ["cascade", "dagster", "nessie", "marts", "postgres", "template1"]

#: What each role may do in its own database. The columns are the roles of `HOMES`, without `cascade_`.
ACCESS = """
                                 catalog  dagster  nessie  publisher  reader
create a table of its own        yes      yes      yes     no         no
make a temporary table           yes      yes      yes     yes        no
publish a mart                   no       no       no      yes        no
read a mart                      no       no       no      yes        yes
read a mart published later      no       no       no      yes        yes
read what was published when     no       no       no      yes        yes
change a mart                    no       no       no      yes        no
empty a mart                     no       no       no      yes        no
index a mart                     no       no       no      yes        no
drop a mart                      no       no       no      yes        no
keep a mart from being written   no       no       no      yes        no
change what was published when   no       no       no      yes        no
make a view on a mart            no       no       no      yes        no
make a schema                    no       no       no      no         no
make a large object              yes      yes      yes     no         no
make a database                  no       no       no      no         no
drop a database                  no       no       no      no         no
make a role                      no       no       no      no         no
give itself a role               no       no       no      no         no
become another role              no       no       no      no         no
change another's password        no       no       no      no         no
read passwords                   no       no       no      no         no
change the server's settings     no       no       no      no         no
read a file of the server        no       no       no      no         no
start a program on the server    no       no       no      no         no
load its own code                no       no       no      no         no
"""

ACTIONS = {
    "create a table of its own": "CREATE TABLE public.own (id int)",
    "make a temporary table": "CREATE TEMPORARY TABLE t (id int)",
    "publish a mart": "CREATE TABLE marts.another (id int)",
    "read a mart": "SELECT * FROM marts.m",
    "read a mart published later": "SELECT * FROM marts.later",
    "read what was published when": "SELECT * FROM cascade.published",
    "change a mart": "UPDATE marts.m SET id = 2",
    "empty a mart": "TRUNCATE marts.m",
    "index a mart": "CREATE INDEX ON marts.m (id)",
    "drop a mart": "DROP TABLE marts.m",
    "keep a mart from being written": "LOCK TABLE marts.m IN SHARE MODE",
    "change what was published when": "DELETE FROM cascade.published",
    "make a view on a mart": "CREATE VIEW marts.v AS SELECT * FROM marts.m",
    "make a schema": "CREATE SCHEMA another",
    "make a large object": "SELECT lo_create(0)",
    "make a database": "CREATE DATABASE another",
    "drop a database": "DROP DATABASE nessie WITH (FORCE)",
    "make a role": "CREATE ROLE another",
    "give itself a role": "GRANT pg_read_all_data TO CURRENT_USER",
    "become another role": "SET ROLE pg_read_all_data",
    "change another's password": "ALTER ROLE postgres PASSWORD 'mine'",
    "read passwords": "SELECT rolpassword FROM pg_authid",
    "change the server's settings": "ALTER SYSTEM SET log_statement = 'all'",
    "read a file of the server": "SELECT pg_read_file('postgresql.conf')",
    "start a program on the server": "COPY (SELECT 1) TO PROGRAM 'cat'",
    "load its own code": "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE c AS 'f'",
}


def _cells() -> list[tuple[str, str, bool]]:
    """The table as role, action, allowed."""
    header, *lines = ACCESS.strip("\n").splitlines()
    roles = [f"cascade_{name}" for name in header.split()]
    cells = []
    for line in lines:
        action, answers = line[:33].strip(), line[33:].split()
        cells += [(role, action, answer == "yes") for role, answer in zip(roles, answers, strict=True)]
    return cells


@pytest.fixture
def marts(postgres_server: Postgres) -> Iterator[Postgres]:
    """A mart from before the roles' script ran again, and one from after it."""
    with postgres_server.connect("cascade_publisher") as publisher:
        publisher.execute("CREATE TABLE marts.m (id int)")
        publisher.execute("CREATE TABLE IF NOT EXISTS cascade.published (table_name text)")
        postgres_server.make_roles()
        publisher.execute("CREATE TABLE marts.later (id int)")
        yield postgres_server
        publisher.execute("DROP TABLE marts.m, marts.later, cascade.published")


def test_the_table_asks_for_every_action() -> None:
    assert {action for _, action, _ in _cells()} == set(ACTIONS)
    assert len(_cells()) == len(ACTIONS) * len(HOMES)


@pytest.mark.parametrize("role", HOMES)
def test_a_role_does_what_it_may_and_nothing_else(marts: Postgres, role: str) -> None:
    """Its own restraints are lifted first: what holds is what it was granted, not what it was set."""
    wrong = []
    with marts.connect(role) as connection:
        connection.execute("SET default_transaction_read_only = off")
        for _, action, allowed in (cell for cell in _cells() if cell[0] == role):
            if (said := _try(connection, ACTIONS[action])) != ("" if allowed else _REFUSED):
                # A table that is not there, in the databases without marts, cannot be used either.
                if not allowed and HOMES[role] != "marts" and said in _ABSENT:
                    continue
                wrong.append(f"{role}: {action}: {said or 'allowed'}")
    assert not wrong


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("role", HOMES)
def test_a_role_enters_its_own_database_only(postgres_server: Postgres, role: str, database: str) -> None:
    if HOMES[role] == database:
        postgres_server.connect(role, database).close()
    else:
        with pytest.raises(psycopg.OperationalError, match=f'permission denied for database "{database}"'):
            postgres_server.connect(role, database)


@pytest.mark.parametrize("database", DATABASES)
def test_a_role_of_somebody_else_enters_no_database(postgres_server: Postgres, database: str) -> None:
    with postgres_server.connect() as superuser:
        superuser.execute("CREATE ROLE stranger LOGIN PASSWORD 'strange'")
        try:
            with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
                psycopg.connect(
                    host="127.0.0.1", port=postgres_server.port, user="stranger", password="strange", dbname=database
                )
        finally:
            superuser.execute("DROP ROLE stranger")


def test_the_reader_reads_only_without_being_told(postgres_server: Postgres) -> None:
    with postgres_server.connect("cascade_reader") as reader:
        assert reader.execute("SHOW transaction_read_only").fetchone() == ("on",)
        assert reader.execute("SHOW search_path").fetchone() == ("marts",)


def test_passwords_are_those_of_the_last_time_and_no_log_has_them(postgres_server: Postgres) -> None:
    """Also where the server is told to log every statement."""
    old = postgres_server.url("cascade_reader")
    with postgres_server.connect() as superuser:
        superuser.execute("ALTER SYSTEM SET log_statement = 'all'")
        superuser.execute("SELECT pg_reload_conf()")
    postgres_server.passwords["POSTGRES_READER_PASSWORD"] = "new'and\\quoted"
    postgres_server.make_roles()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(old)
    new = {"host": "127.0.0.1", "port": postgres_server.port, "dbname": "marts"}
    psycopg.connect(user="cascade_reader", password="new'and\\quoted", **new).close()
    log = postgres_server.server.log.read_text("utf-8", "replace")
    assert "REVOKE ALL ON SCHEMA public" in log
    assert not [name for name, password in postgres_server.passwords.items() if password in log]
    postgres_server.passwords["POSTGRES_READER_PASSWORD"] = "plain-again"
    postgres_server.make_roles()


@pytest.mark.parametrize("variable", ["POSTGRES_NESSIE_PASSWORD", "POSTGRES_READER_PASSWORD"])
def test_a_missing_password_is_named_and_nothing_is_changed(postgres_server: Postgres, variable: str) -> None:
    kept = postgres_server.passwords.pop(variable)
    try:
        with pytest.raises(ServiceError, match=f"Not set: {variable}"):
            postgres_server.make_roles()
    finally:
        postgres_server.passwords[variable] = kept
    postgres_server.connect("cascade_reader").close()


_REFUSED = psycopg.errors.InsufficientPrivilege.sqlstate
_ABSENT = (psycopg.errors.UndefinedTable.sqlstate, psycopg.errors.InvalidSchemaName.sqlstate)


def _try(connection: psycopg.Connection, statement: str) -> str | None:
    """Return the code of what the server says, nothing when it obeys; nothing stays of either."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(statement)
    except psycopg.errors.ActiveSqlTransaction:
        return _try_alone(connection, statement)
    except psycopg.Error as error:
        return error.sqlstate
    return ""


def _try_alone(connection: psycopg.Connection, statement: str) -> str | None:
    """As above, for what runs in no transaction; none of these is allowed to anybody, so nothing is left to undo."""
    try:
        connection.execute(statement)
    except psycopg.Error as error:
        return error.sqlstate
    return ""
