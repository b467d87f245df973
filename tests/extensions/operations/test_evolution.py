"""The promises of changed contracts: what only a person can decide is asked for, and history stays readable.

Modules: `cascade_operations.evolution`.
"""

import datetime as dt
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import (
    DecimalType,
    DoubleType,
    IcebergType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    StructType,
    TimestamptzType,
)

from cascade.engine import query
from cascade.errors import SchemaMismatchError, UsageError
from cascade.ingestion import cascade_ingestion, daily, load_plan
from cascade_operations.evolution import Decisions, change, steps_of
from support.ingestion import DAY, NEXT, Lake

pytestmark = pytest.mark.on_servers("nessie")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, project_dir=tmp_path)


def schema(**columns: IcebergType) -> Schema:
    return Schema(*(NestedField(n, name, kind) for n, (name, kind) in enumerate(columns.items(), 1)))


def asset(declared: Schema | None, rows: Any = (), **options: Any) -> Any:
    @cascade_ingestion(
        table_name="t", iceberg_schema=declared, **{"partitions": "none", "schema_policy": "strict", **options}
    )
    def fetch() -> Any:
        return list(rows)

    return fetch


LONG, TEXT = LongType(), StringType()
BEFORE = schema(id=IntegerType(), name=TEXT, n=LONG, price=DecimalType(10, 2))
ROWS = [{"id": 1, "name": "7", "n": 5, "price": Decimal("1.50")}, {"id": 2, "name": "x", "n": 2**40, "price": None}]

# What the contract says now, what was decided, and the steps.
PLANS: dict[str, tuple[dict[str, Any], dict[str, Any], list[tuple[str, str]]]] = {
    "same": ({}, {}, []),
    "add": ({"more": TEXT}, {}, [("add", "more")]),
    "widen": ({"id": LONG, "price": DecimalType(12, 2)}, {}, [("widen", "id"), ("widen", "price")]),
    "renamed": ({"name": None, "title": TEXT}, {}, [("decide", "name"), ("add", "title")]),
    "rename": ({"name": None, "title": TEXT}, {"rename": {"name": "title"}}, [("rename", "name")]),
    "rename_and_narrow": (
        {"name": None, "title": LONG},
        {"rename": {"name": "title"}, "narrow": ["name"]},
        [("rename", "name"), ("narrow", "name")],
    ),
    "dropped": ({"name": None}, {}, [("decide", "name")]),
    "drop": ({"name": None}, {"drop": ["name"]}, [("drop", "name")]),
    "narrower": ({"n": IntegerType()}, {}, [("keep", "n")]),
    "narrow": ({"n": IntegerType()}, {"narrow": ["n"]}, [("narrow", "n")]),
    "other_type": ({"name": LONG}, {}, [("decide", "name")]),
    "fewer_digits": ({"price": DecimalType(9, 2)}, {}, [("keep", "price")]),
    "other_scale": ({"price": DecimalType(10, 3)}, {}, [("decide", "price")]),
}


def contract(changes: dict[str, Any]) -> Schema:
    columns = {f.name: f.field_type for f in BEFORE.fields} | changes
    return schema(**{name: kind for name, kind in columns.items() if kind is not None})


@pytest.mark.parametrize(("changes", "decided", "expected"), PLANS.values(), ids=PLANS)
def test_a_plan_names_each_column_that_differs(
    changes: dict[str, Any], decided: dict[str, Any], expected: list[tuple[str, str]], lake: Lake
) -> None:
    lake.succeed(asset(BEFORE, ROWS))
    plan = load_plan(asset(contract(changes)))
    steps = steps_of(plan, lake.lakehouse.table("raw.t"), Decisions(**decided))
    assert [(step.action, step.column) for step in steps] == expected


def test_a_contract_that_takes_further_columns_keeps_them(lake: Lake) -> None:
    lake.succeed(asset(BEFORE, ROWS))
    table = lake.lakehouse.table("raw.t")
    for declared in (contract({"name": None}), None):
        steps = steps_of(load_plan(asset(declared, schema_policy="additive")), table, Decisions())
        assert {step.action for step in steps} == {"keep"}
    nested = asset(schema(id=IntegerType(), v=StructType(NestedField(7, "a", LONG))), schema_policy="additive")
    lake.run(nested)
    assert [s.action for s in steps_of(load_plan(nested), lake.lakehouse.table("raw.t"), Decisions())] == ["keep"] * 3


# Columns of the contract, what is decided, and the rows after it.
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]] = {
    "rename": (
        {"name": None, "title": TEXT, "more": LONG},
        {"rename": {"name": "title"}},
        [
            {"id": 1, "n": 5, "price": Decimal("1.50"), "title": "7", "more": None},
            {"id": 2, "n": 2**40, "price": None, "title": "x", "more": None},
        ],
    ),
    "drop": (
        {"name": None, "price": None},
        {"drop": ["name", "price"]},
        [{"id": 1, "n": 5}, {"id": 2, "n": 2**40}],
    ),
    "drop_and_take_its_name": (
        {"name": None, "n": None, "title": TEXT},
        {"drop": ["n"], "rename": {"name": "title"}},
        [{"id": 1, "title": "7", "price": Decimal("1.50")}, {"id": 2, "title": "x", "price": None}],
    ),
    "narrow": (
        {"n": DoubleType(), "price": TEXT},
        {"narrow": ["n", "price"]},
        [
            {"id": 1, "name": "7", "n": 5.0, "price": "1.50"},
            {"id": 2, "name": "x", "n": float(2**40), "price": None},
        ],
    ),
}


@pytest.mark.parametrize(("changes", "decided", "expected"), CHANGES.values(), ids=CHANGES)
def test_history_is_read_as_it_was_after_a_change(
    changes: dict[str, Any], decided: dict[str, Any], expected: list[dict[str, Any]], lake: Lake
) -> None:
    """By a tag, by its snapshot, and by the time, on the engine that is set; later loads go on."""
    lake.succeed(asset(BEFORE, ROWS, unique_key="id"))
    catalog, snapshot = lake.lakehouse.catalog, lake.lakehouse.head("raw.t")
    tag = f"before-{uuid.uuid4().hex[:8]}"  # Trino keeps a catalog for each name, and the tests share the server
    catalog.tag(tag, "test")
    catalog.merge("test")
    at = dt.datetime.now(dt.UTC)
    changed = asset(contract(changes), [], unique_key="id")
    plan = load_plan(changed)
    before = lake.rows("raw.t")
    change(plan, lake.lakehouse, Decisions(**decided), run_id="r")
    assert steps_of(plan, lake.lakehouse.table("raw.t"), Decisions()) == []

    def by_name(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted((dict(sorted(row.items())) for row in rows), key=lambda row: int(row["id"]))

    assert by_name(lake.rows("raw.t")) == by_name(expected)
    names = ", ".join(f.name for f in BEFORE.fields)
    for ref, time in ((tag, None), ("test", snapshot), ("main", at)):
        found = query(catalog, ref, f"SELECT {names} FROM raw.t ORDER BY id", at=time).to_pylist()
        assert by_name(found) == by_name(before), ref
    catalog.merge("test")
    found = query(catalog, "main", f"SELECT {names} FROM raw.t ORDER BY id", at=at).to_pylist()
    assert by_name(found) == by_name(before)
    again = asset(contract(changes), [dict(expected[0], id=3)], unique_key="id")
    lake.succeed(again)
    assert by_name(lake.rows("raw.t")) == by_name([*expected, dict(expected[0], id=3)])


def test_values_that_do_not_fit_are_shown_and_nothing_is_changed(lake: Lake) -> None:
    lake.succeed(asset(BEFORE, ROWS, unique_key="id"))
    before, plan = lake.rows("raw.t"), load_plan(asset(contract({"name": LONG}), unique_key="id"))
    with pytest.raises(SchemaMismatchError) as refused:
        change(plan, lake.lakehouse, Decisions(narrow=["name"]), run_id="r")
    assert "1 row of raw.t do not fit `name`" in str(refused.value)
    assert "column `name`: 'x' is not a long in {'id': 2}" in str(refused.value)
    assert lake.rows("raw.t") == before


def test_a_renamed_key_or_partition_column_is_known_by_its_new_name(lake: Lake) -> None:
    """Else a day would be loaded twice, or its rows not found."""

    def days(column: str, key: str, rows: Any) -> Any:
        declared = schema(**{key: LONG, column: TimestamptzType()})

        @cascade_ingestion(
            table_name="t",
            iceberg_schema=declared,
            schema_policy="strict",
            partition_column=column,
            unique_key=key,
            partitions=daily(start=DAY, end=NEXT),
            write="replace_partition",
        )
        def fetch(partition_date: str) -> Any:
            return [{key: n, column: f"{partition_date}T00:00:00Z"} for n in rows]

        return fetch

    lake.succeed(days("at", "id", [1, 2]), DAY)
    renamed = days("moment", "number", [3])
    decided = Decisions(rename={"at": "moment", "id": "number"})
    change(load_plan(renamed), lake.lakehouse, decided, run_id="r")
    assert lake.loaded(renamed) == [DAY]
    lake.succeed(renamed, DAY, NEXT)
    assert {row["number"] for row in lake.rows("raw.t")} == {3}


IMPOSSIBLE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no_column": ({}, {"drop": ["gone"]}, "the table has no column gone"),
    "no_target": ({"name": None}, {"rename": {"name": "title"}}, "name cannot become title: the contract has no such"),
    "taken": ({}, {"rename": {"name": "n"}}, "name cannot become n: the table has that"),
    "declared": ({}, {"drop": ["name"]}, "name cannot be dropped: the contract has it"),
    "no_type": ({"name": None}, {"narrow": ["name"]}, "the contract does not say to what"),
    "partitioned": ({"n": None}, {"drop": ["n"]}, "n cannot be dropped or narrowed: the files are partitioned by it"),
}


@pytest.mark.parametrize(("changes", "decided", "problem"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_cannot_be_done_is_refused(
    changes: dict[str, Any], decided: dict[str, Any], problem: str, lake: Lake
) -> None:
    spec = PartitionSpec(PartitionField(3, 1000, IdentityTransform(), "n"))
    lake.succeed(asset(BEFORE, ROWS, partition_spec=spec))
    with pytest.raises(UsageError) as refused:
        steps_of(load_plan(asset(contract(changes))), lake.lakehouse.table("raw.t"), Decisions(**decided))
    assert problem in str(refused.value)
