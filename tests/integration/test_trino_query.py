"""SQL on Trino, beyond `tests/runtime/engine`: the same rows and types as DuckDB's.

Modules: `cascade_servers.trino.query`.
"""

import datetime as dt
import math
import threading
import uuid
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.types import LongType

from cascade.catalog import MAIN, BranchingCatalog, open_catalog
from cascade.duck.session import connect
from cascade.engine import query, register_table
from cascade.errors import QueryError, ServiceError
from cascade_embedded.engine import ENGINE as DUCKDB
from cascade_servers.dbt import TARGET
from cascade_servers.engine import ENGINE as TRINO
from cascade_servers.trino import server_of
from support.lakes import numbers, promoted, put, settings_in
from support.servers.lakes import fresh_lake
from support.servers.stack import Stack

NOON = dt.datetime(2013, 7, 1, 12, 0, 0, 123456, tzinfo=dt.UTC)
EVERYTHING = pa.table(
    {
        "id": pa.array([1, 2, None], pa.int64()),
        "small": pa.array([1, -2, None], pa.int32()),
        "userName": ["a", "é😀'\"", None],
        "amount": pa.array([Decimal("0.10"), Decimal("-12345678901234567890.10"), None], pa.decimal128(38, 2)),
        "share": [1.5, float("nan"), None],
        "real": pa.array([1.5, float("inf"), None], pa.float32()),
        "good": [True, False, None],
        "day": [dt.date(2013, 7, 1), dt.date(1969, 12, 31), None],
        "at": pa.array(
            [NOON, dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC), None], pa.timestamp("us", "UTC")
        ),
        "local": pa.array([NOON.replace(tzinfo=None), dt.datetime(9999, 12, 31), None], pa.timestamp("us")),
        "clock": pa.array([dt.time(23, 59, 59, 999999), dt.time(0), None], pa.time64("us")),
        "bytes": [b"\x00\xff", b"", None],
        "tags": [["x", None], [], None],
        "scores": pa.array([[("a", 1.5), ("b", None)], [], None], pa.map_(pa.string(), pa.float64())),
        "place": [{"city": "NYC", "zip": 10001}, {"city": None, "zip": None}, None],
    }
)


@pytest.fixture
def lake(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BranchingCatalog:
    """A lakehouse on the servers with nothing in it."""
    for name, value in fresh_lake(stack, "nessie").items():
        monkeypatch.setenv(name, value)
    return open_catalog(settings_in(tmp_path))


STATEMENTS = [
    "SELECT * FROM raw.everything",
    "SELECT * FROM raw.everything WHERE false",
    'SELECT username, "userName" AS other, ID AS Id FROM raw.everything',
    "SELECT count(*) AS n, max(amount) AS most, min(day) AS earliest FROM raw.everything",
    "SELECT e.place, e.scores FROM raw.everything AS e WHERE e.id = ?",
]


@pytest.mark.parametrize("sql", STATEMENTS)
def test_trino_and_duckdb_answer_the_same_rows_and_types(lake: BranchingCatalog, sql: str) -> None:
    put(lake, "dev", "raw.everything", EVERYTHING)
    given = [2] if "?" in sql else None
    one, other = (engine.query(lake, "dev", sql, None, given) for engine in (TRINO, DUCKDB))
    assert one.column_names == other.column_names
    names = [str(kind).replace("Etc/", "").replace("list<l:", "list<item:") for kind in other.schema.types]
    assert names == [str(kind) for kind in one.schema.types]
    key = lambda row: str(row.get("id"))  # noqa: E731
    assert repr(sorted(one.to_pylist(), key=key)) == repr(sorted(other.cast(one.schema).to_pylist(), key=key))


@pytest.mark.parametrize(
    "value",
    [
        1,
        1.5,
        True,
        None,
        "it's",
        NOON,
        NOON.replace(tzinfo=None),
        NOON.date(),
        Decimal("1.10"),
        b"\x00",
        [1, 2],
        uuid.UUID(int=7),
    ],
    ids=lambda value: type(value).__name__,
)
def test_parameters_of_every_type_arrive(lake: BranchingCatalog, value: object) -> None:
    (row,) = query(lake, MAIN, "SELECT ? AS x", parameters=[value]).to_pylist()
    assert row["x"] == (str(value) if isinstance(value, uuid.UUID) else value)


def test_columns_that_moved_without_a_snapshot_are_read_as_they_are_now(lake: BranchingCatalog) -> None:
    """Trino reads a snapshot with the columns that it was written with."""
    first = put(lake, "dev", "raw.a", [{"id": 1, "old": "x", "gone": 1}]).snapshot_id
    with lake.open("dev").load_table("raw.a").update_schema(allow_incompatible_changes=True) as update:
        update.rename_column("old", "new")
        update.delete_column("gone")
        update.add_column("more", LongType())
    now, then = "SELECT * FROM raw.a", "SELECT raw.a.old FROM raw.a"
    assert query(lake, "dev", now).to_pylist() == [{"id": 1, "new": "x", "more": None}]
    assert query(lake, "dev", now, at=first).to_pylist() == DUCKDB.query(lake, "dev", now, first, None).to_pylist()
    assert query(lake, "dev", then, at=first).to_pylist() == [{"old": "x"}]


def test_a_table_without_a_snapshot_is_empty(lake: BranchingCatalog) -> None:
    put(lake, "dev", "raw.a", EVERYTHING)
    lake.open("dev").create_table("raw.b", lake.open("dev").load_table("raw.a").schema())
    found = query(lake, "dev", "SELECT * FROM raw.b")
    assert (found.num_rows, found.schema) == (0, query(lake, "dev", "SELECT * FROM raw.a").schema)


def test_main_then_is_read_even_where_its_snapshots_are_not_on_main_any_more(lake: BranchingCatalog) -> None:
    promoted(lake, "raw.a", numbers(1, 3))
    entry = lake.log()[0]
    promoted(lake, "raw.b", numbers(1, 1))
    promoted(lake, "raw.a", numbers(4, 4))
    late = lake.log()[0].at
    lake.restore(entry.id)
    sql = "SELECT (SELECT count(*) FROM raw.a) AS a, (SELECT count(*) FROM raw.b) AS b"
    with pytest.raises(QueryError, match=r"raw\.b"):
        query(lake, MAIN, sql)
    assert query(lake, MAIN, sql, at=late).to_pylist() == [{"a": 4, "b": 1}]
    assert [branch.name for branch in lake.branches()] == [MAIN]


def test_a_promotion_in_the_middle_is_never_half_seen(lake: BranchingCatalog) -> None:
    """Both tables are replaced by tables of their own history, so that old snapshots are not on `main` any more."""
    sql = "SELECT (SELECT max(id) FROM raw.a) AS a, (SELECT max(id) FROM raw.b) AS b"

    def promote(n: int) -> None:
        lake.create("next")
        for table in ("raw.a", "raw.b"):
            if table in lake.pointers(MAIN):
                lake.open("next").drop_table(table)
            put(lake, "next", table, numbers(n, n))
        lake.merge("next")
        lake.delete("next")

    promote(0)
    seen, done = [], threading.Event()

    def read() -> None:
        while not done.is_set():
            (row,) = query(lake, MAIN, sql).to_pylist()
            seen.append((row["a"], row["b"]))

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(1, 6):
        promote(n)
    done.set()
    reader.join(120)
    assert seen
    assert all(a == b for a, b in seen)


def test_what_iceberg_knows_of_a_table_can_be_asked(lake: BranchingCatalog) -> None:
    first = put(lake, "dev", "raw.a", numbers(1, 1)).snapshot_id
    assert query(lake, "dev", 'SELECT snapshot_id FROM raw."a$snapshots"').to_pylist() == [{"snapshot_id": first}]


def test_rows_that_trino_marked_as_deleted_do_not_count(lake: BranchingCatalog) -> None:
    from cascade.lakehouse import Lakehouse

    put(lake, "dev", "raw.a", numbers(1, 9))
    name = TARGET.prepare(lake, "dev", ())["CASCADE_RUN_CATALOG"]
    server_of(lake.settings).read("DELETE FROM raw.a WHERE id <= 4", catalog=name)
    assert Lakehouse(lake.settings, "dev").row_count("raw.a") == 5


_NAN = "SELECT id, f, CAST(row(f) AS row(g double)) AS s FROM (VALUES (1, nan()), (2, 1e0)) AS t(id, f)"


@pytest.mark.parametrize("writer", ["trino", "ours"])
def test_nan_is_found_on_either_engine_whoever_wrote_it(lake: BranchingCatalog, writer: str) -> None:
    if writer == "ours":
        rows = pa.table({"id": [1, 2], "f": [math.nan, 1.0], "s": [{"g": math.nan}, {"g": 1.0}]})
        put(lake, "dev", "raw.n", rows)
    put(lake, "dev", "raw.a", numbers(1, 1))
    name = TARGET.prepare(lake, "dev", ())["CASCADE_RUN_CATALOG"]
    if writer == "trino":
        server_of(lake.settings).read(f"CREATE TABLE raw.n AS {_NAN}", catalog=name)
    for condition in ("is_nan(f)", "not (f between 0 and 10)", "f is distinct from 1.0", "f <> 1.0", "is_nan(s.g)"):
        assert query(lake, "dev", f"SELECT id FROM raw.n WHERE {condition}").to_pylist() == [{"id": 1}], condition
    with connect() as connection:
        register_table(connection, "raw.n", lake.load("raw.n", lake.pointers("dev")["raw.n"]))
        for condition in ("isnan(f)", "f > 5", "not (f between 0 and 10)", "f is distinct from 1.0", "s.g > 5"):
            found = connection.execute(f"SELECT id FROM raw.n WHERE {condition}").fetchall()
            assert found == [(1,)], condition


def test_a_server_that_is_not_there_is_named_with_its_setting(lake: BranchingCatalog, tmp_path: Path) -> None:
    lake.settings = settings_in(tmp_path, **{"trino.url": "http://127.0.0.1:9"})
    with pytest.raises(ServiceError, match="Trino does not answer") as caught:
        query(lake, MAIN, "SELECT 1 AS one")
    assert "`trino.url`: http://127.0.0.1:9" in caught.value.where
