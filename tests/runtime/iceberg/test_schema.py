"""The promises of `cascade.iceberg.schema`.

Modules: `cascade.iceberg.types`.
"""

import pyarrow as pa
import pytest
from pyiceberg.schema import Schema

from cascade.errors import SchemaMismatchError
from cascade.iceberg.schema import arrow_schema, grows, schema_from_arrow, storage_type


def _types(schema: Schema) -> dict[str, str]:
    return {field.name: str(field.field_type) for field in schema.fields}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (pa.timestamp("ns"), "timestamp"),
        (pa.timestamp("ns", "Europe/Paris"), "timestamptz"),
        (pa.uint64(), "decimal(20, 0)"),
        (pa.uint32(), "long"),
        (pa.decimal128(38, 0), "decimal(38, 0)"),
        (pa.decimal256(30, 4), "decimal(30, 4)"),
        (pa.dictionary(pa.int8(), pa.large_string()), "string"),
        (pa.string_view(), "string"),
        (pa.large_list(pa.uint8()), "list<int>"),
        (pa.map_(pa.string(), pa.int64()), "map<string, long>"),
        (pa.binary(4), "binary"),
    ],
    ids=str,
)
def test_an_arrow_type_becomes_the_iceberg_type_that_holds_it(given: pa.DataType, expected: str) -> None:
    schema = schema_from_arrow(pa.schema([pa.field("column", given, nullable=False)]))
    assert _types(schema) == {"column": expected}
    assert not schema.fields[0].required


A, AB = pa.struct([("a", pa.int32())]), pa.struct([("b", pa.string()), ("a", pa.int32())])
GROWS = {
    "same": (A, A, False),
    "wider": (pa.int64(), pa.int32(), True),
    "narrower": (pa.int32(), pa.int64(), False),
    "digits": (pa.decimal128(9, 2), pa.decimal128(5, 2), True),
    "scale": (pa.decimal128(9, 3), pa.decimal128(5, 2), False),
    "field": (AB, A, True),
    "fewer_fields": (A, AB, False),
    "inner": (pa.struct([("a", pa.int64())]), AB, True),
    "list": (pa.list_(AB), pa.list_(A), True),
    "shorter_list": (pa.list_(A), pa.list_(AB), False),
    "map": (pa.map_(pa.string(), AB), pa.map_(pa.string(), A), True),
}


@pytest.mark.parametrize(("given", "held", "expected"), GROWS.values(), ids=GROWS)
def test_a_column_grows_only_for_what_it_cannot_hold(given: pa.DataType, held: pa.DataType, expected: bool) -> None:
    assert grows(given, held) is expected


def test_ids_of_nested_fields_are_fresh_and_unique() -> None:
    nested = pa.struct([("x", pa.list_(pa.int64())), ("y", pa.string())])
    schema = schema_from_arrow(pa.schema([("a", nested), ("b", pa.int64())]))
    assert [field.field_id for field in schema.fields] == [1, 2]
    assert sorted(schema._lazy_id_to_name) == [1, 2, 3, 4, 5]


def test_columns_without_an_iceberg_type_are_named_together() -> None:
    given = pa.schema([("a", pa.null()), ("b", pa.duration("s")), ("c", pa.int64()), ("d", pa.decimal256(50, 2))])
    with pytest.raises(SchemaMismatchError, match=r"`a` .*`b` .*`d` "):
        schema_from_arrow(given)


def test_the_arrow_schema_is_plain_and_carries_the_field_ids() -> None:
    given = pa.schema(
        [
            ("s", pa.large_string()),
            ("t", pa.timestamp("ns")),
            ("l", pa.large_list(pa.struct([("x", pa.binary())]))),
        ]
    )
    got = arrow_schema(schema_from_arrow(given))
    assert got == pa.schema(
        [("s", pa.string()), ("t", pa.timestamp("us")), ("l", pa.list_(pa.struct([("x", pa.binary())])))]
    )
    ids = [got.field("s"), got.field("l"), got.field("l").type.value_field, got.field("l").type.value_type[0]]
    assert [field.metadata[b"PARQUET:field_id"] for field in ids] == [b"1", b"3", b"4", b"5"]


def test_the_storage_type_of_a_stored_column_is_its_own() -> None:
    for given in (pa.uint64(), pa.large_list(pa.uint32()), pa.timestamp("ns", "Asia/Tokyo"), pa.date64()):
        assert storage_type(storage_type(given)) == storage_type(given)
