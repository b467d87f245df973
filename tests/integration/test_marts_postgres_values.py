"""What values, names and databases PostgreSQL takes as marts, and how it is said when it does not.

Modules: `cascade_servers.postgres.rows`.
"""

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import FixedType, ListType, NestedField, UUIDType

from cascade.config import Settings
from cascade.errors import CascadeError, SchemaMismatchError, ServiceError
from cascade.publish.marts import Mart, publish_marts
from support.lakes import numbers
from support.marts import Marts, more

# --- values and names -------------------------------------------------------------------------------------


def test_nested_values_are_json_with_all_their_digits(marts: Marts) -> None:
    inner = pa.struct([("price", pa.decimal128(30, 10)), ("at", pa.timestamp("us", "UTC")), ("raw", pa.binary())])
    rows = pa.table(
        {
            "many": pa.array([[1.5, float("nan"), None], []], pa.list_(pa.float64())),
            "backslashes": pa.array([["\\u0000", "\\"], []], pa.list_(pa.string())),
            "one": pa.array(
                [
                    {
                        "price": Decimal("12345678901234567890.0000000001"),
                        "at": dt.datetime(2024, 1, 1),
                        "raw": b"\xff",
                    },
                    None,
                ],
                inner,
            ),
            "named": pa.array([[("a", 1), ('"b"', None)], []], pa.map_(pa.string(), pa.int64())),
            "dated": pa.array([[(dt.date(2024, 1, 1), "x")], []], pa.map_(pa.date32(), pa.string())),
        }
    )
    marts.replace("m", rows)
    marts.publish()
    first, second = marts.rows(
        "SELECT many, one::text, named, dated, pg_typeof(many)::text FROM m ORDER BY one IS NULL"
    )
    assert first == (
        [1.5, None, None],
        '{"at": "2024-01-01T00:00:00+00:00", "raw": "ff", "price": 12345678901234567890.0000000001}',
        {"a": 1, '"b"': None},
        {"2024-01-01": "x"},
        "jsonb",
    )
    assert second == ([], None, {}, {}, "jsonb")


def test_a_null_list_of_structs_is_null(marts: Marts) -> None:
    lines = pa.array([None, [], [None], [{"a": None}]], pa.list_(pa.struct([("a", pa.int64())])))
    inside = pa.StructArray.from_arrays([lines], ["l"])
    marts.replace("m", pa.table({"id": [1, 2, 3, 4], "lines": lines, "inside": inside}))
    marts.publish()
    assert marts.rows("SELECT lines, inside FROM m ORDER BY id") == [
        (value, {"l": value}) for value in (None, [], [None], [{"a": None}])
    ]


def test_not_a_number_is_one_in_postgresql_too(marts: Marts) -> None:
    marts.replace("m", pa.table({"x": pa.array([float("nan"), float("-inf")], pa.float32())}))
    marts.publish()
    assert marts.rows("SELECT x::text FROM m ORDER BY x") == [("-Infinity",), ("NaN",)]


def test_identifiers_and_fixed_bytes(marts: Marts) -> None:
    many = ListType(4, UUIDType(), element_required=False)
    schema = Schema(NestedField(1, "u", UUIDType()), NestedField(2, "f", FixedType(3)), NestedField(3, "n", many))
    marts.catalog.create_if_missing("setup")
    catalog = marts.catalog.open("setup")
    catalog.create_namespace_if_not_exists("marts")
    catalog.create_table("marts.m", schema).append(
        pa.table(
            {
                "u": pa.array([bytes(range(16))], pa.uuid()),
                "f": pa.array([b"abc"], pa.binary(3)),
                "n": pa.ListArray.from_arrays([0, 2], pa.array([bytes(range(16)), None], pa.uuid())),
            }
        )
    )
    marts.catalog.merge("setup", "main")
    marts.publish()
    identifier = "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert marts.rows("SELECT u::text, f, n FROM m") == [(identifier, b"abc", [identifier, None])]


def test_names_are_kept_letter_by_letter(marts: Marts) -> None:
    names = ["order", "CamelCase", 'with "quotes"', "with space", "größe", "percent%s"]
    marts.replace("select", pa.table({name: pa.array([1], pa.int64()) for name in names}))
    marts.publish()
    sql = "SELECT column_name FROM information_schema.columns WHERE table_name = 'select' ORDER BY ordinal_position"
    assert [name for (name,) in marts.rows(sql)] == names


@pytest.mark.parametrize(
    ("table", "rows", "said"),
    [
        ("m", {"x": ["a\0b"]}, "column `x` has a NUL character"),
        ("m", {"x": [["a\0b", "\\u0000"]]}, "column `x` has a NUL character"),
        ("m", {"ä" * 32: [1]}, "64 bytes, more than 63"),
        ("m", {"xmin": [1]}, "column `xmin` of `m`: a name of PostgreSQL's own"),
        ("t" * 64, {"x": [1]}, "64 bytes, more than 63"),
    ],
    ids=["nul", "nul in a list", "long column", "system column", "long table"],
)
def test_what_postgresql_cannot_keep_is_named_and_nothing_is_published(
    published: Marts, table: str, rows: Any, said: str
) -> None:
    published.replace("other", numbers(1, 9))
    published.replace(table, pa.table(rows))
    with pytest.raises(SchemaMismatchError) as caught:
        published.publish()
    assert said in str(caught.value)
    assert published.rows("SELECT count(*) FROM other") == [(2,)]


# --- a database that cannot be used -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"password": "Wr0ng-secret"}, "user or password is wrong"),
        ({"user": "cascade_reader_of_old"}, "user or password is wrong"),
        ({"port": 1}, "nobody listens there"),
        ({"host": "no-such-host.invalid"}, "no such host"),
        ({"database": "nothing"}, "does not exist"),
        ({"database": "nessie"}, "the role may not do this"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(
    marts: Marts, change: dict[str, Any], said: str
) -> None:
    marts.replace("m", numbers(1, 1))
    parts = {"user": "cascade_publisher", "host": "127.0.0.1", "port": marts.server.port, "database": "marts"}
    parts |= {"password": marts.server.passwords["POSTGRES_PUBLISHER_PASSWORD"]} | change
    url = "postgresql://{user}:{password}@{host}:{port}/{database}".format(**parts)
    settings = Settings(project_dir=marts.settings.project_dir, marts_url=url)
    with pytest.raises(CascadeError) as caught:
        publish_marts(marts.catalog, settings)
    assert "PostgreSQL" in str(caught.value)
    assert "`marts_url`" in str(caught.value)
    assert said in str(caught.value)
    assert str(parts["password"]) not in str(caught.value)


def test_a_role_that_may_only_read_cannot_publish(published: Marts) -> None:
    more(published)
    settings = Settings(project_dir=published.settings.project_dir, marts_url=published.server.url("cascade_reader"))
    with pytest.raises(ServiceError, match="PostgreSQL") as caught:
        publish_marts(published.catalog, settings)
    assert "`marts_url`" in str(caught.value)


def test_rows_that_cannot_be_read_publish_nothing(published: Marts, monkeypatch: pytest.MonkeyPatch) -> None:
    more(published)
    monkeypatch.setattr(Mart, "batches", lambda _: iter([pa.record_batch({"id": [1], "name": ["x"]}), *[1 / 0] * 1]))
    with pytest.raises(ZeroDivisionError):
        published.publish()
    assert published.rows("SELECT count(*) FROM m") == [(2,)]
