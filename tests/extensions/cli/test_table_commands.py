"""What `cascade table …` and `cascade run --full-refresh` ask, print and exit with.

Modules: `cascade_cli.table`, `cascade_cli.consent`.
"""

import json
from pathlib import Path

import pytest

from cascade.catalog import MAIN, BranchingCatalog, open_catalog
from cascade.config import Settings
from support.lakes import numbers, promoted, put
from support.projects import Command, make_project

_WORKFLOW = '''\
"""A table."""

from cascade.ingestion import cascade_ingestion


@cascade_ingestion(partitions="none", unique_key="id", max_retries=0)
def guests():
    """A guest."""
    return [{"id": 1}]
'''


@pytest.fixture
def cascade(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BranchingCatalog:
    """A project with a table of a workflow, an orphan, and a branch that has changed the first."""
    root = make_project(tmp_path / "project", {"workflows/guests.py": _WORKFLOW})
    monkeypatch.chdir(root)
    lake = open_catalog(Settings(project_dir=root))
    promoted(lake, "raw.guests", numbers(1, 3), properties={"cascade.key": '["id"]'})
    promoted(lake, "silver.old", numbers(1, 2))
    put(lake, "fix", "raw.guests", numbers(9, 9))
    return lake


def test_tables_are_listed_shown_and_told_of(cascade: Command, lake: BranchingCatalog) -> None:
    said = cascade("table", "list")
    assert [line.split()[:3] for line in said.out.splitlines()[2:]] == [
        ["raw.guests", "workflow", "3"],
        ["silver.old", "orphan", "2"],
    ]
    shown = cascade("table", "show", "raw.guests").out
    assert {"owner       workflow", "rows        3", "key         id"} <= {*shown.splitlines()}
    assert "id      long" in shown
    assert json.loads(cascade("table", "show", "raw.guests", "--json").out)["columns"][0]["name"] == "id"
    head = lake.load("raw.guests", lake.pointers(MAIN)["raw.guests"]).current_snapshot()
    assert head is not None
    assert str(head.snapshot_id) in cascade("table", "history", "raw.guests").out


def test_nothing_is_done_to_tables_without_a_yes(cascade: Command, lake: BranchingCatalog) -> None:
    """A script has to say it; a dry run tells what would happen, also to open branches."""
    before = lake.pointers(MAIN)
    for command in (
        ("table", "drop", "raw.guests"),
        ("table", "reset", "raw.guests"),
        ("table", "rename", "silver.old", "silver.new"),
        ("run", "--full-refresh", "--select", "raw/guests"),
    ):
        said = cascade(*command)
        assert (said.code, lake.pointers(MAIN)) == (2, before), said
        assert "nobody can be asked" in said.err
        assert "--yes" in said.err
    said = cascade("table", "drop", "raw.guests", "--dry-run")
    assert (said.code, lake.pointers(MAIN)) == (0, before)
    assert said.out.splitlines() == [
        "raw.guests would be dropped: 3 rows",
        "  a workflow still makes it: the next run would make it again",
        "Branch fix has changed these tables, too: it cannot be promoted any more.",
        "Nothing was done.",
    ]
    dry = json.loads(cascade("table", "reset", "raw.guests", "--dry-run", "--json").out)
    assert (dry["action"], dry["branch"], dry["conflicts"]) == ("reset", None, ["fix"])


def test_what_was_done_is_said_with_the_way_back(cascade: Command, lake: BranchingCatalog) -> None:
    before = lake.pointers(MAIN)
    said = cascade("table", "drop", "--orphans", "--yes")
    assert (said.code, lake.pointers(MAIN).keys()) == (0, {"raw.guests"}), said
    assert "silver.old is dropped." in said.out
    undo = said.out.partition("Undo: cascade ")[2].split()
    assert cascade(*undo).code == 0
    assert lake.pointers(MAIN) == before
    assert "There are no orphans" not in said.out
    assert cascade("table", "rename", "silver.old", "silver.new", "-y", "--json").code == 0
    assert "silver.new" in lake.pointers(MAIN)
    said = cascade("table", "reset", "raw.guests", "--yes")
    assert said.code == 0, said
    assert "Next: cascade run --select raw.guests+" in said.out
    said = cascade("run", "--full-refresh", "--select", "raw/guests", "--yes")
    assert said.code == 0, said
    assert "emptied raw.guests; fix cannot be promoted afterwards" in said.err


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("table drop", "cascade table list shows them"),
        ("table drop main", "`main` is a branch, not a table"),
        ("table drop raw.guest --dry-run", "did you mean raw.guests?"),
        ("table rename raw.guests raw.x", "a workflow of the project still makes raw.guests"),
        ("table show nothing.at.all", "name one of its tables"),
    ],
)
@pytest.mark.usefixtures("lake")
def test_a_wrong_name_is_refused_with_code_2(command: str, error: str, cascade: Command) -> None:
    said = cascade(*command.split())
    assert (said.code, error in said.err) == (2, True), said
