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
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from cascade.config import Settings
from cascade.errors import UsageError
from cascade.testing import TemporaryLakehouse
from cascade_create.sample import draw, null_texts
from cascade_create.sources import Request
from cascade_create.workflow import Draft, create_workflow, look
from support.api import Api

if TYPE_CHECKING:
    from support.servers.stack import Stack

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
    if hasattr(workflow, "FOLDER") and not given:  # the files that were recorded for the test say the same
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
    "a.json": lambda frame, file: frame.write_json(file),
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
    if name not in ("a.jsonl", "a.json"):  # JSON has no times: they stay text
        assert [str(row["when"])[:19] for row in rows] == ["2026-01-01 12:00:00", "None", "2026-01-02 00:00:00"]


def test_files_without_a_key_replace_the_table_also_with_a_cursor(root: Path) -> None:
    """Their rows would be there twice: nothing says which of them are the same."""
    (root / "in").mkdir()
    (root / "in/a.csv").write_text("order_id,when\n1,2026-01-01\n1,2026-01-01\n")
    assert len(loaded(root, drafted(root, "in/*.csv", cursor="when"))) == 2


NOTHING_IN_IT = {
    "csv": {"a.csv": "", "b.csv": "id,v\n", "c.csv": "id,v\n1,2\n2,\n"},
    "jsonl": {"a.jsonl": "", "b.jsonl": '{"id": 1, "v": 2}\n\n{"id": 2}\n\n'},
}


@pytest.mark.parametrize("ending", NOTHING_IN_IT)
def test_empty_files_and_empty_lines_have_no_rows(ending: str, root: Path) -> None:
    (root / "in").mkdir()
    for name, text in NOTHING_IN_IT[ending].items():
        (root / "in" / name).write_text(text)
    assert loaded(root, drafted(root, f"in/*.{ending}", key=["id"])) == [{"id": 1, "v": 2}, {"id": 2, "v": None}]


def test_a_folder_stands_for_its_files_also_those_below(root: Path) -> None:
    for year in (2025, 2026):
        (root / f"in/year={year}").mkdir(parents=True)
        pl.DataFrame({"id": [year]}).write_parquet(root / f"in/year={year}/a.parquet")
    assert loaded(root, drafted(root, "in", key=["id"])) == [{"id": 2025}, {"id": 2026}]


def test_json_may_have_an_object_a_line_whatever_the_ending(root: Path) -> None:
    (root / "in").mkdir()
    (root / "in/a.json").write_text('{"id": 1, "v": 1}\n{"id": 2, "v": "x"}\n')
    assert loaded(root, drafted(root, "in/*.json", key=["id"])) == [{"id": 1, "v": "1"}, {"id": 2, "v": "x"}]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16"])
def test_other_letters_than_those_of_utf8_are_read(encoding: str, root: Path) -> None:
    name = "5 €" if encoding == "cp1252" else "größe"
    (root / "in").mkdir()
    (root / "in/a.csv").write_bytes(f"Order ID;Name\n1;{name}\n".encode(encoding))
    rows = loaded(root, drafted(root, "in/*.csv", key=["order_id"]))
    assert rows == [{"order_id": 1, "name": name}]


def test_a_primary_key_with_capitals_and_a_cursor_with_a_space_are_named_as_the_database_does(root: Path) -> None:
    with sqlite3.connect(root / "shop.db") as database:
        database.execute('create table "Old Orders" ("OrderID" integer primary key, "Changed At" timestamp)')
        database.execute("insert into \"Old Orders\" values (1, '2026-01-01 10:00:00'), (2, '2026-01-02 10:00:00')")
    database.close()
    place = {"url": "sqlite:///shop.db", "table": "Old Orders", "key": ["OrderID"], "cursor": "Changed At"}
    draft = look(Settings(project_dir=root), Request(kind="database", name="visits", infer=True, folder=root, **place))
    assert [row["order_id"] for row in loaded(root, draft)] == [1, 2]


@pytest.mark.parametrize("unit", ["daily", "hourly", "weekly", "monthly"])
@pytest.mark.parametrize("kind", ["rest", "database", "file"])
def test_a_partition_has_the_rows_of_its_time(kind: str, unit: str, root: Path, api: Api) -> None:
    """The cursor says which; a partition that runs again has each row once."""
    with sqlite3.connect(root / "shop.db") as database:
        database.execute("create table visits (id integer primary key, updated_at timestamp)")
        database.executemany(
            "insert into visits values (?, ?)",
            [(row["id"], row["updated_at"][:19].replace("T", " ")) for row in api.rows],
        )
    database.close()
    (root / "visits.csv").write_text(
        "id,updated_at\n" + "".join(f"{row['id']},{row['updated_at'][:19].replace('T', ' ')}\n" for row in api.rows)
    )
    urls = {"rest": f"{api.url}/plain", "database": "sqlite:///shop.db"}
    request = Request(
        kind=kind,
        name="visits",
        url=urls.get(kind, ""),
        path="visits.csv",
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


@pytest.mark.parametrize("unit", [None, "daily", "monthly"])
def test_a_function_of_ones_own_has_a_cursor_or_partitions(unit: str | None, root: Path) -> None:
    """With a cursor it is told what is loaded already, so that a second run brings nothing twice."""
    request = Request(
        kind="python", name="events", key=["shop", "Nr"], cursor="Changed At", partitions=unit, folder=root
    )
    draft = look(Settings(project_dir=root), request)
    if unit:
        assert draft.sample
        first = min(draft.sample.values("changed_at"))[:7] + "-01" if unit == "monthly" else ""
        rows = loaded(root, draft, partitions=first or min(draft.sample.values("changed_at"))[:10])
        assert len(rows) == 2
        return
    assert [row["nr"] for row in loaded(root, draft)] == [1, 2]
    assert "since.last_value" in (root / "workflows/ingestion/events.py").read_text()


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
    "partitions": ({"path": "in/*.csv", "partitions": "yearly"}, "no yearly partitions", "daily"),
    "bucket": ({"path": "s3://bucket/*.csv"}, "reads s3:// is not installed", "uv add s3fs"),
}


def test_a_bucket_is_read_where_dotenv_says_and_only_what_is_new(
    stack: Stack, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The credentials have dlt's names; the second run reads the file that came after the first, and no other."""
    import s3fs

    at = {name: stack.environment[f"CASCADE_S3_{name.upper()}"] for name in ("endpoint", "access_key", "secret_key")}
    bucket = s3fs.S3FileSystem(key=at["access_key"], secret=at["secret_key"], endpoint_url=at["endpoint"])
    folder = f"{stack.environment['CASCADE_WAREHOUSE']}/drops-{root.parent.name}"
    bucket.pipe(f"{folder}/2026/a.csv", b"Order ID;v\n1;x\n2;y\n")
    bucket.pipe(f"{folder}/2026/empty.csv", b"")
    names = {"AWS_ACCESS_KEY_ID": at["access_key"], "AWS_SECRET_ACCESS_KEY": at["secret_key"]}
    names = {f"SOURCES__FILESYSTEM__CREDENTIALS__{name}": value for name, value in names.items()}
    names["SOURCES__FILESYSTEM__CREDENTIALS__ENDPOINT_URL"] = at["endpoint"]
    (root / ".env").write_text("".join(f"{name}={value}\n" for name, value in names.items()))
    for name in names:
        monkeypatch.setenv(name, "")  # what `.env` sets is taken back after the test
        monkeypatch.delenv(name)
    draft = drafted(root, f"{folder}/**/*.csv", key=["Order ID"])
    assert [row["order_id"] for row in loaded(root, draft)] == [1, 2]
    bucket.pipe(f"{folder}/2026/b.csv", b"Order ID;v\n2;z\n3;z\n")
    lake = TemporaryLakehouse(root / ".lake", project_dir=root)
    workflow = importlib.import_module("workflows.ingestion.drops")
    monkeypatch.setattr(workflow, "FOLDER", folder)  # `loaded` has set it to the recorded files
    result = lake.run(workflow.drops)
    assert result.success, result.errors
    assert lake.query("select order_id, v from raw.drops order by 1") == [
        {"order_id": 1, "v": "x"},
        {"order_id": 2, "v": "z"},
        {"order_id": 3, "v": "z"},
    ]


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


@pytest.mark.parametrize("missing", ["fastexcel", "xlsxwriter"])
def test_what_reads_excel_is_named_when_a_project_does_not_have_it(
    missing: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "in").mkdir()
    (root / "in/a.xlsx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=f"{missing}, is not installed") as refused:
        drafted(root, "in/*.xlsx")
    assert refused.value.fix.endswith("uv add fastexcel xlsxwriter")


def test_pandas_is_named_when_it_has_to_read_csv_and_a_project_does_not_have_it(root: Path) -> None:
    (root / "in").mkdir()
    (root / "in/a.csv").write_bytes("id;größe\n1;2\n".encode("cp1252"))
    said = drafted(root, "in/*.csv").source.explain(ModuleNotFoundError("No module named 'pandas'"))
    assert said.fix.endswith("uv add pandas")
