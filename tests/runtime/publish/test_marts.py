"""The promises of publishing, to a DuckDB file, or PostgreSQL with `--on-servers`.

Modules: `cascade.publish.marts`, `cascade_embedded.marts`.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.types import StringType

from cascade.catalog import MAIN, BranchingCatalog
from cascade.config import Settings
from cascade.publish.marts import marts_location, publish_marts
from support.lakes import mark_deleted, numbers, promoted, put

if TYPE_CHECKING:
    from support.servers.stack import Stack

Rows = list[tuple[Any, ...]]


@dataclass
class Target:
    """A lakehouse, and where its marts go."""

    catalog: BranchingCatalog
    settings: Settings

    def publish(self) -> dict[str, int]:
        return publish_marts(self.catalog, self.settings)

    def rows(self, sql: str) -> Rows:
        """Return what any reader gets."""
        if self.settings.marts_url is None:
            with duckdb.connect(str(self.settings.marts_path), read_only=True) as connection:
                connection.execute("SET TimeZone='UTC'")
                return connection.execute(sql).fetchall()
        import psycopg

        with psycopg.connect(self.settings.marts_url.get_secret_value(), options="-c TimeZone=UTC") as connection:
            return connection.execute(sql.encode()).fetchall()

    def tables(self) -> list[str]:
        sql = (
            "SELECT table_schema || '.' || table_name FROM information_schema.tables"
            " WHERE table_schema IN ('marts', 'cascade') ORDER BY 1"
        )
        return [name for (name,) in self.rows(sql)]

    def columns(self) -> list[str]:
        sql = (
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = 'marts' AND table_name = 'm' ORDER BY ordinal_position"
        )
        return [name for (name,) in self.rows(sql)]


@pytest.fixture
def target(lake: BranchingCatalog, lake_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    if lake_kind == "embedded":
        yield Target(lake, Settings(project_dir=tmp_path))
        return
    stack: Stack = request.getfixturevalue("stack")
    url = stack.environment["CASCADE_MARTS_URL"]
    yield Target(lake, Settings(project_dir=tmp_path, marts_url=url))
    import psycopg

    with psycopg.connect(url) as connection:
        tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('marts', 'cascade')"
        for (table,) in connection.execute(tables).fetchall():
            connection.execute(f"DROP TABLE {table}".encode())


@pytest.fixture
def published(target: Target) -> Target:
    promoted(target.catalog, "raw.a", numbers(1, 9))
    promoted(target.catalog, "marts.m", numbers(1, 2))
    assert target.publish() == {"marts.m": 2}
    return target


def test_marts_of_main_and_nothing_else_are_published(published: Target) -> None:
    put(published.catalog, "dev", "marts.unpromoted", numbers(1, 1))
    published.publish()
    assert published.tables() == ["cascade.published", "marts.m"]
    assert published.rows("SELECT id FROM marts.m ORDER BY id") == [(1,), (2,)]


def test_it_says_which_snapshots_are_published_and_when(published: Target) -> None:
    snapshot = published.catalog.load("marts.m", published.catalog.pointers(MAIN)["marts.m"]).current_snapshot()
    assert snapshot
    ((name, snapshot_id, at),) = published.rows("SELECT table_name, snapshot_id, published_at FROM cascade.published")
    assert (name, snapshot_id) == ("marts.m", snapshot.snapshot_id)
    assert abs(dt.datetime.now(dt.UTC) - at) < dt.timedelta(minutes=5)


def test_what_has_not_changed_is_not_written_again(published: Target) -> None:
    sql = "SELECT published_at FROM cascade.published"
    before = published.rows(sql)
    promoted(published.catalog, "raw.a", numbers(10, 10))
    assert published.publish() == {}
    assert published.rows(sql) == before


def test_new_rows_are_published(published: Target) -> None:
    promoted(published.catalog, "marts.m", numbers(3, 3))
    assert published.publish() == {"marts.m": 3}
    assert published.rows("SELECT id FROM marts.m ORDER BY id") == [(1,), (2,), (3,)]


def test_a_mart_that_was_dropped_or_restored_away_is_no_longer_published(published: Target) -> None:
    published.catalog.restore(0)
    assert published.publish() == {}
    assert published.tables() == ["cascade.published"]
    assert published.rows("SELECT * FROM cascade.published") == []


def test_columns_come_go_and_change_their_type(published: Target) -> None:
    promoted(published.catalog, "marts.m", [{"id": "one", "name": "x"}], mode="replace", exact=True)
    assert published.publish() == {"marts.m": 1}
    assert published.rows("SELECT * FROM marts.m") == [("one", "x")]
    promoted(published.catalog, "marts.m", [{"name": "y"}], mode="replace", exact=True)
    assert published.publish() == {"marts.m": 1}
    assert published.columns() == ["name"]


def test_a_column_that_came_without_rows_is_published(published: Target) -> None:
    """It makes no snapshot."""
    published.catalog.create_if_missing("setup")
    with published.catalog.open("setup").load_table("marts.m").update_schema() as update:
        update.add_column("name", StringType())
    published.catalog.merge("setup", MAIN)
    assert published.publish() == {"marts.m": 2}
    assert published.rows("SELECT id, name FROM marts.m ORDER BY id") == [(1, None), (2, None)]


def test_a_lakehouse_without_marts_publishes_none(target: Target) -> None:
    assert target.publish() == {}
    assert target.tables() == ["cascade.published"]


def test_a_mart_without_rows_is_published(target: Target) -> None:
    promoted(target.catalog, "marts.m", pa.table({"id": pa.array([], pa.int64())}))
    assert target.publish() == {"marts.m": 0}
    assert target.rows("SELECT id FROM marts.m") == []


VALUES = {
    "truth": pa.array([True, None]),
    "small": pa.array([-2147483648, None], pa.int32()),
    "large": pa.array([9223372036854775807, None], pa.int64()),
    "exact": pa.array([Decimal("12345678901234567890.123456789"), None], pa.decimal128(38, 9)),
    "single": pa.array([0.1, None], pa.float32()),
    "double": pa.array([0.1 + 0.2, None], pa.float64()),
    "infinite": pa.array([float("inf"), None], pa.float64()),
    "words": pa.array(["a \"quoted\",\n\\N\\. 🌍 'x' ", None]),
    "no_words": pa.array(["", None]),
    "null_word": pa.array(["NULL", None]),
    "bytes": pa.array([b"\x00\xff\\x", None]),
    "no_bytes": pa.array([b"", None]),
    "day": pa.array([dt.date(1969, 12, 31), None]),
    "hour": pa.array([dt.time(23, 59, 59, 999999), None], pa.time64("us")),
    "naive": pa.array([dt.datetime(1950, 1, 1, 0, 0, 0, 1), None], pa.timestamp("us")),
    "aware": pa.array([dt.datetime(2024, 6, 1, 12, 0, 0, 123456, dt.UTC), None], pa.timestamp("us", "UTC")),
}


def test_every_value_arrives_as_it_is(target: Target) -> None:
    promoted(target.catalog, "marts.m", pa.table(VALUES))
    target.publish()
    got, nulls = target.rows(f"SELECT {', '.join(VALUES)} FROM marts.m ORDER BY truth")
    expected = [column.to_pylist()[0] for column in VALUES.values()]
    expected[4] = pytest.approx(0.1, rel=1e-7)
    assert dict(zip(VALUES, got, strict=True)) == dict(zip(VALUES, expected, strict=True))
    assert set(nulls) == {None}


NESTED = {
    "id": pa.array(range(6)),
    "structs": pa.array(
        [[{"a": 1, "b": "x"}, None, {"a": None, "b": None}], [], None, [None], None, [{"a": 2, "b": None}]],
        pa.list_(pa.struct([("a", pa.int64()), ("b", pa.string())])),
    ),
    "struct": pa.array(
        [{"a": 1, "l": [{"x": 1}]}, {"a": None, "l": None}, None, {"a": 2, "l": []}, {"a": 3, "l": [None]}, None],
        pa.struct([("a", pa.int64()), ("l", pa.list_(pa.struct([("x", pa.int64())])))]),
    ),
    "lists": pa.array([[[1], None, []], [], None, [[None]], None, [[2, 3]]], pa.list_(pa.list_(pa.int64()))),
    "map": pa.array(
        [[("k", 1)], [], None, [("a", None), ("b", 2)], None, [("z", 9)]], pa.map_(pa.string(), pa.int64())
    ),
    "map_of_structs": pa.array(
        [[("k", {"x": 1})], [("k", None)], None, [], None, [("k", {"x": None})]],
        pa.map_(pa.string(), pa.struct([("x", pa.int64())])),
    ),
}


def test_nested_values_arrive_as_they_are_and_null_stays_null(target: Target) -> None:
    rows = pa.table(NESTED)
    promoted(target.catalog, "marts.m", rows)
    target.publish()
    got = target.rows(f"SELECT {', '.join(NESTED)} FROM marts.m ORDER BY id")
    expected = rows.to_pylist(maps_as_pydicts="strict")
    assert [dict(zip(NESTED, row, strict=True)) for row in got] == expected


def test_rows_that_another_engine_has_marked_as_deleted_are_not_published(target: Target) -> None:
    promoted(target.catalog, "marts.m", numbers(1, 4))
    if target.catalog.settings.engine == "trino":
        target.catalog.create("fix")
        from cascade_servers.dbt import TARGET
        from cascade_servers.trino import server_of

        catalog = TARGET.prepare(target.catalog, "fix", ["marts"])["CASCADE_RUN_CATALOG"]
        server_of(target.catalog.settings).read("DELETE FROM marts.m WHERE id = 2", catalog=catalog)
    else:
        target.catalog.create("fix")
        table = target.catalog.open("fix").load_table("marts.m")
        ((path,),) = [(task.file.file_path,) for task in table.scan().plan_files()]
        mark_deleted(table, [(path, 1)])
    target.catalog.merge("fix", MAIN)
    target.publish()
    assert target.rows("SELECT id FROM marts.m ORDER BY id") == [(1,), (3,), (4,)]


def test_where_it_is_published_is_told_without_a_password(target: Target) -> None:
    told = marts_location(target.settings)
    if target.settings.marts_url is None:
        assert told == str(target.settings.marts_path)
    else:
        assert told.startswith("postgresql://127.0.0.1:")
        assert told.endswith("/marts")
        assert "@" not in told


# --- the file alone ----------------------------------------------------------------------------------------


@pytest.fixture
def file(lake_kind: str, published: Target) -> Target:
    """What is promised of the file only. It has nothing to do with servers."""
    if lake_kind != "embedded":
        published.settings = published.settings.model_copy(update={"marts_url": None})
        published.publish()
    return published


def test_a_reader_keeps_the_file_it_opened_while_a_new_one_takes_its_place(file: Target) -> None:
    with file.settings.marts_path.open("rb") as reader:
        before = reader.read()
        promoted(file.catalog, "marts.m", numbers(3, 3))
        assert file.publish() == {"marts.m": 3}
        reader.seek(0)
        assert reader.read() == before
    assert file.rows("SELECT count(*) FROM marts.m") == [(3,)]


@pytest.mark.parametrize("rest", [b"torn", b""], ids=["torn", "empty"])
def test_what_a_killed_publishing_left_is_replaced(file: Target, rest: bytes) -> None:
    file.settings.marts_path.write_bytes(rest)
    file.settings.marts_path.with_suffix(".new").write_bytes(rest)
    file.publish()
    assert file.rows("SELECT count(*) FROM marts.m") == [(2,)]
