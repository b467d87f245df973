"""The promises of `cascade.iceberg.write` about columns that change, values of every type, and partitions.

Modules: `cascade.iceberg.evolve`.
"""

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import BucketTransform, DayTransform, IdentityTransform
from pyiceberg.types import DateType, LongType, NestedField, StringType, TimestamptzType, UUIDType

from cascade.catalog import BranchingCatalog
from cascade.engine import query
from cascade.errors import SchemaMismatchError
from cascade.iceberg.schema import schema_from_arrow
from cascade.iceberg.write import write
from support.lakes import ids, numbers, put, read

T = "raw.a"


def table(lake: BranchingCatalog) -> Table:
    return lake.load(T, lake.pointers("dev")[T])


def paths(lake: BranchingCatalog) -> set[str]:
    return {task.file.file_path for task in table(lake).scan().plan_files()}


def ab(*pairs: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"a": a, "b": b} for a, b in pairs]


# --- columns ----------------------------------------------------------------------------------------------


def test_columns_that_the_table_lacks_are_added_in_the_same_snapshot(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, numbers(1, 1))
    put(lake, "dev", T, [{"id": 2, "name": "two"}], "merge", key=["id"])
    assert read(lake, "dev", T) == [{"id": 1, "name": None}, {"id": 2, "name": "two"}]
    assert len(table(lake).snapshots()) == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"userId": 1, "userid": 2}, None),
        ({"userId": 1}, {"userid": 2}),
        ({"id": 1, "größe": 1}, {"GRÖßE": 1}),
        ({"s": [{"a": 1, "A": 2}]}, None),
        ({"s": [{"a": 1}]}, {"s": [{"A": 2}]}),
    ],
    ids=["at once", "later", "beyond ASCII", "nested", "nested, later"],
)
def test_columns_that_differ_only_in_case_are_refused_and_the_table_stays_readable(
    lake: BranchingCatalog, first: dict[str, Any], second: dict[str, Any] | None
) -> None:
    if second:
        put(lake, "dev", T, [first])
    with pytest.raises(SchemaMismatchError, match="cannot tell these columns apart"):
        put(lake, "dev", T, [second or first])
    assert not second or query(lake, "dev", f"SELECT * FROM {T}").to_pylist() == [first]


def test_a_column_that_comes_with_a_later_batch_is_added(lake: BranchingCatalog) -> None:
    lake.create("dev")
    batches = [pa.table({"id": [1]}), pa.table({"id": [2], "name": ["two"]}), pa.table({"id": [3]})]
    write(lake, "dev", T, batches, schema=schema_from_arrow(batches[0].schema), mode="append")
    assert [row["name"] for row in read(lake, "dev", T)] == [None, "two", None]


def test_a_new_table_with_nested_columns_takes_others_that_come_with_the_rows(lake: BranchingCatalog) -> None:
    lake.create("dev")
    first = pa.table({"id": [1], "tags": [["a"]]})
    batches = [first, pa.table({"id": [2], "tags": [["b"]], "more": [{"x": 1}]}), pa.table({"id": [3], "last": ["z"]})]
    write(lake, "dev", T, batches, schema=schema_from_arrow(first.schema), mode="append")
    assert read(lake, "dev", T) == [
        {"id": 1, "tags": ["a"], "more": None, "last": None},
        {"id": 2, "tags": ["b"], "more": {"x": 1}, "last": None},
        {"id": 3, "tags": None, "more": None, "last": "z"},
    ]


def test_columns_and_inner_fields_of_a_new_table_come_in_any_order(lake: BranchingCatalog) -> None:
    """Ids are given in the order of the batches, and again when the table is committed."""
    lake.create("dev")
    first = pa.table({"id": [1], "v": [{"a": 1}]})
    batches = [
        first,
        pa.table({"id": [2], "x": [[{"p": 1}]]}),
        pa.table({"id": [3], "v": [{"b": 2}], "x": [[{"q": 2}]]}),
    ]
    batches.append(pa.table({"id": [4], "y": [4], "v": [{"a": 3}]}))
    write(lake, "dev", T, batches, schema=schema_from_arrow(first.schema), mode="append")
    assert query(lake, "dev", f"SELECT * FROM {T} ORDER BY id").to_pylist() == [
        {"id": 1, "v": {"a": 1, "b": None}, "x": None, "y": None},
        {"id": 2, "v": None, "x": [{"p": 1, "q": None}], "y": None},
        {"id": 3, "v": {"a": None, "b": 2}, "x": [{"p": None, "q": 2}], "y": None},
        {"id": 4, "v": {"a": 3, "b": None}, "x": None, "y": 4},
    ]


def test_columns_that_rows_lack_are_null(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, ab((1, "x")))
    put(lake, "dev", T, [{"a": 2}])
    assert read(lake, "dev", T) == ab((1, "x"), (2, None))


@pytest.mark.parametrize(
    ("first", "second"), [(pa.int32(), pa.int64()), (pa.int64(), pa.int32()), (pa.float32(), pa.float64())]
)
def test_numbers_widen_and_never_narrow(lake: BranchingCatalog, first: pa.DataType, second: pa.DataType) -> None:
    for kind in (first, second):
        put(lake, "dev", T, pa.table({"id": pa.array([1], kind)}))
    assert str(table(lake).schema().find_type("id")) in ("long", "double")
    assert ids(lake, "dev", T) == [1, 1]


def test_a_type_that_cannot_become_the_other_is_refused_and_nothing_is_written(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, numbers(1, 1))
    before = lake.pointers("dev")
    with pytest.raises(SchemaMismatchError, match=r"cannot become those that are declared") as caught:
        put(lake, "dev", T, [{"id": "text"}])
    assert caught.value.fix
    assert lake.pointers("dev") == before


def test_a_required_column_becomes_optional_when_it_is_declared_so(lake: BranchingCatalog) -> None:
    for required, rows in ((True, ab((1, "x"))), (False, ab((2, None))), (True, ab((3, "y")))):
        schema = Schema(NestedField(1, "a", LongType()), NestedField(2, "b", StringType(), required=required))
        put(lake, "dev", T, rows, schema=schema)
    assert read(lake, "dev", T) == ab((1, "x"), (2, None), (3, "y"))


def test_fields_that_a_struct_gained_are_null_where_rows_lack_them(lake: BranchingCatalog) -> None:
    narrow, wide = (
        [{"id": 1, "v": {"a": 1}, "w": [{"a": 1}]}],
        [{"id": 2, "v": {"a": 2, "b": 3}, "w": [{"b": 4, "a": 5}]}],
    )
    for rows in (narrow, wide, narrow):
        put(lake, "dev", T, rows)
    gained = {"id": 1, "v": {"a": 1, "b": None}, "w": [{"a": 1, "b": None}]}
    assert read(lake, "dev", T) == [gained, gained, {"id": 2, "v": {"a": 2, "b": 3}, "w": [{"a": 5, "b": 4}]}]


def test_an_exact_write_loses_columns_and_takes_over_types(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, [{"id": 1, "gone": "x", "changed": 5}])
    put(lake, "dev", T, [{"id": 2, "changed": "text"}], "replace", exact=True)
    assert read(lake, "dev", T) == [{"id": 2, "changed": "text"}]


def test_a_renamed_column_is_found_in_old_files_by_its_field_id(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, ab((1, "x"), (2, "y")))
    with lake.open("dev").load_table(T).update_schema() as update:
        update.rename_column("b", "name")
    put(lake, "dev", T, [{"a": 2, "name": "new"}], "merge", key=["a"])
    expected = [{"a": 1, "name": "x"}, {"a": 2, "name": "new"}]
    assert read(lake, "dev", T) == expected
    assert query(lake, "dev", f"SELECT * FROM {T} ORDER BY a").to_pylist() == expected


# --- values -----------------------------------------------------------------------------------------------

NOON = dt.datetime(2013, 7, 1, 12, tzinfo=dt.UTC)
VALUES: dict[str, pa.Array] = {
    "null": pa.array([None, None], pa.string()),
    "decimal": pa.array([Decimal("0.1"), Decimal("-99999999999999999999999999999999999.999")], pa.decimal128(38, 3)),
    "timestamp": pa.array([NOON, None], pa.timestamp("us", "UTC")),
    "naive": pa.array([NOON.replace(tzinfo=None), None], pa.timestamp("us")),
    "date": pa.array([NOON.date(), None]),
    "time": pa.array([dt.time(1, 2, 3, 4), None], pa.time64("us")),
    "list": pa.array([[1, None, 3], []], pa.list_(pa.int64())),
    "struct": pa.array([{"x": 1, "y": ["a"]}, None], pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string()))])),
    "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
    "null_list_of_structs": pa.array([None, [{"x": 1}, None]], pa.list_(pa.struct([("x", pa.int64())]))),
    "null_map_of_structs": pa.array([None, [("k", {"x": 1})]], pa.map_(pa.string(), pa.struct([("x", pa.int64())]))),
    "binary": pa.array([b"\x00\xff", b""], pa.binary()),
    "emoji": pa.array(["🌦️ it's", "x" * 1_000_000]),
    "bool": pa.array([True, None]),
    "float": pa.array([float("inf"), -0.0]),
    "last_before_surrogates": pa.array(["x" * 15 + "\ud7ff" + "y", None]),
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_values_survive_being_merged_and_rewritten(lake: BranchingCatalog, values: pa.Array) -> None:
    rows = pa.table({"id": [1, 2], "order": values})
    put(lake, "dev", T, rows, "merge", key=["id"])
    other = pa.table({"id": [3], "order": values.slice(1)})
    put(lake, "dev", T, other, "merge", key=["id"])
    put(lake, "dev", T, rows.slice(1), "merge", key=["id"])  # rewrites the file that holds row 1
    assert [row["order"] for row in read(lake, "dev", T)] == [*values.to_pylist(), values[1].as_py()]
    by_duckdb = query(lake, "dev", f'SELECT "order" FROM {T} ORDER BY id').column("order").to_pylist()
    assert by_duckdb == [row["order"] for row in read(lake, "dev", T)]


UUIDS = Schema(NestedField(1, "key", UUIDType()), NestedField(2, "n", LongType()))
KEYS: dict[str, list[Any]] = {
    "bool": [True, False],
    "bytes": [b"a", b"b"],
    "date": [dt.date(2013, 7, 1), dt.date(2013, 7, 2)],
    "decimal": [Decimal("1.50"), Decimal("2.50")],
    "float": [0.5, float("nan")],
    "naive": [dt.datetime(2013, 7, 1), dt.datetime(2013, 7, 2)],
    "null": [None, 1],
    "only_null": [None],
    "quoted": ["it's", 'a "b"'],
    "text": ["a" * 100, "a" * 99 + "b"],
    "time": [dt.time(1), dt.time(2)],
    "timestamp": [NOON, NOON + dt.timedelta(microseconds=1)],
    "uuid": [uuid.UUID(int=1), uuid.UUID(int=2)],
}


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS.keys())
def test_a_key_may_be_of_any_type(lake: BranchingCatalog, keys: list[Any]) -> None:
    """A null is equal to nothing: it is never replaced."""
    kind = {"only_null": pa.int64(), "uuid": pa.uuid()}
    name = next(name for name, values in KEYS.items() if values is keys)
    rows = pa.table({"key": pa.array(keys, kind.get(name)), "n": list(range(len(keys)))})
    schema = schema_from_arrow(rows.schema) if name != "uuid" else UUIDS
    for _ in range(2):
        put(lake, "dev", T, rows, "merge", key=["key"], schema=schema)
    nulls = keys.count(None)
    assert table(lake).scan().count() == len(keys) + nulls


# --- partitions -------------------------------------------------------------------------------------------

EVENTS = Schema(
    NestedField(1, "id", LongType()),
    NestedField(2, "at", TimestamptzType()),
    NestedField(3, "day", DateType()),
    NestedField(4, "origin", StringType()),
)
SPECS = {
    "bucket": PartitionSpec(PartitionField(1, 1000, BucketTransform(4), "id_bucket")),
    "day": PartitionSpec(PartitionField(2, 1000, DayTransform(), "at_day")),
    "identity": PartitionSpec(PartitionField(4, 1000, IdentityTransform(), "origin")),
    "two": PartitionSpec(
        PartitionField(2, 1000, DayTransform(), "at_day"), PartitionField(4, 1001, IdentityTransform(), "origin")
    ),
}


def _events(*numbers_: int) -> pa.Table:
    at = [NOON + dt.timedelta(days=n % 3) for n in numbers_]
    rows = {
        "id": list(numbers_),
        "at": at,
        "day": [a.date() for a in at],
        "origin": [None if n % 4 == 3 else "JFK" for n in numbers_],
    }
    return pa.table(
        rows,
        schema=pa.schema(
            [("id", pa.int64()), ("at", pa.timestamp("us", "UTC")), ("day", pa.date32()), ("origin", pa.string())]
        ),
    )


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_a_partitioned_table_is_merged_like_any_other(lake: BranchingCatalog, spec: PartitionSpec) -> None:
    put(lake, "dev", T, _events(*range(12)), "merge", key=["id"], schema=EVENTS, spec=spec)
    result = put(lake, "dev", T, _events(5, 6, 20), "merge", key=["id"], schema=EVENTS, spec=spec)
    assert ids(lake, "dev", T) == [*range(12), 20]
    assert (result.rows, result.replaced) == (3, 2)
    assert [f.transform for f in table(lake).spec().fields] == [f.transform for f in spec.fields]


def test_a_file_holds_rows_of_one_partition(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, _events(*range(12)), schema=EVENTS, spec=SPECS["two"])
    assert len(paths(lake)) == len({(n % 3, n % 4 == 3) for n in range(12)})


def test_more_partitions_than_files_may_be_open_are_written(lake: BranchingCatalog) -> None:
    rows = pa.table(
        {
            "id": list(range(400)),
            "at": [NOON] * 400,
            "day": [NOON.date()] * 400,
            "origin": [str(n % 100) for n in range(400)],
        }
    )
    put(lake, "dev", T, rows, schema=EVENTS, spec=SPECS["identity"])
    assert ids(lake, "dev", T) == list(range(400))
