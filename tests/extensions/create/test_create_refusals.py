"""What cannot be created is refused: a sentence, exit code 2, and nothing is written.

Modules: `cascade_create.component`, `cascade_create.names`, `cascade_create.existing`, `cascade_create.changes`,
`cascade_create.dbt_files`, `cascade_create.check`, `cascade_create.model`, `cascade_create.dialog`,
`cascade_create.workflow`, `cascade_create.broken`
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
from dagster.components.component_scaffolding import scaffold_object

from cascade.config import Settings
from cascade.errors import CascadeError, UsageError
from cascade_create.changes import Change, write
from cascade_create.check import create_check
from cascade_create.model import create_model
from cascade_create.names import column_names, quoted, require_name, usable
from cascade_create.sources import Request
from cascade_create.workflow import create_workflow, look
from support.generated import BIN, run, stranger
from support.projects import Command

HOSTILE = [
    "../../evil",
    "a/b",
    "Tickets",
    "my-tickets",
    "1st",
    "class",
    "select",
    "order",
    "dlt",
    "test_x",
    "größe",
    "☂",
    "a" * 64,
    "a b",
    "__init__",
    "a;drop",
    "{{ x }}",
    "a\n",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_cannot_be_one_is_refused_with_one_that_can(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        require_name(name, "workflow")
    assert require_name(usable(name), "workflow") in refused.value.fix


def test_columns_get_names_that_sql_can_say_each_of_them_once() -> None:
    sources = ["Total (EUR)", "total_eur", "orderId", "#", "%", "2024 sales", "Name", "name", "_id", "_cascade_x"]
    names = column_names(sources)
    assert names == {
        "Total (EUR)": "total_eur",
        "total_eur": "total_eur_2",
        "orderId": "order_id",
        "#": "column_4",
        "%": "column_5",
        "2024 sales": "col_2024_sales",
        "Name": "name",
        "name": "name_2",
        "_id": "_id",
        "_cascade_x": "column_10",
    }


def test_columns_are_in_quotes_where_duckdb_wants_them() -> None:
    """Of all its keywords; those of Trino alone are in quotes too."""
    with duckdb.connect() as connection:
        for (word,) in connection.execute("select keyword_name from duckdb_keywords()").fetchall():
            connection.execute(f'select {quoted(word)},\n1\nfrom (select 1 as "{word}") where {quoted(word)} = 1')


COMMANDS: dict[str, tuple[list[str], str, str]] = {
    "no kind": (["create-workflow"], "KIND and NAME", "create-workflow"),
    "wrong kind": (["create-workflow", "ftp", "x"], "'ftp' is not a kind", "rest, database, file, python"),
    "name": (["create-workflow", "python", "../x"], "cannot be the name", "such as x"),
    "partitions": (["create-workflow", "python", "x", "--partitions", "yearly"], "no yearly partitions", "daily"),
    "paginator": (["create-workflow", "rest", "x", "--paginator", "{"], "not a paginator", "offset"),
    "unknown rule": (["create-check", "x", "--asset", "raw.a", "--rule", "nice"], "no table 'raw.a'", "name one of"),
    "unknown layer": (["create-model", "x", "--from", "raw.a"], "not a layer and a name", "silver.x"),
    "unknown table": (["create-model", "bronze.x", "--from", "raw.a"], "no table 'raw.a'", "name one of"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_the_command_says_what_is_wrong_and_exits_with_2(
    case: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, what, fix = COMMANDS[case]
    before = _files(root)
    said = Command(capsys)(*words)
    assert said.code == 2
    assert what in said.err
    assert fix in said.err
    assert _files(root) == before


def test_without_a_project_nothing_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = Command(capsys)("create-workflow", "python", "numbers")
    assert said.code == 2
    assert "project" in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_shows_the_files_and_writes_none(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _files(root)
    said = Command(capsys)("create-workflow", "python", "numbers", "--dry-run")
    assert said.code == 0
    assert "def numbers():" in said.out
    assert _files(root) == before


TAKEN = {
    "workflows/ingestion/numbers.py": "",
    "workflows/schemas/numbers.py": "",
    "tests/test_numbers.py": "",
    "transforms/dbt/models/silver/numbers.sql": "select 1 as x",
    "workflows/other.py": "@cascade_ingestion(table_name='numbers')\ndef other(): ...",
    "workflows/another.py": "@cascade_ingestion\ndef numbers(): ...",
    "transforms/dbt/models/sources/more.yml": "sources: [{name: raw, tables: [{name: numbers}]}]",
}


@pytest.mark.parametrize("path", TAKEN)
def test_a_name_that_the_project_has_is_refused_with_one_that_is_free(path: str, root: Path) -> None:
    """Whichever file has it; nothing is overwritten, nothing is written."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(TAKEN[path])
    before, settings = _files(root), Settings(project_dir=root)
    with pytest.raises(UsageError) as refused:
        look(settings, Request(kind="python", name="numbers"))
    assert "already" in refused.value.what
    assert "numbers_2" in refused.value.fix
    assert _files(root) == before
    create_workflow(settings, look(settings, Request(kind="python", name="numbers_2")))


@pytest.mark.parametrize(("name", "free"), [("numbers_2", "numbers_3"), ("n", "n_2"), ("b" * 63, "b" * 50 + "_2")])
def test_the_name_that_is_free_is_counted_on(name: str, free: str, root: Path) -> None:
    """Not `numbers_2_2`; and a name as long as it may be gets a shorter one."""
    settings = Settings(project_dir=root)
    create_workflow(settings, look(settings, Request(kind="python", name=name)))
    with pytest.raises(UsageError, match=f"such as {free}$"):
        look(settings, Request(kind="python", name=name))
    create_workflow(settings, look(settings, Request(kind="python", name=free)))


def test_all_files_are_written_or_none(root: Path) -> None:
    """The last one cannot be: those before it are taken back, and folders that were made for them."""
    (root / "kept.txt").write_text("old")
    (root / "there.txt").write_text("theirs")
    before = _files(root)
    changes = [
        Change("new/deep/a.txt", b"a"),
        Change("kept.txt", b"new", b"old"),
        Change("there.txt", b"ours"),
    ]
    with pytest.raises(UsageError, match="changed while the command was running"):
        write(root, changes)
    assert _files(root) == before
    assert not (root / "new").exists()


def test_a_folder_that_cannot_be_written_is_told(root: Path) -> None:
    (root / "file").write_text("")
    with pytest.raises(CascadeError, match="cannot be written"):
        write(root, [Change("a.txt", b"a"), Change("file/b.txt", b"b")])
    assert not (root / "a.txt").exists()


def test_a_model_reads_a_model_and_its_key_is_tested(root: Path) -> None:
    settings = Settings(project_dir=root)
    create_workflow(settings, look(settings, Request(kind="python", name="numbers")))
    created = create_model(settings, "bronze.figures", source="bronze.numbers", key=["id"])
    sql = created.texts["transforms/dbt/models/bronze/figures.sql"]
    assert "    id,\n    value\nfrom {{ ref('numbers') }}" in sql
    assert "- unique" in created.texts["transforms/dbt/models/bronze/bronze.yml"]


MODEL = """import pandera.polars as pa


class Orders(pa.DataFrameModel):
    id: int
    customer: str
    total: float = pa.Field(nullable=True)
    day: str = pa.Field(nullable=True)
"""
WORKFLOW = """from cascade.ingestion import cascade_ingestion

from workflows.schemas.orders import Orders


@cascade_ingestion(unique_key="id", partitions="none", validation_schema=Orders)
def orders():
    return [{"id": 1, "customer": "a", "total": 1.0, "day": "2026-01-01"}]
"""
#: Each rule, and the rows of its test.
RULES: dict[str, tuple[dict[str, Any], str]] = {
    "not_null": ({"column": ["total"]}, '"total": None'),
    "unique": ({"column": ["customer"]}, '"customer": "a"'),
    "in_range": ({"column": ["total"], "least": "0", "most": "9"}, '"total": -1'),
    "accepted_values": ({"column": ["day"], "value": ["2026-01-01"]}, '"day": "not 2026-01-01"'),
    "matches": ({"column": ["day"], "pattern": r"\d{4}-\d\d-\d\d"}, '"day": "?"'),
    "row_count": ({"least": "3"}, '"id": 1'),
    "sql": ({"sql": "select * from raw.orders where total > 100"}, '"total": 1000000000'),
}


def test_the_test_of_a_check_has_a_row_that_breaks_it(root: Path) -> None:
    """It asks for a failure: it tests the rule, not that a file is there."""
    _shop(root)
    for rule, (given, broken) in RULES.items():
        created = create_check(Settings(project_dir=root), f"{rule}_is_kept", asset="raw.orders", rule=rule, **given)
        test = created.texts[f"tests/test_{rule}_is_kept.py"]
        assert broken in test, rule
        assert "passed=False" in test, rule
    done = run(BIN / "pytest", "-q", cwd=root, environment=stranger(root))
    assert done.returncode == 0, done.stdout


def test_a_rule_that_the_contract_states_already_has_a_plain_test(root: Path) -> None:
    """No row of the table can break it."""
    _shop(root)
    created = create_check(
        Settings(project_dir=root), "orders_are_right", asset="raw.orders", rule="not_null", column=["customer"]
    )
    assert "check_specs" in created.texts["tests/test_orders_are_right.py"]


def _shop(root: Path) -> None:
    (root / "workflows/schemas").mkdir(exist_ok=True)
    (root / "workflows/schemas/orders.py").write_text(MODEL)
    (root / "workflows/ingestion/orders.py").write_text(WORKFLOW)


def test_a_terminal_is_asked_for_what_is_missing_and_shown_the_guesses(root: Path) -> None:
    """On a real terminal: kind, name, path; a key that is a guess is said before a file is written."""
    (root / "in").mkdir()
    (root / "in/a.csv").write_text("id,name\n1,x\n")
    answers = ("file", "drops", "in/*.csv", "y", "n")
    code, shown = on_a_terminal("create-workflow", answers=answers)
    assert code == 1, shown
    assert "`id` is a guess" in shown
    assert not (root / "workflows/ingestion/drops.py").exists()
    code, shown = on_a_terminal("create-workflow", answers=(*answers[:-1], "y"))
    assert code == 0, shown
    assert (root / "workflows/ingestion/drops.py").exists()


def on_a_terminal(*words: str, answers: tuple[str, ...]) -> tuple[int, str]:
    """Call `cascade` on a pseudo terminal, one answer a question; return its exit code and what it shows."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(BIN / "cascade", ["cascade", *words])
    shown = b""
    asked = iter(answers)
    with open(terminal, "r+b", buffering=0) as screen, contextlib.suppress(OSError):  # it ends with an error
        while part := screen.read(1024):
            shown += part
            if re.search(rb"(: |\]: )$", shown) and (answer := next(asked, None)):
                screen.write(f"{answer}\n".encode())
                shown += b"\n"
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


def test_dg_scaffolds_the_same_files(root: Path) -> None:
    """`dg` makes a folder first, which is not needed; all else is what the command writes."""
    params = '{"kind": "python"}'
    place = root / "workflows/numbers"
    scaffold_object(place, "cascade_create.component.Workflow", params, "yaml", root)
    dg_wrote = _files(root)
    assert not place.exists()
    assert "def numbers():" in dg_wrote["workflows/ingestion/numbers.py"].decode()
    with pytest.raises(SystemExit, match="already"):
        scaffold_object(place, "cascade_create.component.Workflow", params, "yaml", root)
    assert _files(root) == dg_wrote


def _files(root: Path) -> dict[str, bytes]:
    return {
        os.path.relpath(file, root): file.read_bytes()
        for file in root.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
