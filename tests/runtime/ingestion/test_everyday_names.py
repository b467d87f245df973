"""The promise of everyday names: a column is called what its source says, in snake_case, or is refused by its name.

Modules: `cascade.ingestion.plan`, `cascade.iceberg.evolve`.
"""

import datetime as dt

import pandas as pd
import pyarrow as pa
import pytest

from support.everyday import Case, Ran, becomes, column, of_day, pages, refused
from support.ingestion import Lake

pytestmark = pytest.mark.on_servers("nessie", shared=True)

LONG = "x" * 300
AT = dt.datetime(2013, 7, 1, 12)

# What a source calls a column, and what the table does.
SPELT = {
    "userId": "user_id",
    "UserID": "user_id",
    "HTTPServer": "http_server",
    "iPhone5s": "i_phone5s",
    "NaN": "na_n",
    "order": "order",
    "SELECT": "select",
    "null": "null",
    "true": "true",
    "user id": "user_id",
    " padded ": "padded",
    "a  b": "a_b",
    "a__b": "a_b",
    "a.b": "a_b",
    "a/b-c": "a_b_c",
    'a"b': "a_b",
    "a'; drop table x": "a_drop_table_x",
    "line\nbreak": "line_break",
    "zero\x00": "zero",
    "100%": "100",
    "$ref": "ref",
    "@type": "type",
    "{x}": "x",
    "1st": "1st",
    "2024": "2024",
    "_id": "_id",
    "__typename": "__typename",
    "id_": "id",
    "_": "_",
    "größe": "größe",
    "STRAẞE": "straße",
    "İ": "İ".lower(),
    "e\u0301": "é",
    "日本": "日本",
    "a🌦️b": "a_b",
    "\ufeffid": "id",
    "\u200bid": "id",
    "x²": "x²",
    LONG: LONG,
    # What DuckDB, Iceberg, Dagster and pandas use themselves.
    "filename": "filename",
    "file_row_number": "file_row_number",
    "rowid": "rowid",
    "rows": "rows",
    "_pos": "_pos",
    "_file": "_file",
    "element": "element",
    "__index_level_0__": "__index_level_0",
}
assert len(SPELT) >= 45
WORKS: dict[str, Case] = {ascii(name)[:30]: becomes([{name: 1}], [{made: 1}]) for name, made in SPELT.items()}

# The same as declared names: the table takes them as they are.
DECLARED = ["userId", "user id", "Größe", "a.b", "a'b", "1", "-", "🌦️", "select", "filename", LONG]
WORKS |= {f"declared {name[:20]}": becomes([{name: 1}], [{name: 1}], **column(pa.int64(), name)) for name in DECLARED}

WORKS |= {
    "declared in snake case": becomes([{"userId": 1}], [{"user_id": 1}], **column(pa.int64(), "user_id")),
    "declared in camelCase": becomes([{"user_id": 1}], [{"userId": 1}], **column(pa.int64(), "userId")),
    "a number as a name": becomes([{1: 2}], [{"1": 2}]),
    "names of two levels": becomes(pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])), [{"a_b": 1}]),
    "names that differ in more than case": becomes([{"straße": 1, "strasse": 2}], [{"straße": 1, "strasse": 2}]),
    "a name and a field of one path": becomes(pa.table({"v": [{"a": 1}], "v.a": [2]}), [{"v": {"a": 1}, "v_a": 2}]),
    "names of fields stay": becomes(
        pa.table({"v": [{"aB": 1, "🌦️": 2, "select": 3, "a.b": 4}]}),
        [{"v": {"aB": 1, "🌦️": 2, "select": 3, "a.b": 4}}],
    ),
    "two thousand columns": becomes([{f"c{n}": n for n in range(2000)}], [{f"c{n}": n for n in range(2000)}]),
    "names of Cascade's own columns": becomes(
        [{"id": 1, "_cascade_ingested_at": AT, "_cascade_partition": "x", "_cascade_x": 1}], [{"id": 1}]
    ),
    "a reserved word as key and order": becomes(
        [{"order": 1, "select": 2, "v": "a"}, {"order": 1, "select": 1, "v": "b"}],
        [{"order": 1, "select": 2, "v": "a"}],
        twice=1,
        unique_key="order",
        order_by="select",
    ),
    "a name of DuckDB's as key": becomes(
        [{"filename": 1, "file_row_number": n} for n in (2, 1)],
        [{"filename": 1, "file_row_number": 2}],
        twice=1,
        unique_key="filename",
        order_by="file_row_number",
    ),
    "a key that is named twice": becomes([{"userId": 1}], [{"user_id": 1}], unique_key=["userId", "user_id"]),
    "a partition column with a space": of_day(
        becomes([{"made at": AT}], [{"made_at": AT}], partition_column="made at", write="replace_partition")
    ),
}

REFUSED: dict[str, Case] = {
    "no name": refused([{"": 1}], "is called ''"),
    "a name of blanks": refused([{" ": 1}], "is called ' '"),
    "a name of signs": refused([{"-": 1}], "is called '-'"),
    "a name of an emoji": refused([{"🌦️": 1}], "is called '🌦️'"),
    "half a character": refused([{"\ud800": 1}], r"is called '\ud800'"),
    "names that differ in case": refused([{"name": 1, "Name": 2}], "`name` and `Name` are both the column `name`"),
    "names that differ in case, in two pages": refused(
        pages([{"name": 1}], [{"Name": 2}]), "`name` and `Name` are both the column `name`"
    ),
    "camelCase beside snake case": refused([{"userId": 1, "user_id": 2}], "`userId` and `user_id` are both"),
    "one letter in two forms": refused([{"e\u0301": 1, "é": 2}], "are both the column `é`"),
    "one name twice": refused(pa.table([[1], [2]], names=["a", "a"]), "`a` and `a` are both the column `a`"),
    "the number 1 and the text": refused([{1: 1, "1": 2}], "`1` and `1` are both the column `1`"),
    "fields that differ in case": refused(pa.table({"v": [{"a": 1, "A": 2}]}), "`v.a` and `v.A` are both the field"),
    "a field without a name": refused(
        pa.table({"v": [{"": 1}]}), "A column, or a field inside one, has no name: struct<"
    ),
    "Cascade's names alone": refused([{"_cascade_x": 1}], "no column has a value yet"),
    "Cascade's name declared": refused(
        [{"_cascade_x": 1}], "are Cascade's own: `_cascade_x`", **column(pa.int64(), "_cascade_x")
    ),
    "a key of Cascade's": refused([{"id": 1}], "no column `_cascade_ingested_at`", unique_key="_cascade_ingested_at"),
    "an order that no row has": refused([{"id": 1}], "no column `at`", unique_key="id", order_by="at"),
    "a partition column that no row has": of_day(refused([{"id": 1}], "no column `at`", partition_column="at")),
    "a column that is always null as key": refused([{"id": None, "v": 1}], "no column `id`", unique_key="id"),
    "a declared column that another name falls on": refused(
        [{"userId": 1, "user_id": 2}], "are both the column `userId`", **column(pa.int64(), "userId")
    ),
}

CASES = {**WORKS, **REFUSED}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, _own_machine: None) -> Ran:
    folder = tmp_path_factory.mktemp("names")
    return Ran(Lake(folder, project_dir=folder), CASES, "n")


@pytest.mark.parametrize("name", CASES)
def test_a_column_has_the_name_of_its_source_or_is_refused_by_it(ran: Ran, name: str) -> None:
    ran.judge(name)
