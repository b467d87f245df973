"""What cannot be created is refused: a sentence, exit code 2, and nothing is written.

Modules: `cascade_create.component`, `cascade_create.names`, `cascade_create.existing`, `cascade_create.changes`,
`cascade_create.dbt_files`, `cascade_create.check`, `cascade_create.model`, `cascade_create.dialog`,
`cascade_create.workflow`
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dagster.components.component_scaffolding import scaffold_object

from cascade.config import Settings
from cascade.errors import CascadeError, UsageError
from cascade_create.changes import Change, write
from cascade_create.model import create_model
from cascade_create.names import column_names, require_name, usable
from cascade_create.sources import Request
from cascade_create.workflow import create_workflow, look
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
