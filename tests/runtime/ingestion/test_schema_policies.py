"""The promises of the schema policies: what a change of source or contract does, and that none is lost silently."""

import itertools
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import dagster as dg
import pandas as pd
import pandera.pandas as pap
import pyarrow as pa
import pytest

from cascade.errors import CascadeError, SchemaMismatchError
from cascade.iceberg.schema import schema_from_arrow
from cascade.ingestion import cascade_ingestion
from support.ingestion import Lake
from support.lakes import Rows

pytestmark = pytest.mark.on_servers("nessie", shared=True)

LONG, INT, DOUBLE, FLOAT, TEXT = pa.int64(), pa.int32(), pa.float64(), pa.float32(), pa.string()
Columns = Mapping[str, pa.DataType]
BEFORE: Columns = {"id": LONG, "name": TEXT}
OLD = {"id": 1, "name": "Ada"}


def asset(table: str, columns: Columns | None, rows: Rows, **options: Any) -> dg.AssetsDefinition:
    declared = None if columns is None else schema_from_arrow(pa.schema(list(columns.items())))

    @cascade_ingestion(table_name=table, partitions="none", unique_key="id", iceberg_schema=declared, **options)
    def fetch() -> Any:
        return rows

    return fetch


# What the source gives at the second load, the contract then (`BEFORE` at the first), and by policy what the second
# row is, or what the refusal says: strict, additive, drop_extra.
SAME = dict(BEFORE)
RENAMED = {"id": LONG, "title": TEXT}
CHANGES: dict[str, tuple[Any, ...]] = {
    "nothing": ({"id": 2, "name": "B"}, SAME, *[{"id": 2, "name": "B"}] * 3),
    "the source renames": (
        {"id": 2, "title": "B"},
        SAME,
        "does not have: `title`",
        {"id": 2, "name": None, "title": "B"},
        {"id": 2, "name": None},
    ),
    "the source drops": ({"id": 2}, SAME, "No fetched row has `name`", *[{"id": 2, "name": None}] * 2),
    "the source has it without a value": ({"id": 2, "name": None}, SAME, *[{"id": 2, "name": None}] * 3),
    "the source adds": (
        {"id": 2, "name": "B", "age": 3},
        SAME,
        "does not have: `age`",
        {"id": 2, "name": "B", "age": 3},
        {"id": 2, "name": "B"},
    ),
    "the source has another type": ({"id": "x", "name": "B"}, SAME, *["column `id`: 'x' is not a long"] * 3),
    "both rename": (
        {"id": 2, "title": "B"},
        RENAMED,
        "name (string): --rename name=title or --drop name",
        {"id": 2, "name": None, "title": "B"},
        "name (string): --rename name=title or --drop name",
    ),
    "both drop": ({"id": 2}, {"id": LONG}, "name (string): --drop name", {"id": 2, "name": None}, "--drop name"),
    "the contract drops": (
        {"id": 2, "name": "B"},
        {"id": LONG},
        "name (string): --drop name",
        {"id": 2, "name": "B"},
        "name (string): --drop name",
    ),
    "both add": ({"id": 2, "name": "B", "age": 3}, {**SAME, "age": INT}, *[{"id": 2, "name": "B", "age": 3}] * 3),
    "the contract adds": (
        {"id": 2, "name": "B"},
        {**SAME, "age": INT},
        "No fetched row has `age`",
        *[{"id": 2, "name": "B", "age": None}] * 2,
    ),
    "the contract has another type": (
        {"id": 2, "name": 3},
        {"id": LONG, "name": LONG},
        *["columns cannot become those that are declared"] * 3,
    ),
    "the contract is narrower": (
        {"id": 2, "name": "B"},
        {"id": INT, "name": TEXT},
        *[{"id": 2, "name": "B"}] * 3,
    ),
}
POLICIES = ("strict", "additive", "drop_extra")
CASES = [
    pytest.param((policy, row, columns, outcomes[number]), id=f"{name}, {policy}")
    for name, (row, columns, *outcomes) in CHANGES.items()
    for number, policy in enumerate(POLICIES)
]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, _own_machine: None) -> Lake:
    folder = tmp_path_factory.mktemp("policies")
    return Lake(folder, project_dir=folder)


_NUMBERS = itertools.count()


@pytest.fixture
def table() -> str:
    """The name of a table that no other test uses."""
    return f"t{next(_NUMBERS)}"


def _by_name(rows: Rows) -> Rows:
    return [dict(sorted(row.items())) for row in rows]


@pytest.mark.parametrize("case", CASES)
def test_a_change_is_taken_over_left_out_or_refused_with_what_is_to_be_said(
    case: tuple[Any, dict[str, Any], Columns, str | dict[str, Any]], lake: Lake, table: str
) -> None:
    policy, row, columns, outcome = case
    lake.load(asset(table, BEFORE, [OLD], schema_policy=policy))
    changed = asset(table, columns, [row], schema_policy=policy)
    if isinstance(outcome, str):
        before = lake.lakehouse.head(f"raw.{table}")
        with pytest.raises(CascadeError) as refused:
            lake.load(changed)
        said = str(refused.value)
        assert (outcome in said, bool(refused.value.fix)) == (True, True), said
        assert lake.lakehouse.head(f"raw.{table}") == before
        return
    lake.load(changed)
    assert _by_name(lake.rows(f"raw.{table}", order="id")) == _by_name([dict.fromkeys(outcome) | OLD, outcome])


INFERRED = {
    "renames": ({"id": 2, "title": "B"}, "does not have: `title`"),
    "drops": ({"id": 2}, "No fetched row has `name`"),
    "drops in one row of two": ([{"id": 2}, {"id": 3, "name": "C"}], ""),
    "gives nothing": ([], ""),
}


@pytest.mark.parametrize(("rows", "says"), INFERRED.values(), ids=INFERRED)
def test_strict_holds_for_columns_that_nobody_declared(lake: Lake, table: str, rows: Any, says: str) -> None:
    lake.load(asset(table, None, [OLD], schema_policy="strict"))
    changed = asset(table, None, rows, schema_policy="strict")
    if not says:
        lake.load(changed)
        return
    with pytest.raises(SchemaMismatchError, match=says):
        lake.load(changed)


WIDER = {
    "int to long": (INT, LONG, 1, 2**40),
    "float to double": (FLOAT, DOUBLE, 0.5, 1e300),
    "more digits": (pa.decimal128(4, 2), pa.decimal128(12, 2), Decimal("12.50"), Decimal("1234567890.25")),
    "in a struct": (pa.struct([("a", INT)]), pa.struct([("a", LONG)]), {"a": 1}, {"a": 2**40}),
    "in a list": (pa.list_(FLOAT), pa.list_(DOUBLE), [0.5], [1e300]),
    "a field more": (pa.struct([("a", INT)]), pa.struct([("a", INT), ("b", TEXT)]), {"a": 1}, {"a": 2, "b": "x"}),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("change", WIDER.values(), ids=WIDER)
def test_a_wider_type_keeps_the_old_rows_and_takes_new_ones(
    change: tuple[pa.DataType, pa.DataType, Any, Any], policy: Any, lake: Lake, table: str
) -> None:
    narrow, wide, first, second = change
    lake.load(asset(table, {"id": LONG, "v": narrow}, [{"id": 1, "v": first}], schema_policy=policy))
    lake.load(asset(table, {"id": LONG, "v": wide}, [{"id": 2, "v": second}], schema_policy=policy))
    old, new = (row["v"] for row in lake.rows(f"raw.{table}", order="id"))
    assert (old, new) == (first | {"b": None} if isinstance(second, dict) and "b" in second else first, second)


class Guests(pap.DataFrameModel):
    """Who is expected."""

    id: int
    name: str = pap.Field(nullable=True)


class Later(Guests):
    """The same contract with a field more, which may be null."""

    age: pd.Int64Dtype = pap.Field(nullable=True)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("age", [None, 36])
def test_a_new_nullable_field_of_the_model_is_null_in_the_rows_that_are_there(
    policy: Any, age: int | None, lake: Lake, table: str
) -> None:
    """Situation 13: also when the same days are loaded again, by key."""
    row = {"id": 1, "name": "Ada"}
    options: dict[str, Any] = {"table_name": table, "partitions": "none", "unique_key": "id", "schema_policy": policy}
    lake.load(cascade_ingestion(validation_schema=Guests, **options)(lambda: [row, {**row, "id": 2}]))
    lake.load(cascade_ingestion(validation_schema=Later, **options)(lambda: [{**row, "age": age}]))
    assert lake.rows(f"raw.{table}", order="id") == [{**row, "age": age}, {**row, "id": 2, "age": None}]
