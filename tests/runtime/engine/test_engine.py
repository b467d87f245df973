"""The promises of `cascade.engine`: SQL that reads a branch, now or then, and can do nothing else.

Modules: `cascade.engine.views`, `cascade.engine.base`, `cascade.engine.snapshots`.
"""

import datetime as dt
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from cascade.catalog import MAIN, BranchingCatalog
from cascade.engine import query, register_table
from cascade.errors import BranchNotFoundError, QueryError
from cascade.iceberg import head
from support.lakes import ids, numbers, promoted, put

COUNT = "SELECT count(*) AS n FROM raw.a"


def n(lake: BranchingCatalog, ref: str, at: int | dt.datetime | None = None) -> int:
    (row,) = query(lake, ref, COUNT, at=at).to_pylist()
    return int(row["n"])


@pytest.fixture
def lake(lake: BranchingCatalog) -> BranchingCatalog:
    promoted(lake, "raw.a", numbers(1, 3))
    return lake


# --- reading ----------------------------------------------------------------------------------------------

STATEMENTS = {
    "join": "SELECT a.id FROM raw.a AS a JOIN raw.b AS b ON b.id = a.id",
    "with": "WITH x AS (SELECT * FROM raw.a) SELECT id FROM x WHERE id IN (SELECT id FROM raw.b)",
    "quoted": 'SELECT id FROM "raw"."a" WHERE id = 2',
    "upper": "select ID from RAW.A where Id = 2",
    "comment": "-- which\nSELECT id FROM raw.a WHERE id = 2;",
    "union": "SELECT id FROM raw.b UNION SELECT id FROM raw.a WHERE id = 2",
}


@pytest.mark.parametrize("sql", STATEMENTS.values(), ids=STATEMENTS.keys())
def test_tables_are_named_by_namespace_and_name(lake: BranchingCatalog, sql: str) -> None:
    promoted(lake, "raw.b", numbers(2, 2))
    assert [list(row.values()) for row in query(lake, MAIN, sql).to_pylist()] == [[2]]


OWN_SQL = {
    "embedded": "FROM raw.a SELECT id WHERE id = 2",
    "trino": "SELECT id FROM raw.a WHERE id = 2 FETCH FIRST ROW ONLY",
}


def test_an_engine_s_own_sql_is_understood(lake: BranchingCatalog) -> None:
    assert query(lake, MAIN, OWN_SQL[lake.settings.engine]).to_pylist() == [{"id": 2}]


def test_tables_of_one_name_in_two_namespaces_are_told_apart(lake: BranchingCatalog) -> None:
    promoted(lake, "bronze.a", numbers(7, 7))
    sql = "SELECT (SELECT max(id) FROM raw.a) AS raw, (SELECT max(id) FROM bronze.a) AS bronze"
    assert query(lake, MAIN, sql).to_pylist() == [{"raw": 3, "bronze": 7}]


def test_the_tables_can_be_listed(lake: BranchingCatalog) -> None:
    sql = "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema = 'raw'"
    assert query(lake, MAIN, sql).to_pylist() == [{"table_schema": "raw", "table_name": "a"}]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("show tables", [{"namespace": "bronze", "table": "b"}, {"namespace": "raw", "table": "a"}]),
        ("SHOW ALL TABLES;", [{"namespace": "bronze", "table": "b"}, {"namespace": "raw", "table": "a"}]),
        ("show tables from raw", [{"namespace": "raw", "table": "a"}]),
        ("describe raw.a", [{"column": "id", "type": "long", "required": False, "comment": None}]),
        ('desc "raw"."A";', [{"column": "id", "type": "long", "required": False, "comment": None}]),
        ("show columns from raw.a", [{"column": "id", "type": "long", "required": False, "comment": None}]),
    ],
)
def test_tables_and_columns_are_shown_alike_on_every_engine(
    lake: BranchingCatalog, sql: str, rows: list[dict[str, object]]
) -> None:
    promoted(lake, "bronze.b", numbers(1, 1))
    assert query(lake, MAIN, sql).to_pylist() == rows


def test_a_statement_without_a_table_is_answered(lake: BranchingCatalog) -> None:
    assert query(lake, MAIN, "SELECT 1 AS one").to_pylist() == [{"one": 1}]


def test_times_are_utc(lake: BranchingCatalog) -> None:
    noon = dt.datetime(2013, 7, 1, 12, tzinfo=dt.UTC)
    put(lake, "dev", "raw.t", pa.table({"seen": [noon]}))
    (row,) = query(lake, "dev", "SELECT seen, CAST(seen AS VARCHAR) AS words FROM raw.t").to_pylist()
    assert row["seen"] == noon
    assert row["words"] in ("2013-07-01 12:00:00+00", "2013-07-01 12:00:00.000000 UTC")


def test_values_are_given_as_parameters(lake: BranchingCatalog) -> None:
    assert query(lake, MAIN, "SELECT id FROM raw.a WHERE id = ?", parameters=[2]).to_pylist() == [{"id": 2}]


def test_each_branch_is_read_as_it_stands(lake: BranchingCatalog) -> None:
    put(lake, "fix", "raw.a", numbers(4, 9))
    lake.tag("v1")
    assert (n(lake, MAIN), n(lake, "fix"), n(lake, "v1")) == (3, 9, 3)


# --- then -------------------------------------------------------------------------------------------------


def test_a_snapshot_is_read_by_its_id_the_other_tables_as_they_are(lake: BranchingCatalog) -> None:
    first = put(lake, "dev", "raw.b", numbers(1, 1)).snapshot_id
    put(lake, "dev", "raw.b", numbers(2, 2))
    sql = "SELECT (SELECT count(*) FROM raw.a) AS a, (SELECT count(*) FROM raw.b) AS b"
    assert query(lake, "dev", sql, at=first).to_pylist() == [{"a": 3, "b": 1}]


def test_a_snapshot_is_read_with_the_columns_it_had(lake: BranchingCatalog) -> None:
    first = put(lake, "dev", "raw.b", numbers(1, 1)).snapshot_id
    put(lake, "dev", "raw.b", [{"id": 2, "name": "two"}])
    assert query(lake, "dev", "SELECT * FROM raw.b", at=first).to_pylist() == [{"id": 1}]


def test_main_at_a_time_is_what_was_promoted_then_not_what_was_written_then(lake: BranchingCatalog) -> None:
    put(lake, "fix", "raw.a", numbers(4, 4))
    written = dt.datetime.now(dt.UTC)
    lake.merge("fix")
    assert (n(lake, MAIN, written), n(lake, MAIN, lake.log()[0].at)) == (3, 4)


def test_main_at_a_time_has_the_tables_of_that_time(lake: BranchingCatalog) -> None:
    before = lake.log()[0].at
    promoted(lake, "raw.b", numbers(1, 1))
    with pytest.raises(QueryError, match=r"raw\.a"):
        query(lake, MAIN, "SELECT * FROM raw.b", at=before)


@pytest.mark.parametrize("kept", [30, 2])
def test_a_branch_at_a_time_or_a_snapshot_is_what_was_written_then(
    lake: BranchingCatalog, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the newest metadata lists that snapshot no more."""
    monkeypatch.setattr(head, "KEPT_STATES", kept)
    moments = []
    for _ in range(5):
        put(lake, "dev", "raw.a", numbers(1, 1))
        (entry,) = query(lake, "dev", COUNT).to_pylist()
        moments.append((lake.load("raw.a", lake.pointers("dev")["raw.a"]).current_snapshot(), entry["n"]))
    for snapshot, count in moments:
        assert snapshot is not None
        at = dt.datetime.fromtimestamp(snapshot.timestamp_ms / 1000, dt.UTC)
        assert (n(lake, "dev", at), n(lake, "dev", snapshot.snapshot_id)) == (count, count)


@pytest.mark.parametrize("ref", [MAIN, "dev"])
def test_before_everything_there_are_no_tables(lake: BranchingCatalog, ref: str) -> None:
    lake.create_if_missing("dev")
    with pytest.raises(QueryError, match=r"raw\.a.* does not exist"):
        n(lake, ref, dt.datetime(2000, 1, 1, tzinfo=dt.UTC))


def test_a_snapshot_that_no_table_has_is_refused(lake: BranchingCatalog) -> None:
    with pytest.raises(QueryError, match="No table of this statement has snapshot 123456789") as caught:
        n(lake, MAIN, 123456789)
    assert caught.value.where == "branch main, tables raw.a"


# --- what is refused --------------------------------------------------------------------------------------

WRITES = [
    "INSERT INTO raw.a VALUES (9)",
    "UPDATE raw.a SET id = 1",
    "DELETE FROM raw.a",
    "MERGE INTO raw.a USING raw.b ON a.id = b.id WHEN MATCHED THEN DELETE",
    "DROP VIEW raw.a",
    "CREATE TABLE x AS SELECT 1",
    "CREATE VIEW x AS SELECT 1",
    "CALL pragma_version()",
    "SELECT 1; DROP VIEW raw.a",
    "SELECT 1; SELECT 2",
    "BEGIN",
    "",
    "-- nothing",
]
OWN_WRITES = {
    "embedded": [
        "COPY raw.a TO 'x.csv'",
        "COPY (SELECT 1) TO 'x.csv'",
        "EXPORT DATABASE 'x'",
        "ATTACH 'x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access=true",
        "PRAGMA database_list",
    ],
    "trino": [
        "ALTER TABLE raw.a EXECUTE optimize",
        "CREATE CATALOG x USING iceberg",
        "DROP CATALOG main",
        "EXECUTE IMMEDIATE 'DROP TABLE raw.a'",
        "EXPLAIN ANALYZE DELETE FROM raw.a",
        "SET SESSION query_max_run_time = '1s'",
        "USE main.raw",
        "COMMENT ON TABLE raw.a IS 'x'",
    ],
}


@pytest.mark.parametrize("sql", WRITES)
def test_everything_but_one_statement_that_reads_is_refused(lake: BranchingCatalog, sql: str) -> None:
    before = lake.pointers(MAIN)
    with pytest.raises(QueryError, match="Only one statement that reads is allowed"):
        query(lake, MAIN, sql)
    assert lake.pointers(MAIN) == before


def test_neither_is_what_only_one_engine_knows(lake: BranchingCatalog) -> None:
    for sql in OWN_WRITES[lake.settings.engine]:
        with pytest.raises(QueryError, match="Only one statement that reads is allowed"):
            query(lake, MAIN, sql)
    assert list(Path.cwd().glob("x*")) == []


OUTSIDE = {
    "embedded": [
        "read_csv('{}')",
        "'{}'",
        "read_text('{}')",
        "read_blob('{}')",
        "glob('{}/../*')",
        "read_json('{}')",
    ],
    "trino": ["system.runtime.queries", "main.raw.a", "TABLE(other.system.query(query => 'DROP TABLE raw.a'))"],
}


def test_what_is_outside_the_lakehouse_is_out_of_reach(lake: BranchingCatalog, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("password\nhunter2\n")
    for source in OUTSIDE[lake.settings.engine]:
        with pytest.raises(QueryError) as caught:
            query(lake, MAIN, f"SELECT * FROM {source.format(secret)}, raw.a")
        assert "hunter2" not in str(caught.value)
        assert "tables of the lakehouse only" in caught.value.fix or "another catalog" in caught.value.what


def test_a_table_that_does_not_exist_is_answered_with_those_that_do(lake: BranchingCatalog) -> None:
    promoted(lake, "gold.b", numbers(1, 1))
    with pytest.raises(QueryError, match="nope") as caught:
        query(lake, MAIN, "SELECT * FROM gold.nope")
    assert caught.value.fix == "the tables of `main` are gold.b, raw.a."


@pytest.mark.parametrize("sql", ["SELECT * FROM raw.nope", "describe raw.nope"])
def test_a_missing_table_of_a_namespace_that_exists_is_not_blamed_on_the_namespace(
    lake: BranchingCatalog, sql: str
) -> None:
    with pytest.raises(QueryError) as caught:
        query(lake, MAIN, sql)
    assert "schema" not in caught.value.what
    assert caught.value.fix == "the tables of `main` are raw.a."


def test_a_table_that_was_not_there_yet_is_answered_with_those_that_were(lake: BranchingCatalog) -> None:
    with pytest.raises(QueryError, match=r"^Table raw.a does not exist\.") as caught:
        query(lake, MAIN, "SELECT * FROM raw.a", at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    assert caught.value.fix == "the tables of `main` at 2020-01-01 00:00:00 UTC were none yet; read a later time."


def test_an_unknown_namespace_is_a_table_that_does_not_exist(lake: BranchingCatalog) -> None:
    with pytest.raises(QueryError, match=r"^Table gould.b does not exist\.") as caught:
        query(lake, MAIN, "SELECT * FROM gould.b")
    assert caught.value.fix == "the tables of `main` are raw.a."


def test_an_empty_branch_says_that_the_pipeline_has_not_run(lake: BranchingCatalog) -> None:
    lake.restore(0)
    with pytest.raises(QueryError, match="none yet: run the pipeline first"):
        n(lake, MAIN)


@pytest.mark.parametrize("sql", ["SELEC 1", "SELECT * FROM", "SELECT nope FROM raw.a", "SELECT 1/'x'"])
def test_wrong_sql_is_a_query_error_in_the_engine_s_words(lake: BranchingCatalog, sql: str) -> None:
    with pytest.raises(QueryError, match=r"Error|SYNTAX_ERROR|COLUMN_NOT_FOUND|TYPE_MISMATCH") as caught:
        query(lake, MAIN, sql)
    assert caught.value.fix


def test_a_branch_that_does_not_exist_is_answered_with_those_that_do(lake: BranchingCatalog) -> None:
    with pytest.raises(BranchNotFoundError, match="there are main"):
        n(lake, "nope")


def test_tables_can_be_shown_in_a_connection_of_one_s_own(lake: BranchingCatalog) -> None:
    table = lake.load("raw.a", lake.pointers(MAIN)["raw.a"])
    with duckdb.connect(":memory:") as connection:
        connection.execute("ATTACH ':memory:' AS lake")
        register_table(connection, "raw.a", table, database="lake")
        found = connection.sql("SELECT id FROM lake.raw.a ORDER BY id").fetchall()
    assert [row[0] for row in found] == ids(lake, MAIN, "raw.a")
