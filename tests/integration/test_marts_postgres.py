"""The promises of publishing that only PostgreSQL can keep: what people add to a mart stays, readers never see half.

Modules: `cascade_servers.postgres.tables`.
"""

import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from cascade.catalog import open_catalog
from cascade.config import Settings
from cascade.errors import SchemaMismatchError, ServiceError
from cascade.publish.marts import publish_marts
from cascade_operations.run import run_pipeline
from cascade_operations.table_changes import drop_tables, rename_table
from cascade_servers.postgres import marts as postgres
from support.lakes import numbers, promoted
from support.marts import Marts, in_background, more
from support.postgres import Postgres
from support.projects import make_project

ADDED = [
    "ALTER TABLE marts.m ADD CONSTRAINT one_id PRIMARY KEY (id), ADD CONSTRAINT positive CHECK (id > 0)",
    "ALTER TABLE marts.m ALTER name SET NOT NULL, ALTER name SET DEFAULT 'x', ADD UNIQUE (name, id)",
    "ALTER TABLE marts.m ADD doubled bigint GENERATED ALWAYS AS (id * 2) STORED",
    "CREATE INDEX by_name ON marts.m (lower(name)) WHERE id > 1",
    'CREATE UNIQUE INDEX "odd USING name" ON marts.m (id DESC) INCLUDE (name)',
    "CREATE STATISTICS marts.both ON id, name FROM marts.m",
    "COMMENT ON TABLE marts.m IS 'what it is'''",
    "COMMENT ON COLUMN marts.m.name IS 'whose'",
    "REVOKE SELECT ON marts.m FROM cascade_reader",
    "GRANT SELECT (id) ON marts.m TO cascade_reader WITH GRANT OPTION",
    "GRANT INSERT, SELECT ON marts.m TO PUBLIC",
    "REVOKE INSERT ON marts.m FROM PUBLIC",
]

#: What people put around a mart that no copy of it would have, and how to see that it works.
AROUND = {
    "a view of another role": (
        ["CREATE SCHEMA analyst", "CREATE VIEW analyst.v AS SELECT count(*) AS n FROM marts.m"],
        "SELECT n FROM analyst.v",
        [(3,)],
    ),
    "a trigger": (
        [
            "CREATE TABLE marts.seen (id bigint)",
            "CREATE FUNCTION marts.see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER"
            " AS 'BEGIN INSERT INTO marts.seen VALUES (NEW.id); RETURN NEW; END'",
            "CREATE TRIGGER t AFTER INSERT ON marts.m FOR EACH ROW EXECUTE FUNCTION marts.see()",
        ],
        "SELECT count(*) FROM marts.seen",
        [(3,)],
    ),
    "a policy": (
        ["ALTER TABLE marts.m ENABLE ROW LEVEL SECURITY", "CREATE POLICY p ON marts.m USING (id = 3)"],
        "SET ROLE cascade_reader; SELECT id FROM marts.m",
        [(3,)],
    ),
    "a foreign key to it": (
        [
            "ALTER TABLE marts.m ADD PRIMARY KEY (id)",
            "CREATE TABLE marts.own (m bigint REFERENCES marts.m DEFERRABLE)",
            "INSERT INTO marts.own VALUES (1)",
        ],
        "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND confrelid = 'marts.m'::regclass",
        [(1,)],
    ),
    "a foreign key of it": (
        [
            "CREATE TABLE marts.dimension (id bigint PRIMARY KEY)",
            "INSERT INTO marts.dimension VALUES (1), (2), (3)",
            "ALTER TABLE marts.m ADD CONSTRAINT f FOREIGN KEY (id) REFERENCES marts.dimension",
        ],
        "SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid = 'marts.m'::regclass",
        [("f",)],
    ),
    "another owner": (
        ["ALTER TABLE marts.m OWNER TO postgres", "GRANT ALL ON marts.m TO cascade_publisher"],
        "SELECT tableowner FROM pg_tables WHERE tablename = 'm'",
        [("postgres",)],
    ),
    "replication": (
        ["ALTER TABLE marts.m REPLICA IDENTITY FULL", "CREATE PUBLICATION p FOR TABLE marts.m"],
        "SELECT tablename FROM pg_publication_tables",
        [("m",)],
    ),
    "storage options": (
        ["ALTER TABLE marts.m SET (fillfactor = 70)"],
        "SELECT reloptions FROM pg_class WHERE oid = 'marts.m'::regclass",
        [(["fillfactor=70"],)],
    ),
    "a function that returns its rows": (
        ["CREATE FUNCTION marts.all_of() RETURNS SETOF marts.m LANGUAGE sql AS 'SELECT * FROM marts.m'"],
        "SELECT count(*) FROM marts.all_of()",
        [(3,)],
    ),
}

# Everything that PostgreSQL's own tools would print of a table, without numbers that differ from table to table.
DESCRIBED = """
    SELECT 'column', attname, format_type(atttypid, atttypmod), attnotnull::text,
        pg_get_expr(d.adbin, d.adrelid), col_description(attrelid, attnum), attacl::text
    FROM pg_attribute LEFT JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = 'marts.m'::regclass AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT 'constraint', conname, pg_get_constraintdef(oid), null, null, null, null
    FROM pg_constraint WHERE conrelid = 'marts.m'::regclass
    UNION ALL SELECT 'index', null, pg_get_indexdef(indexrelid), null, null, null, null
    FROM pg_index WHERE indrelid = 'marts.m'::regclass
    UNION ALL SELECT 'statistics', null, string_agg(pg_get_statisticsobjdef_columns(oid), ','), null, null, null, null
    FROM pg_statistic_ext WHERE stxrelid = 'marts.m'::regclass
    UNION ALL SELECT 'table', pg_get_userbyid(relowner), obj_description(oid, 'pg_class'), null, null, null,
        (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(relacl) a)
    FROM pg_class WHERE oid = 'marts.m'::regclass
    ORDER BY 1, 2, 3
"""


def test_the_reader_may_read_what_is_published(published: Marts) -> None:
    assert published.rows("SELECT * FROM m ORDER BY id") == [(1, "n1"), (2, "n2")]
    assert len(published.rows("SELECT * FROM cascade.published")) == 2


# --- what people added stays ------------------------------------------------------------------------------


def test_keys_indexes_checks_defaults_comments_and_grants_stay(published: Marts) -> None:
    published.owner(*ADDED)
    before = published.rows(DESCRIBED, "postgres")
    more(published)
    assert published.publish() == {"marts.m": 3, "marts.other": 3}
    assert published.rows(DESCRIBED, "postgres") == before
    assert published.rows("SELECT id, doubled FROM marts.m ORDER BY id", "postgres") == [(1, 2), (2, 4), (3, 6)]


@pytest.mark.parametrize("what", AROUND)
def test_what_is_around_a_mart_stays_and_sees_the_new_rows(published: Marts, what: str) -> None:
    statements, sql, expected = AROUND[what]
    published.superuser(*statements)
    more(published)
    assert published.publish() == {"marts.m": 3, "marts.other": 3}
    assert published.rows("SELECT count(*) FROM marts.m", "postgres") == [(3,)]
    with published.server.connect(database="marts") as superuser:
        *before, last = sql.split("; ")
        for statement in before:
            superuser.execute(statement.encode())
        assert superuser.execute(last.encode()).fetchall() == expected


def test_indexes_of_columns_that_go_go_with_them(published: Marts) -> None:
    published.owner("CREATE INDEX by_name ON marts.m (name)", "CREATE UNIQUE INDEX by_id ON marts.m (id)")
    published.replace("m", [{"id": 3, "more": 1.5}])
    published.publish()
    assert published.rows("SELECT * FROM m") == [(3, 1.5)]
    assert published.rows("SELECT indexname FROM pg_indexes WHERE tablename = 'm'") == [("by_id",)]


def test_a_new_column_comes_to_a_mart_with_views(published: Marts) -> None:
    published.owner("CREATE VIEW marts.v AS SELECT id FROM marts.m")
    published.replace("m", [{"id": 3, "name": "x", "more": 1.5}])
    published.publish()
    assert published.rows("SELECT * FROM m") == [(3, "x", 1.5)]
    assert published.rows("SELECT * FROM v") == [(3,)]


@pytest.mark.parametrize("rows", [[{"name": "x"}], None], ids=["column", "table"])
def test_a_view_on_what_must_go_is_named_and_nothing_is_published(published: Marts, rows: Any) -> None:
    published.owner("CREATE VIEW marts.v AS SELECT id FROM marts.m")
    if rows:
        published.replace("other", numbers(1, 9))
        published.replace("m", rows)
    else:
        published.catalog.restore(0)
    with pytest.raises(SchemaMismatchError, match=r"view marts\.v depends on") as caught:
        published.publish()
    assert "marts.m" in str(caught.value)
    assert published.rows("SELECT count(*) FROM other") == [(2,)]
    assert published.rows("SELECT count(*) FROM v") == [(2,)]


def test_a_broken_constraint_is_named_and_nothing_is_published(published: Marts) -> None:
    published.owner("ALTER TABLE marts.m ADD CONSTRAINT one_id PRIMARY KEY (id)")
    published.replace("other", numbers(1, 9))
    published.replace("m", [{"id": 1, "name": "x"}, {"id": 1, "name": "y"}])
    with pytest.raises(SchemaMismatchError, match="one_id") as caught:
        published.publish()
    assert "marts.m" in str(caught.value)
    assert published.rows("SELECT count(*) FROM other") == [(2,)]


def test_tables_of_others_are_left_alone(published: Marts) -> None:
    published.owner("CREATE TABLE marts.mine (id int)", "CREATE VIEW marts.taken AS SELECT 1 AS id")
    more(published)
    published.publish()
    assert published.rows("SELECT count(*) FROM mine") == [(0,)]
    published.replace("taken", numbers(1, 1))
    with pytest.raises(SchemaMismatchError, match=r"marts\.taken.*no table"):
        published.publish()


def test_a_table_that_somebody_dropped_comes_back(published: Marts) -> None:
    published.owner("DROP TABLE marts.m")
    assert published.publish() == {"marts.m": 2}
    assert published.rows("SELECT count(*) FROM m") == [(2,)]


def test_a_dropped_and_a_renamed_mart_leave_the_database(
    marts: Marts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(project_dir=make_project(tmp_path / "project"), marts_url=marts.settings.marts_url)
    monkeypatch.chdir(settings.project_dir)
    for name in ("m", "other"):
        promoted(open_catalog(settings), f"marts.{name}", numbers(1, 2))
    publish_marts(open_catalog(settings), settings)
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'marts' ORDER BY 1"
    assert marts.rows(tables) == [("m",), ("other",)]
    rename_table(settings, "marts.m", "marts.new")
    assert marts.rows(tables) == [("new",), ("other",)]
    drop_tables(settings, ["marts.other"])
    assert (marts.rows(tables), marts.rows("SELECT count(*) FROM new")) == ([("new",)], [(2,)])


def test_nothing_of_a_publication_stays_beside_it(published: Marts) -> None:
    more(published)
    published.publish()
    published.owner("CREATE VIEW marts.v AS SELECT id FROM marts.m")
    published.replace("m", [{"id": 5, "name": "x"}])
    published.publish()
    sql = "SELECT relname FROM pg_class WHERE relnamespace = 'cascade'::regnamespace AND relkind = 'r'"
    assert published.rows(sql) == [("published",)]


# --- readers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("around", [(), ("CREATE VIEW marts.v AS SELECT id FROM marts.m",)], ids=["swap", "exchange"])
@pytest.mark.parametrize("touched", [True, False])
def test_a_transaction_that_repeats_its_reads_sees_one_publication(
    published: Marts, around: tuple[str, ...], touched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that has read one mart before, and another after."""
    monkeypatch.setattr(postgres, "READER_SECONDS", 1)
    published.owner(*around)
    with published.reader(psycopg.IsolationLevel.REPEATABLE_READ) as reader:
        reader.execute("SELECT 1")
        first = reader.execute("SELECT count(*) FROM m").fetchone() if touched else None
        more(published)
        assert published.publish() == {"marts.m": 3, "marts.other": 3}
        seen = [reader.execute(f"SELECT count(*) FROM {t}".encode()).fetchone() for t in ("m", "other")]
        assert len({*seen, first} - {None}) == 1
    assert published.rows("SELECT count(*) FROM m") == [(3,)]


def test_a_reader_that_does_not_let_go_does_not_stop_publishing(
    published: Marts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "READER_SECONDS", 1)
    with published.reader() as reader:
        reader.execute("SELECT * FROM m")
        more(published)
        assert published.publish() == {"marts.m": 3, "marts.other": 3}
        assert reader.execute("SELECT count(*) FROM m").fetchone() == (3,)


@pytest.mark.parametrize("rows", [[{"id": 1}], None], ids=["column", "table"])
def test_who_holds_what_must_change_its_columns_or_go_is_named(
    published: Marts, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "READER_SECONDS", 1)
    with published.reader() as reader:
        reader.execute("SELECT * FROM m")
        published.replace("m", rows) if rows else published.catalog.restore(0)
        with pytest.raises(ServiceError, match=f"pid {reader.info.backend_pid}, user cascade_reader"):
            published.publish()
        assert reader.execute("SELECT * FROM m ORDER BY id").fetchall() == [(1, "n1"), (2, "n2")]
    published.publish()


@pytest.mark.parametrize("around", [(), ("CREATE VIEW marts.v AS SELECT id FROM marts.m",)], ids=["swap", "exchange"])
def test_readers_never_see_half_nor_fail_while_marts_are_published(published: Marts, around: tuple[str, ...]) -> None:
    published.owner(*around)
    published.replace("m", [{"id": 2, "name": "x"}, {"id": 1, "name": "x"}])
    published.publish()
    end = threading.Event()
    sql = b"SELECT (SELECT count(*) FROM marts.m), (SELECT count(*) FROM marts.other)"
    backwards = b"SELECT (SELECT count(*) FROM marts.m), o FROM (SELECT count(*) AS o FROM marts.other) AS x"

    def read() -> set[tuple[int, int]]:
        seen = set()
        with published.server.connect("cascade_reader") as connection:
            while not end.is_set():
                for statement in (sql, backwards):
                    row = connection.execute(statement, prepare=True).fetchone()
                    assert row
                    seen.add((row[0], row[1]))
        return seen

    readers = [in_background(read) for _ in range(4)]
    try:
        for count in range(3, 9):
            published.replace("m", [{"id": n, "name": "x"} for n in range(1, count + 1)])
            published.replace("other", numbers(1, count))
            published.publish()
    finally:
        end.set()
    seen = set().union(*(reader() for reader in readers))
    assert all(m == other for m, other in seen)
    assert (8, 8) in seen or len(seen) > 1


# --- publishers -------------------------------------------------------------------------------------------


def test_publishers_take_turns_and_none_overtakes(published: Marts) -> None:
    for count in (3, 4, 5):
        published.replace("m", [{"id": n, "name": "x"} for n in range(1, count + 1)])
        waiting = [in_background(published.publish) for _ in range(3)]
        written = [wait() for wait in waiting]
        assert [rows for rows in written if rows] == [{"marts.m": count}]
    assert published.rows("SELECT count(*) FROM m") == [(5,)]


def test_two_first_publishers_make_the_schemas_once(marts: Marts) -> None:
    marts.superuser("DROP SCHEMA marts, cascade", "GRANT CREATE ON DATABASE marts TO cascade_publisher")
    try:
        marts.replace("m", numbers(1, 2))
        waiting = [in_background(marts.publish) for _ in range(3)]
        assert [rows for rows in (wait() for wait in waiting) if rows] == [{"marts.m": 2}]
    finally:
        marts.superuser("REVOKE CREATE ON DATABASE marts FROM cascade_publisher")


@pytest.mark.parametrize("moment", ["_put_in_place", "_swap", "_record"])
def test_a_publisher_that_dies_leaves_what_was_there(
    published: Marts, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more(published)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(postgres, moment, die)
        with pytest.raises(KeyboardInterrupt):
            published.publish()
    assert published.rows("SELECT count(*) FROM m") == [(2,)]
    assert published.publish() == {"marts.m": 3, "marts.other": 3}


def test_a_wrong_password_is_told_with_setting_and_remedy(
    postgres_server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the run, at its end."""
    load = "@cascade_ingestion(partitions=none())\ndef a():\n    return [{'id': 1}]\n"
    files = {"workflows/loads.py": f"from cascade.ingestion import cascade_ingestion, none\n\n\n{load}"}
    monkeypatch.chdir(make_project(tmp_path / "project", files))
    url = SecretStr(postgres_server.url("cascade_publisher").replace("@", "x@"))
    outcome = run_pipeline(Settings(project_dir=tmp_path / "project", marts_url=url))
    assert outcome.promotion is not None
    (said,) = outcome.failures
    assert said.startswith("cascade/publish: PostgreSQL cannot be used: user or password is wrong.")
    assert "setting `marts_url`" in said
    assert "correct CASCADE_MARTS_URL" in said


@pytest.mark.parametrize("how", ["restart", "terminate"])
def test_a_server_that_restarts_is_waited_for(published: Marts, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    more(published)
    pointers, times = published.catalog.pointers, []

    def restart(*arguments: Any) -> Any:
        """The marts are read while a transaction is open."""
        if not times:
            times.append(1)
            if how == "restart":
                published.server.server.restart()
            else:
                ours = "FROM pg_stat_activity WHERE usename = 'cascade_publisher'"
                published.superuser(f"SELECT pg_terminate_backend(pid) {ours}")
        return pointers(*arguments)

    monkeypatch.setattr(published.catalog, "pointers", restart)
    assert published.publish() == {"marts.m": 3, "marts.other": 3}
    assert (times, published.rows("SELECT count(*) FROM m")) == ([1], [(3,)])


def test_an_answer_that_is_lost_after_the_commit_publishes_once(
    published: Marts, monkeypatch: pytest.MonkeyPatch
) -> None:
    more(published)
    publish, times = postgres.publish_once, []

    def lose(connection: postgres.Connection, *arguments: Any) -> Any:
        done = publish(connection, *arguments)
        if not times:
            times.append(1)
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return done

    monkeypatch.setattr(postgres, "publish_once", lose)
    assert published.publish() == {}
    assert published.rows("SELECT count(*) FROM m") == [(3,)]
