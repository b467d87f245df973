"""The promises of `cascade.iceberg.read`: DuckDB sees every row of an Iceberg table, whatever is in it."""

import math
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.manifest import FileFormat
from pyiceberg.table import Table

from cascade.catalog import BranchingCatalog
from cascade.engine import query
from cascade.errors import SchemaMismatchError
from cascade.iceberg.read import view_sql
from cascade.iceberg.schema import schema_from_arrow
from cascade.lakehouse import Lakehouse
from cascade.quality import custom_sql
from support.lakes import mark_deleted, numbers, open_embedded, put
from support.quality import run_check

T = "raw.a"


def ids(lake: BranchingCatalog, condition: str = "true", table: str = T) -> list[Any]:
    rows = query(lake, "dev", f"SELECT id FROM {table} WHERE {condition} ORDER BY id").to_pylist()
    return [row["id"] for row in rows]


def table(lake: BranchingCatalog) -> Table:
    return lake.open("dev").load_table(T)


# --- NaN --------------------------------------------------------------------------------------------------

_FLOATS = pa.table(
    {
        "id": [1, 2],
        "f": [math.nan, 1.0],
        "g": pa.array([math.nan, 1.0], pa.float32()),
        "s": [{"f": math.nan}, {"f": 1.0}],
        "l": [[math.nan], [1.0]],
        "m": pa.array([[("k", math.nan)], [("k", 1.0)]], pa.map_(pa.string(), pa.float64())),
    }
)
_FINDS_NAN = [
    "isnan(f)",
    "f = 'NaN'",
    "f > 5",
    "not (f between 0 and 10)",
    "f is distinct from 1.0",
    "f > 5 or id < 0",
    "f <> 1.0",
    "f in ('NaN', 7)",
    "f = (select max(f) from raw.a)",
    "isnan(g)",
    "g > 5",
    "isnan(s.f)",
    "s.f > 5",
    "isnan(l[1])",
    "l[1] > 5",
    "isnan(m['k'])",
]


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> BranchingCatalog:
    """One table of ours, and one with the statistics that other writers leave in their files."""
    lake = open_embedded(tmp_path_factory.mktemp("lake"))
    put(lake, "dev", T, _FLOATS)
    catalog = lake.open("dev")
    catalog.create_namespace("other")
    catalog.create_table("other.a", schema_from_arrow(_FLOATS.schema)).append(_FLOATS)
    return lake


@pytest.mark.parametrize("table", [T, "other.a"])
@pytest.mark.parametrize("condition", _FINDS_NAN)
def test_a_filter_finds_nan(floats: BranchingCatalog, condition: str, table: str) -> None:
    assert ids(floats, condition.replace("raw.a", table), table) == [1]


def test_a_check_sees_nan(floats: BranchingCatalog) -> None:
    check = custom_sql("no_nan", "select * from raw.a where isnan(f)")
    assert not run_check(Lakehouse(floats.settings, "dev"), check, asset=T.replace(".", "/")).passed


@pytest.mark.parametrize("first", ["ours", "others"])
def test_a_merge_by_nan_does_not_double_the_row(lake: BranchingCatalog, first: str) -> None:
    rows = pa.table({"f": [math.nan], "v": [1]})
    if first == "ours":
        put(lake, "dev", T, rows, "merge", key=["f"])
    else:
        lake.create("dev")
        lake.open("dev").create_namespace("raw")
        lake.open("dev").create_table(T, schema_from_arrow(rows.schema)).append(rows)
    put(lake, "dev", T, pa.table({"f": [math.nan], "v": [2]}), "merge", key=["f"])
    assert query(lake, "dev", "select v from raw.a").to_pylist() == [{"v": 2}]


# --- rows that are marked as deleted ----------------------------------------------------------------------


@pytest.fixture
def marked(lake: BranchingCatalog) -> BranchingCatalog:
    """Two files; the second row of the first one is deleted."""
    put(lake, "dev", T, numbers(1, 3))
    put(lake, "dev", T, numbers(4, 5))
    found = table(lake)
    (first,) = [t.file.file_path for t in found.scan().plan_files() if t.file.record_count == 3]
    mark_deleted(found, [(first, 1)])
    return lake


def test_rows_that_are_marked_as_deleted_are_gone(marked: BranchingCatalog) -> None:
    assert ids(marked) == [1, 3, 4, 5]


def test_they_are_still_there_in_an_older_snapshot(marked: BranchingCatalog) -> None:
    before = table(marked).history()[-2].snapshot_id
    rows = query(marked, "dev", f"SELECT id FROM {T} ORDER BY id", at=before).to_pylist()
    assert [row["id"] for row in rows] == [1, 2, 3, 4, 5]


def test_deletes_that_cannot_be_followed_are_refused_with_a_remedy(marked: BranchingCatalog) -> None:
    mark_deleted(table(marked), [("x", 1)], FileFormat.ORC)
    with pytest.raises(SchemaMismatchError, match=r"raw\.a") as caught:
        view_sql(table(marked))  # what DuckDB reads; the other engine reads its own files
    assert "optimize" in caught.value.fix


# --- names ------------------------------------------------------------------------------------------------

_NAMES = ["filename", "file_row_number", "file_index", "rowid", 'with "quotes" and \'', "größe", "_1", "select"]


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> BranchingCatalog:
    """Columns whose names DuckDB uses itself, as keys with duplicates, merged twice."""
    lake = open_embedded(tmp_path_factory.mktemp("lake"))
    for value in (1, 2):
        rows = [dict.fromkeys(_NAMES, n) | {"value": n * 10} for n in (1, 1, value)]
        put(lake, "dev", T, rows, "merge", key=_NAMES)
    return lake


def test_columns_may_have_the_names_that_duckdb_uses_itself(named: BranchingCatalog) -> None:
    rows = query(named, "dev", f"SELECT * FROM {T} ORDER BY value").to_pylist()
    assert rows == [dict.fromkeys(_NAMES, n) | {"value": n * 10} for n in (1, 2)]
