"""The promises of `cascade_operations`: one record for each thing that is asked, and locks that nobody can forget.

Modules: `cascade_operations.branches`, `cascade_operations.tables`.
"""

import datetime as dt
import decimal
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import dagster as dg
import pyarrow as pa
import pytest

import cascade_maintain.maintenance
import cascade_operations as operations
import cascade_project.validate
from cascade.catalog import MAIN, BranchingCatalog, open_catalog
from cascade.config import Settings
from cascade.errors import LeaseHeldError, UsageError
from cascade.framework.instance import open_instance
from cascade.names import COMMAND_TAG
from cascade_cli.output import EVENT_TEXTS, print_table
from cascade_operations.events import Event
from cascade_operations.records import QuarantineTable
from support.lakes import numbers, promoted, put
from support.projects import Command, make_project

_ASIDE = {
    "partition": "2024-01-01",
    "row": '{"id": "x"}',
    "reasons": ["id: not a number", "late"],
    "_cascade_ingested_at": dt.datetime(2024, 1, 2, tzinfo=dt.UTC),
    "key": '["x"]',
    "run": "1234",
}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a project without workflows, which is the working folder."""
    monkeypatch.chdir(make_project(tmp_path / "project"))
    return Settings(project_dir=Path.cwd())


@pytest.fixture
def lake(settings: Settings) -> BranchingCatalog:
    """A table that `main` has in two states, and a branch with another one and rows set aside."""
    lake = open_catalog(settings)
    for last in (1, 2):
        promoted(lake, "raw.a", numbers(last, last))
    put(lake, "dev", "raw.b", numbers(1, 3))
    put(lake, "dev", "quarantine.raw__b", [_ASIDE])
    return lake


# --- what a command prints is the record of its operation ---------------------------------------------------

ASKED: dict[str, tuple[object, str]] = {
    "run": (operations, "run_pipeline"),
    "run --dry-run": (operations, "plan_run"),
    "plan": (operations, "plan_run"),
    "config show": (operations, "list_settings"),
    "branch list": (operations, "list_branches"),
    "branch create new --tag": (operations, "create_branch"),
    "branch delete dev": (operations, "delete_branch"),
    "branch diff dev": (operations, "diff"),
    "branch promote dev": (operations, "promote"),
    "branch restore 1": (operations, "restore"),
    "branch log": (operations, "log"),
    "query 'select id, 1.5 as x from raw.a'": (operations, "query"),
    "table list --branch dev": (operations, "list_tables"),
    "table show raw.a": (operations, "show_table"),
    "table history raw.a": (operations, "table_history"),
    "table drop raw.a --dry-run": (operations, "drop_tables"),
    "quarantine list --branch dev": (operations, "list_quarantine"),
    "quarantine show raw.b --branch dev": (operations, "read_quarantine"),
    "maintain branches": (cascade_maintain.maintenance, "drop_branches"),
    "maintain all": (cascade_maintain.maintenance, "maintain_all"),
    "maintain expire": (cascade_maintain.maintenance, "expire"),
    "maintain compact": (cascade_maintain.maintenance, "compact"),
    "maintain files": (cascade_maintain.maintenance, "remove_files"),
    "maintain verify": (cascade_maintain.maintenance, "verify"),
    "validate": (cascade_project.validate, "inspect_project"),
}


@pytest.mark.parametrize("command", ASKED)
@pytest.mark.usefixtures("lake")
def test_json_is_the_record_that_the_operation_returned(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    room, name = ASKED[command]
    work, returned = getattr(room, name), []

    def listened(*arguments: Any, **options: Any) -> Any:
        returned.append(work(*arguments, **options))
        return returned[-1]

    monkeypatch.setattr(room, name, listened)
    said = Command(capsys)(*shlex.split(command), "--json")
    assert said.code == 0, said
    assert json.loads(said.out) == operations.to_document(returned[0])


def test_a_document_has_only_what_json_has() -> None:
    rows = pa.table({"at": [dt.datetime(2024, 1, 2, tzinfo=dt.UTC)], "share": [float("nan")], "raw": [b"\xff"]})
    assert operations.to_document(rows) == [{"at": "2024-01-02T00:00:00+00:00", "share": None, "raw": "ff"}]
    texts = {
        "0.10": 0.1,
        "12345678901234567890123": 12345678901234567890123,
        "12345678901234567.89": "12345678901234567.89",
    }
    for text, shown in texts.items():
        assert operations.to_document(decimal.Decimal(text)) == shown


# --- leases -------------------------------------------------------------------------------------------------

MOVES: dict[str, Callable[[Settings], object]] = {
    "promote": lambda settings: operations.promote(settings, "dev"),
    "restore": lambda settings: operations.restore(settings, 1),
    "run": operations.run_pipeline,
}


@pytest.mark.parametrize("move", MOVES)
def test_while_a_run_works_towards_main_nothing_else_moves_it(
    move: str, settings: Settings, lake: BranchingCatalog
) -> None:
    """Whoever calls the function holds the lease, or is told who does."""
    before = lake.pointers(MAIN)
    with lake.lease(MAIN, "a run of ada"), pytest.raises(LeaseHeldError, match="a run of ada"):
        MOVES[move](settings)
    assert lake.pointers(MAIN) == before


def test_runs_of_killed_commands_are_closed_only_while_no_command_can_be_alive(
    settings: Settings, lake: BranchingCatalog
) -> None:
    run = dg.DagsterRun("all", status=dg.DagsterRunStatus.STARTED, tags={COMMAND_TAG: "run"})
    with open_instance(settings) as instance:
        instance.add_run(run)

        def closed() -> bool:
            cascade_maintain.maintenance.drop_branches(settings, older_than=dt.timedelta(days=7), instance=instance)
            kept = instance.get_run_by_id(run.run_id)
            assert kept is not None
            return kept.is_finished

        with lake.lease(MAIN, "a run of ada"):
            assert not closed()
        assert closed()


def test_the_working_folder_is_the_callers_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_instance(settings):
        assert Path.cwd() == settings.project_dir
    assert os.getcwd() == str(tmp_path)


# --- rows set aside -----------------------------------------------------------------------------------------


def test_rows_set_aside_are_found_by_the_table_that_they_were_meant_for(
    settings: Settings, lake: BranchingCatalog
) -> None:
    assert operations.list_quarantine(settings) == ()
    assert operations.list_quarantine(settings, branch="dev") == (QuarantineTable("raw.b", "quarantine.raw__b", 1),)
    (row,) = operations.read_quarantine(settings, "raw/b", branch="dev")
    assert (row.row, row.reasons, row.run) == (_ASIDE["row"], tuple(_ASIDE["reasons"]), "1234")
    with pytest.raises(UsageError, match=r"'raw.a' .* such rows are: raw.b"):
        operations.read_quarantine(settings, "raw.a", branch="dev")


# --- what people read ---------------------------------------------------------------------------------------


def test_every_event_has_a_text() -> None:
    assert EVENT_TEXTS.keys() == set(get_args(Event))


def test_a_table_is_aligned_by_what_the_screen_shows(capsys: pytest.CaptureFixture[str]) -> None:
    """An emoji and a character of Chinese take two places."""
    print_table(["name", "rows"], [["東京", 1], ["☂️ rain", 12]])
    assert capsys.readouterr().out.splitlines()[2:] == ["東京        1", "☂️ rain    12"]
