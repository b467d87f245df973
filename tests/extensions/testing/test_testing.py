"""The testing kit says what a test got wrong. The page of the kit, which is followed by a test, shows what it can do.

Modules: `cascade_testing.commands`, `cascade_testing.lakehouse`, `cascade_testing.plugin`, `cascade_testing.warm`,
`cascade_testing.unit_tests`.
"""

import datetime as dt
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from cascade.errors import UsageError
from cascade.testing import TemporaryLakehouse
from cascade_testing.compare import difference
from support.projects import make_project

PROJECT = {
    "workflows/orders.py": """
import pandera.pandas as pa
from cascade import cascade_ingestion, cascade_quality

class Orders(pa.DataFrameModel):
    id: int
    amount: float = pa.Field(ge=0, nullable=True)

@cascade_ingestion(unique_key="id", partitions="none", validation_schema=Orders)
def orders():
    return [{"id": 1, "amount": 10}]
""",
    "transforms/dbt/dbt_project.yml": """
name: shop
profile: cascade
macro-paths: ["{{ env_var('CASCADE_DBT_MACROS') }}"]
models: {+materialized: table, +schema: gold}
""",
    "transforms/dbt/models/sums.sql": "select sum(amount) as total from {{ source('raw', 'orders') }}",
    "transforms/dbt/models/models.yml": """
version: 2
sources: [{name: raw, tables: [{name: orders}]}]
unit_tests:
  - name: right
    model: sums
    given: [{input: "source('raw', 'orders')", rows: [{id: 1, amount: 1}]}]
    expect: {rows: [{total: 1}]}
  - name: wrong
    model: sums
    given: [{input: "source('raw', 'orders')", rows: [{id: 1, amount: 1}]}]
    expect: {rows: [{total: 2}]}
""",
}

FOUND = pa.table(
    {
        "day": pa.array([dt.date(2026, 3, 1), None], pa.date32()),
        "total": [0.1 + 0.2, None],
        "tags": [["a"], []],
    }
)


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ([{"day": None}, {"day": "2026-03-01"}], ""),
        ([{"day": dt.date(2026, 3, 1), "total": 0.3}, {"day": None, "total": None}], ""),
        ([{"tags": ["a"]}, {"tags": []}], ""),
        ([{"day": "2026-03-01"}], "unexpected: day=None"),
        (
            [{"day": "2026-03-01"}, {"day": None}, {"day": None}],
            "missing: day=None",
        ),
        (
            [{"day": "2026-03-02", "total": 0.3}, {"day": None}],
            "missing: day=datetime.date(2026, 3, 2), total=0.3\nunexpected: day=datetime.date(2026, 3, 1), total=0.3",
        ),
        ([{"day": "soon"}, {"day": None}], "missing: day='soon'\nunexpected: day=datetime.date(2026, 3, 1)"),
        ([{"dya": None}], "there is no column dya; there are day, total, tags"),
        ([], "unexpected: a row\nunexpected: a row"),
    ],
)
def test_rows_that_differ_are_named(expected: list[dict[str, object]], said: str) -> None:
    assert difference(FOUND, expected) == said


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("project"), PROJECT)


@pytest.fixture
def lake(project: Path, tmp_path: Path) -> Iterator[TemporaryLakehouse]:
    path = list(sys.path)
    yield TemporaryLakehouse(tmp_path, project_dir=project)
    sys.path[:] = path


def test_given_rows_replace_others_on_main_and_on_the_branch_of_the_runs(lake: TemporaryLakehouse) -> None:
    lake.given("raw.orders", [{"id": 1, "amount": 5}])
    lake.lakehouse.ensure_branch()
    lake.given("raw.orders", [{"id": 7, "amount": "2.5"}])
    for ref in ("main", "test"):
        table = lake.lakehouse.catalog.open(ref).load_table("raw.orders")
        assert table.scan(selected_fields=("id", "amount")).to_arrow().to_pylist() == [{"id": 7, "amount": 2.5}]
    lake.given("raw.orders", [])
    lake.assert_table("raw.orders", [])


def test_a_table_of_no_workflow_has_the_columns_of_its_rows(lake: TemporaryLakehouse) -> None:
    lake.given("silver.a", [{"id": 1, "at": dt.datetime(2026, 3, 1, tzinfo=dt.UTC)}])
    assert [column["column"] for column in lake.query("describe silver.a")] == ["id", "at"]


@pytest.mark.parametrize(
    ("table", "rows", "said"),
    [
        ("raw.orders", [{"id": 1, "amount": -1}], r"raw\.orders cannot be given these rows: .*amount"),
        ("silver.a", [{"id": 1, "aB": None}], r"No row has a value in a_b of silver\.a, which says no type"),
        ("silver.a", [], r"silver\.a needs rows: no workflow says which columns it has"),
    ],
)
def test_what_cannot_be_given_is_said(
    lake: TemporaryLakehouse, table: str, rows: list[dict[str, object]], said: str
) -> None:
    with pytest.raises(AssertionError, match=f"(?s){said}"):
        lake.given(table, rows)
    assert lake.lakehouse.tables() == []


def test_assertions_name_what_there_is(lake: TemporaryLakehouse) -> None:
    lake.given("raw.orders", [{"id": 1, "amount": 5}])
    with pytest.raises(AssertionError, match=r"There is no table raw\.order; there are: raw\.orders\."):
        lake.assert_table("raw.order", [])
    with pytest.raises(AssertionError, match=r"raw\.orders has not the rows that are expected:\nunexpected: a row"):
        lake.assert_table("raw.orders", [])
    with pytest.raises(AssertionError, match=r"had no check 'raw/orders x'; it had: raw/orders contract\."):
        lake.assert_check("raw.orders", "x")
    with pytest.raises(AssertionError, match=r"The check 'raw/orders contract' passed\."):
        lake.assert_check("raw.orders", "contract", passed=False)


def test_time_stands_still_in_the_block(lake: TemporaryLakehouse) -> None:
    with lake.at("2016-03-01 06:00"):
        lake.given("raw.orders", [{"id": 1, "amount": 5}])
        assert dt.datetime.now(dt.UTC) == dt.datetime(2016, 3, 1, 6, tzinfo=dt.UTC)
    assert lake.query("select distinct year(_cascade_ingested_at) as y from raw.orders") == [{"y": 2016}]
    assert dt.datetime.now(dt.UTC) > dt.datetime(2016, 3, 1, 7, tzinfo=dt.UTC)


def test_definitions_and_names_do_not_mix(lake: TemporaryLakehouse) -> None:
    with pytest.raises(UsageError, match="not both"):
        lake.run("raw.orders", *lake.definitions.assets[:1])  # type: ignore[index]
    with pytest.raises(UsageError, match="did you mean raw/orders"):
        lake.run("raw.order")


def test_cascade_test_runs_unit_tests_of_dbt_and_says_how_rows_differ(project: Path) -> None:
    """One that fails fails the command; pytest needs no folder of tests for it."""
    command = [str(Path(sys.executable).with_name("cascade")), "test", "-q"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "FAILED transforms/dbt/models/models.yml::wrong" in done.stdout
    assert "actual differs from expected" in done.stdout
