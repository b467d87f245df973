"""Files of every format, and what text says of its type; in lakehouses of their own, without a command.

Modules: `cascade_create.sources.files`, `cascade_create.sample`, `cascade_create.render`, `cascade_create.partitions`
"""

from __future__ import annotations

import datetime as dt
import gzip
import importlib
import sqlite3
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cascade.config import Settings
from cascade.errors import UsageError
from cascade.testing import TemporaryLakehouse
from cascade_create.sample import draw, null_texts
from cascade_create.sources import Request
from cascade_create.workflow import Draft, create_workflow, look
from support.api import Api

FRAME = pl.DataFrame(
    {
        "Order ID": [1, 2, 3],
        "Größe": [1.5, None, 2.0],
        "when": [dt.datetime(2026, 1, 1, 12), None, dt.datetime(2026, 1, 2)],
        "Name": ["a", 'b "q"', "☂"],
        "name": ["1", "2", None],
    }
)


def drafted(root: Path, path: str, **given: Any) -> Draft:
    request = Request(kind="file", name="drops", path=path, infer=True, folder=root, **given)
    return look(Settings(project_dir=root), request)


def loaded(root: Path, draft: Draft, **given: Any) -> list[dict[str, Any]]:
    """Write the workflow, run it twice, and return the rows of its table."""
    name = draft.request.name
    create_workflow(Settings(project_dir=root), draft)
    for module in [module for module in sys.modules if module.partition(".")[0] == "workflows"]:
        del sys.modules[module]
    sys.path.insert(0, str(root))
    try:
        workflow = importlib.import_module(f"workflows.ingestion.{name}")
    finally:
        sys.path.remove(str(root))
    sql = f"select * exclude _cascade_ingested_at from raw.{name} order by 1"
    lake = TemporaryLakehouse(root / ".lake", project_dir=root)
    for _ in range(2):
        result = lake.run(getattr(workflow, name), **given)
        assert result.success, result.errors
    if hasattr(workflow, "FOLDER"):  # the files that were recorded for the test say the same
        workflow.FOLDER = str(root / "tests/data" / name)
        recorded = TemporaryLakehouse(root / ".recorded", project_dir=root)
        result = recorded.run(getattr(workflow, name))
        assert result.success, result.errors
        assert recorded.query(sql) == lake.query(sql)
    return lake.query(sql)


def _excel(frame: pl.DataFrame, file: Path) -> None:
    frame.write_excel(file)


WRITERS: dict[str, Any] = {
    "a.csv": lambda frame, file: file.write_text(frame.write_csv(), "utf-8"),
    "a.tsv": lambda frame, file: file.write_text(frame.write_csv(separator="\t"), "utf-8-sig"),
    "a.csv.gz": lambda frame, file: file.write_bytes(gzip.compress(frame.write_csv().encode())),
    "a.jsonl": lambda frame, file: frame.write_ndjson(file),
    "a.parquet": lambda frame, file: frame.write_parquet(file),
    "a.xlsx": _excel,
}


@pytest.mark.parametrize("name", WRITERS)
def test_each_format_is_read_as_it_says(name: str, root: Path) -> None:
    """Two names that SQL cannot tell apart are two columns; a second run adds nothing."""
    frame = FRAME if name != "a.xlsx" else FRAME.rename({"name": "name "})  # Excel's tables want different headers
    (root / "in").mkdir()
    WRITERS[name](frame, root / "in" / name)
    draft = drafted(root, "in/*" + name[1:], key=["Order ID"])
    rows = loaded(root, draft)
    texts = draft.source.texts  # DuckDB has given the second one its name
    assert [(row["order_id"], row["größe"], row["name"], row["name_1" if texts else "name_2"]) for row in rows] == [
        (1, 1.5, "a", 1 if texts else "1"),
        (2, None, 'b "q"', 2 if texts else "2"),
        (3, 2.0, "☂", None),
    ]
    if name != "a.jsonl":  # JSON has no times: they stay text
        assert [str(row["when"])[:19] for row in rows] == ["2026-01-01 12:00:00", "None", "2026-01-02 00:00:00"]


def test_files_without_a_key_replace_the_table_also_with_a_cursor(root: Path) -> None:
    """Their rows would be there twice: nothing says which of them are the same."""
    (root / "in").mkdir()
    (root / "in/a.csv").write_text("order_id,when\n1,2026-01-01\n1,2026-01-01\n")
    assert len(loaded(root, drafted(root, "in/*.csv", cursor="when"))) == 2


def test_other_letters_than_those_of_utf8_are_read(root: Path) -> None:
    (root / "in").mkdir()
    (root / "in/a.csv").write_bytes("Order ID;Name\n1;größe\n".encode("latin-1"))
    rows = loaded(root, drafted(root, "in/*.csv", key=["order_id"]))
    assert rows == [{"order_id": 1, "name": "größe"}]


@pytest.mark.parametrize("unit", ["daily", "hourly", "weekly", "monthly"])
@pytest.mark.parametrize("kind", ["rest", "database"])
def test_a_partition_has_the_rows_of_its_time(kind: str, unit: str, root: Path, api: Api) -> None:
    """The cursor says which; a partition that runs again has each row once."""
    with sqlite3.connect(root / "shop.db") as database:
        database.execute("create table visits (id integer primary key, updated_at timestamp)")
        database.executemany(
            "insert into visits values (?, ?)",
            [(row["id"], row["updated_at"][:19].replace("T", " ")) for row in api.rows],
        )
    database.close()
    urls = {"rest": f"{api.url}/plain", "database": "sqlite:///shop.db"}
    request = Request(
        kind=kind,
        name="visits",
        url=urls[kind],
        table="visits" if kind == "database" else "",
        cursor="updated_at",
        partitions=unit,
        infer=True,
        folder=root,
    )
    first, last, expected = {
        "hourly": ("2026-01-02-03:00", "2026-01-02-05:00", range(13, 16)),
        "daily": ("2026-01-02", "2026-01-03", range(10, 30)),
        "weekly": ("2026-01-04", "2026-01-04", range(30, 81)),
        "monthly": ("2026-01-01", "2026-01-01", range(1, 81)),
    }[unit]
    rows = loaded(root, look(Settings(project_dir=root), request), partitions=[first, last])
    assert [row["id"] for row in rows] == list(expected)


TEXTS: list[tuple[list[str | None], str]] = [
    (["1", "-2", None], "int64"),
    (["1", "2.5"], "double"),
    (["007", "8"], "string"),
    (["+49 30 1", "2"], "string"),
    (["+4930", "2"], "string"),
    (["12345678901234567", "2"], "int64"),
    (["12345678901234567", "2.5"], "string"),
    (["12345678901234567890"], "string"),
    (["10.357019999999999", "2"], "double"),
    (["0.12345678901234567890"], "string"),
    (["0.5", "1"], "double"),
    (["true", "False"], "bool"),
    (["2026-01-01", "2026-02-01"], "date32[day]"),
    (["2026-01-01 10:00:00", "2026-02-01"], "timestamp[us]"),
    (["2026-01-01T10:00:00Z"], "timestamp[us, tz=UTC]"),
    (["2026-01-01T10:00:00+02:00"], "string"),
    (["2026-01-01T10:00:00Z", "2026-01-01T10:00:00"], "string"),
    (["1,5"], "string"),
    (["x", "1"], "string"),
]


@pytest.mark.parametrize(("texts", "expected"), TEXTS)
def test_text_becomes_a_type_only_where_no_character_is_lost(texts: list[str | None], expected: str) -> None:
    """A post code keeps its zero, a telephone number its plus, a long number its digits."""
    sample = draw([{"a": text} for text in texts], 100, texts=True)
    assert str(sample.columns[0].type) == expected


def test_a_word_for_nothing_is_null_unless_it_is_a_word_of_some_column() -> None:
    """`NA` is nothing among numbers; beside the code of Namibia it stays what it is."""
    assert null_texts([["1", "NA", "2"], ["x", "y"]]) == ["NA"]
    assert null_texts([["1", "NA", "2"], ["NA", "DE"]]) == []


def test_a_number_that_is_whole_in_one_file_and_not_in_another_is_one_column(root: Path) -> None:
    (root / "in").mkdir()
    pl.DataFrame({"id": [1], "x": [1]}).write_parquet(root / "in/a.parquet")
    pl.DataFrame({"id": [2], "x": [1.5]}).write_parquet(root / "in/b.parquet")
    draft = drafted(root, "in/*.parquet")
    assert draft.sample
    assert {column.name: str(column.type) for column in draft.sample.columns} == {"id": "int64", "x": "double"}


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no files": ({"path": "in/*.csv"}, "no file to look at", "--path"),
    "no format": ({"path": "in/*"}, "which format", "*.csv"),
    "nothing in it": ({"path": "empty/*.csv"}, "has no rows", "--infer"),
    "no Excel": ({"path": "broken/*.xlsx"}, "cannot be read", "whole"),
    "no parquet": ({"path": "broken/*.parquet"}, "cannot be read", "whole"),
    "partitions": ({"path": "in/*.csv", "partitions": "daily"}, "no daily partitions", "--partitions"),
    "bucket": ({"path": "s3://bucket/*.csv"}, "reads s3:// is not installed", "uv add s3fs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_cannot_be_looked_at_are_told(case: str, root: Path) -> None:
    given, what, fix = REFUSED[case]
    for folder, name, text in (("empty", "a.csv", "a,b\n"), ("broken", "a.xlsx", "x"), ("broken", "a.parquet", "x")):
        (root / folder).mkdir(exist_ok=True)
        (root / folder / name).write_text(text)
    with pytest.raises(UsageError) as refused:
        drafted(root, **given)
    assert what in refused.value.what
    assert fix in refused.value.fix
