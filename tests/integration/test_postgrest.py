"""What the API over the marts may read, tried as its roles on the real PostgreSQL, and how its views follow the marts.

Modules: `cascade_postgrest.database`, `cascade_postgrest.openapi`, `cascade_postgrest.commands`.
"""

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from openapi_spec_validator import validate

from cascade.errors import ConfigurationError, SchemaMismatchError, ServiceError
from cascade_postgrest.commands import postgrest
from cascade_postgrest.database import apply_api, read_views
from cascade_postgrest.openapi import document
from cascade_servers.postgres import marts as publisher
from support.lakes import numbers
from support.marts import Marts, more

PASSWORD = r"it's a \secret"

#: What each role may do: the login, and what it becomes with and without a token.
ACCESS = {
    #                                                                 authenticator  anon   user
    "SELECT * FROM api.m": (False, True, True),
    "SELECT * FROM api.later": (False, True, True),
    "SELECT * FROM marts.m": (False, False, False),
    "SELECT * FROM cascade.published": (False, False, False),
    "SELECT cascade.show('m', NULL)": (False, False, False),
    "INSERT INTO api.m VALUES (9, 'x')": (False, False, False),
    "UPDATE api.m SET id = 9": (False, False, False),
    "DELETE FROM api.m": (False, False, False),
    "TRUNCATE marts.m": (False, False, False),
    "DROP VIEW api.m": (False, False, False),
    "CREATE VIEW api.v AS SELECT 1": (False, False, False),
    "CREATE TABLE public.t (id int)": (False, False, False),
    "CREATE TEMPORARY TABLE t (id int)": (False, False, False),
    "CREATE SCHEMA mine": (False, False, False),
    "SELECT lo_create(0)": (False, False, False),
    "SELECT pg_read_file('postgresql.conf')": (False, False, False),
    "SELECT rolpassword FROM pg_authid": (False, False, False),
    "SET ROLE cascade_publisher": (False, False, False),
    "SET ROLE cascade_reader": (False, False, False),
    "SET ROLE cascade_web_anon": (True, True, True),  # who may become both stays one who may
}
ROLES = ("cascade_authenticator", "cascade_web_anon", "cascade_web_user")


def login(marts: Marts, database: str = "marts", password: str = PASSWORD) -> psycopg.Connection:
    where = {"host": "127.0.0.1", "port": marts.server.port, "dbname": database}
    return psycopg.connect(**where, user="cascade_authenticator", password=password, autocommit=True)  # type: ignore[arg-type]


def read(marts: Marts, sql: str, role: str = "cascade_web_anon") -> list[tuple[Any, ...]]:
    with login(marts) as connection:
        connection.execute(f"SET ROLE {role}".encode())
        return connection.execute(sql.encode()).fetchall()


@pytest.fixture
def api(published: Marts) -> Iterator[Marts]:
    """Two marts that are published, and served since."""
    superuser = published.server.passwords["POSTGRES_PASSWORD"]
    env = f'POSTGRES_PASSWORD={superuser}\nPOSTGREST_PASSWORD="{PASSWORD.replace(chr(92), chr(92) * 2)}"\n'
    (published.settings.project_dir / ".env").write_text(env)
    assert [view.name for view in apply_api(published.settings)] == ["m", "other"]
    yield published
    published.superuser("DROP SCHEMA api CASCADE", "DROP SCHEMA IF EXISTS analyst CASCADE")


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_do_what_the_table_says(api: Marts, role: str) -> None:
    api.replace("later", numbers(1, 1))
    api.publish()
    may = {}
    with login(api) as connection:
        for statement in ACCESS:
            with connection.transaction(force_rollback=True):
                connection.execute(f"SET LOCAL ROLE {role}".encode())
                try:
                    connection.execute(statement.encode())
                    may[statement] = True
                except psycopg.errors.InsufficientPrivilege:
                    may[statement] = False
    assert may == {statement: answers[ROLES.index(role)] for statement, answers in ACCESS.items()}


def test_only_the_authenticator_logs_in_and_only_to_the_marts(api: Marts) -> None:
    for role in ROLES[1:]:
        assert api.rows(f"SELECT rolcanlogin FROM pg_roles WHERE rolname = '{role}'", "postgres") == [(False,)]
    for database in ("cascade", "dagster", "nessie", "postgres"):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            login(api, database)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        login(api, password="x")


def test_applying_again_changes_nothing_but_the_password(api: Marts) -> None:
    api.owner("REVOKE SELECT ON api.other FROM cascade_web_anon", "COMMENT ON VIEW api.m IS 'mine'")
    env = api.settings.project_dir / ".env"
    env.write_text(env.read_text().partition("POSTGREST_PASSWORD")[0] + "POSTGREST_PASSWORD=changed\n")
    assert [(view.name, view.comment) for view in apply_api(api.settings)] == [("m", "mine"), ("other", None)]
    login(api, password="changed").close()
    with login(api, password="changed") as connection:
        connection.execute("SET ROLE cascade_web_anon")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM api.other")


# --- views follow the marts -------------------------------------------------------------------------------


def test_a_publication_swaps_tables_below_their_views(api: Marts) -> None:
    """A plain view would make it an exchange of rows, which takes two to three times as long."""
    before = api.rows("SELECT 'marts.m'::regclass::oid, 'api.m'::regclass::oid", "postgres")
    more(api)
    assert api.publish() == {"marts.m": 3, "marts.other": 3}
    assert read(api, "SELECT * FROM api.m ORDER BY id") == [(1, "n1"), (2, "n2"), (3, "n3")]
    ((table, view),) = api.rows("SELECT 'marts.m'::regclass::oid, 'api.m'::regclass::oid", "postgres")
    assert (table != before[0][0], view == before[0][1]) == (True, True)


@pytest.mark.parametrize("around", ["", "CREATE VIEW analyst.v AS SELECT id FROM marts.m"], ids=["swap", "exchange"])
def test_columns_come_and_go_and_grants_and_comments_stay(api: Marts, around: str) -> None:
    if around:
        api.superuser("CREATE SCHEMA analyst", around)
    api.owner(
        "REVOKE SELECT ON api.m FROM cascade_web_anon",
        "GRANT SELECT ON api.m TO cascade_reader",
        "COMMENT ON TABLE marts.m IS 'it''s one'",
        "COMMENT ON COLUMN marts.m.id IS 'its number'",
    )
    grants = "SELECT relacl FROM pg_class WHERE oid = 'api.m'::regclass"
    before = api.rows(grants, "postgres")
    api.replace("m", [{"more": 1.5, "id": 3}])
    api.publish()
    assert read(api, "SELECT id, more FROM api.m", "cascade_web_user") == [(3, 1.5)]
    assert api.rows(grants, "postgres") == before
    view = read_views(api.settings)[0]
    assert view.comment == "it's one"
    assert {column.name: column.comment for column in view.columns} == {"id": "its number", "more": None}
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        read(api, "SELECT * FROM api.m")


def test_a_mart_that_vanished_takes_its_view_along_and_says_so(api: Marts, caplog: pytest.LogCaptureFixture) -> None:
    api.catalog.restore(0)
    api.replace("other", numbers(1, 1))
    with caplog.at_level(logging.WARNING):
        api.publish()
    assert [record.getMessage() for record in caplog.records if record.name == publisher.__name__] == [
        "Mart marts.m is gone from main: PostgreSQL has it no more, nor a view of it in `api`."
    ]
    assert [view.name for view in read_views(api.settings)] == ["other"]
    with pytest.raises(psycopg.errors.UndefinedTable):
        read(api, "SELECT * FROM api.m")


def test_what_stands_on_a_view_is_named_when_its_column_goes(api: Marts) -> None:
    api.owner("CREATE VIEW api.names AS SELECT name FROM api.m")
    more(api)
    api.publish()
    assert len(read(api, "SELECT * FROM api.names")) == 3
    api.replace("m", [{"id": 1}])
    with pytest.raises(SchemaMismatchError, match=r"view api\.names depends on view api\.m"):
        api.publish()
    assert len(read(api, "SELECT * FROM api.names")) == 3


def test_a_mart_with_policies_is_not_served(api: Marts) -> None:
    """A view shows what its owner sees, who is above policies."""
    api.owner("ALTER TABLE marts.m ENABLE ROW LEVEL SECURITY")
    assert [view.name for view in apply_api(api.settings)] == ["other"]


def test_a_reader_never_sees_an_error_or_half(api: Marts) -> None:
    """Neither while tables are swapped nor while columns change; prepared statements as PostgREST has them."""
    stop, seen = threading.Event(), []

    def look() -> None:
        with login(api) as connection:
            connection.prepare_threshold = 0
            while not stop.is_set():
                with connection.transaction():
                    connection.execute("SET LOCAL ROLE cascade_web_anon")
                    asked = "SELECT (SELECT count(*) FROM api.m), (SELECT count(*) FROM api.other)"
                    seen.append(connection.execute(asked, prepare=True).fetchone())

    readers = [threading.Thread(target=look) for _ in range(2)]
    errors: list[Any] = []
    threading.excepthook, before = errors.append, threading.excepthook
    try:
        for reader in readers:
            reader.start()
        for count in range(3, 9):
            api.replace("m", [{"id": n, ("name" if count % 2 else "other"): "x"} for n in range(count)])
            api.replace("other", numbers(1, count))
            api.publish()
    finally:
        stop.set()
        for reader in readers:
            reader.join(60)
        threading.excepthook = before
    assert [str(error.exc_value) for error in errors] == []
    assert {row for row in seen if row[0] != row[1]} == set()
    assert {(2, 2), (8, 8)} & set(seen)


def test_a_reader_that_holds_a_view_stops_no_publication(api: Marts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "READER_SECONDS", 0.5)
    with login(api) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL ROLE cascade_web_anon")
        assert len(connection.execute("SELECT * FROM api.m").fetchall()) == 2
        more(api)
        api.publish()
        assert len(connection.execute("SELECT * FROM api.m").fetchall()) == 2
    assert len(read(api, "SELECT * FROM api.m")) == 3


# --- the document, the command, and what is missing -------------------------------------------------------


def test_the_openapi_document_is_valid_and_says_what_the_catalog_says(api: Marts) -> None:
    api.owner("COMMENT ON COLUMN marts.m.name IS 'whose'", "CREATE TABLE api.hidden (id int)")
    api.owner("REVOKE ALL ON api.hidden FROM cascade_web_anon, cascade_web_user")
    more(api)
    api.publish()
    found = document(read_views(api.settings), title="t", version="1", server="http://127.0.0.1:3010")
    validate(found)
    assert sorted(found["paths"]) == ["/m", "/other"]
    assert found["components"]["schemas"]["m"]["properties"] == {
        "id": {"type": ["integer", "null"], "format": "int64", "description": "PostgreSQL: bigint"},
        "name": {"type": ["string", "null"], "description": "whose"},
    }


def test_the_commands_apply_and_print(api: Marts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cascade_postgrest.commands.load_settings", lambda: api.settings)
    applied = CliRunner().invoke(postgrest, ["apply"], catch_exceptions=False)
    assert [line.split() for line in applied.output.splitlines()[2:]] == [["api.m", "2"], ["api.other", "1"]]
    assert json.loads(CliRunner().invoke(postgrest, ["apply", "--json"]).output)[0]["name"] == "m"
    printed = json.loads(CliRunner().invoke(postgrest, ["openapi"], catch_exceptions=False).output)
    validate(printed)
    assert printed["servers"] == [{"url": "http://127.0.0.1:3010"}]


def test_what_is_missing_is_named_and_no_password_is_shown(api: Marts) -> None:
    env = api.settings.project_dir / ".env"
    env.write_text("POSTGRES_PASSWORD=wrong-one\nPOSTGREST_PASSWORD=other-one\n")
    with pytest.raises(ServiceError, match="password authentication failed") as caught:
        apply_api(api.settings)
    assert not {"wrong-one", "other-one"} & {word.strip("`'\".,") for word in str(caught.value).split()}
    env.write_text("POSTGRES_PASSWORD=x\n")
    with pytest.raises(ConfigurationError, match=r"\.env lacks POSTGREST_PASSWORD"):
        apply_api(api.settings)
    with pytest.raises(ConfigurationError, match="CASCADE_MARTS_URL"):
        read_views(api.settings.model_copy(update={"marts_url": None}))
