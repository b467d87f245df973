"""The promises of `cascade_cli`, command by command: in this process, on lakehouses of a few rows.

Modules: `cascade_cli.branch`, `cascade_cli.config`, `cascade_cli.query`, `cascade_cli.style`.
"""

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from cascade.catalog import BranchingCatalog, open_catalog
from cascade.config import Settings
from cascade.publish.marts import publish_marts
from support.lakes import numbers, promoted, put
from support.projects import Command, make_project


@pytest.fixture
def cascade(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a project without files of a user, which is the working folder."""
    root = make_project(tmp_path / "project")
    monkeypatch.chdir(root)
    return Settings(project_dir=root)


@pytest.fixture
def lake(settings: Settings) -> BranchingCatalog:
    return open_catalog(settings)


# --- branch restore and promote ---------------------------------------------------------------------------


def _served(settings: Settings) -> list[int]:
    with duckdb.connect(str(settings.marts_path), read_only=True) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM marts.m ORDER BY id").fetchall()]


def test_marts_are_published_again_when_main_is_restored(
    cascade: Command, settings: Settings, lake: BranchingCatalog
) -> None:
    """Whoever restores because a report is wrong must not leave the wrong report in place."""
    for last in (1, 2):
        promoted(lake, "marts.m", numbers(last, last))
    publish_marts(lake, settings)
    said = cascade("branch", "restore", str(lake.log()[1].id))
    assert (said.code, _served(settings)) == (0, [1]), said
    assert "Published marts.m, 1 row\n" in said.out


@pytest.mark.parametrize("command", ["restore 1", "promote dev"])
def test_main_that_moved_without_its_marts_is_told(
    command: str, cascade: Command, settings: Settings, lake: BranchingCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for last in (1, 2):
        promoted(lake, "marts.m", numbers(last, last))
    put(lake, "dev", "marts.m", numbers(3, 3))
    monkeypatch.setenv("CASCADE_MARTS_URL", "postgresql://ada@nowhere.invalid/marts")
    said = cascade("branch", *command.split())
    assert said.code == 1
    assert "`main` has moved (entry 3 of the log), but its marts are not published" in said.err
    assert "Then `cascade run --select cascade/publish`" in said.err


# --- branch diff ------------------------------------------------------------------------------------------


def test_a_diff_is_what_the_branch_changed_since_it_was_created(
    cascade: Command, settings: Settings, lake: BranchingCatalog
) -> None:
    """What main did meanwhile is no change of the branch; `branch list` counts the same."""
    promoted(lake, "raw.a", numbers(1, 1))
    put(lake, "dev", "raw.b", numbers(1, 1))
    promoted(lake, "raw.a", numbers(2, 2))
    promoted(lake, "raw.c", numbers(1, 1))

    def names(*arguments: str) -> list[tuple[str, str]]:
        return [(row["table"], row["kind"]) for row in json.loads(cascade("branch", "diff", *arguments, "--json").out)]

    assert names("dev") == [("raw.b", "created")]
    assert names("dev", "main") == [("raw.a", "changed"), ("raw.b", "created"), ("raw.c", "dropped")]
    assert names("dev", "--two-dot") == names("dev", "main")
    lake.create("idle")
    assert cascade("branch", "diff", "idle").out == "idle has changed nothing since it was created or last promoted.\n"
    lake.merge("dev")
    assert cascade("branch", "diff", "dev").out == "dev has changed nothing since it was created or last promoted.\n"


def test_main_is_not_promoted_to_itself(cascade: Command, settings: Settings, lake: BranchingCatalog) -> None:
    """Not blamed on checks that have not run."""
    promoted(lake, "raw.a", numbers(1, 1))
    said = cascade("branch", "promote", "main")
    assert (said.code, said.err.splitlines()[0]) == (2, "Error: `main` is what branches are promoted to.")


# --- config show ------------------------------------------------------------------------------------------


def test_an_operator_sees_which_server_is_used_and_no_password(
    cascade: Command, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASCADE_CATALOG_URL", "postgresql://ada:guess%40me@db.example:5432/cascade?sslpassword=guess")
    monkeypatch.setenv("CASCADE_MARTS_URL", "postgresql://db.example/marts?password=guess&sslmode=require")
    monkeypatch.setenv("CASCADE_NESSIE__TOKEN", "guess")
    said = cascade("config", "show", "--json")
    shown = {row["name"]: row["value"] for row in json.loads(said.out)}
    assert "guess" not in said.out
    assert shown["catalog_url"] == "postgresql://ada:***@db.example:5432/cascade?sslpassword=***"
    assert shown["marts_url"] == "postgresql://db.example/marts?password=***&sslmode=require"
    assert shown["nessie.token"] == "**********"
    assert shown["dagster_url"] == "None"


# --- dev --------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_refused_before_anything_starts(cascade: Command, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = cascade("dev", "--port", str(port))
    assert said.code == 2
    assert f"cannot listen on port {port} of 127.0.0.1: Address already in use" in said.err
    assert f"cascade dev --port {port + 1}" in said.err
    assert not (settings.project_dir / ".dagster").exists()


@pytest.mark.parametrize("group", ["", "branch", "maintain", "services", "config"])
def test_a_narrow_terminal_shows_each_command_with_a_whole_sentence(
    group: str, cascade: Command, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = cascade(*group.split(), "--help")
    assert said.code == 0
    assert [line for line in said.out.splitlines()[1:] if line.endswith("...")] == []


def test_h_is_help_as_everywhere(cascade: Command) -> None:
    said = cascade("dev", "-h")
    assert (said.code, said.out.startswith("Usage: cascade dev")) == (0, True)


# --- folders that cannot be used --------------------------------------------------------------------------


def _file_in_place_of_a_folder(settings: Settings) -> None:
    settings.data_path.write_text("")


def _database_that_cannot_be_opened(settings: Settings) -> None:
    (settings.data_path / "catalog.db").mkdir(parents=True)


@pytest.mark.parametrize("spoil", [_file_in_place_of_a_folder, _database_that_cannot_be_opened])
@pytest.mark.parametrize("command", ["branch list", "run"])
def test_a_folder_that_cannot_be_used_is_one_sentence(
    spoil: Callable[[Settings], None], command: str, cascade: Command, settings: Settings
) -> None:
    """As one that is read-only, or a disk that is full."""
    spoil(settings)
    said = cascade(*command.split())
    assert said.code == 1
    assert "cannot be" in said.err
    assert "fix: let this user write" in said.err
    assert "Traceback" not in said.err


# --- Ctrl+C -----------------------------------------------------------------------------------------------


def test_ctrl_c_while_a_project_loads_is_one_sentence(cascade: Command, settings: Settings) -> None:
    """Standing for the person: a workflow file that interrupts whoever imports it."""
    make_project(
        settings.project_dir, {"workflows/stop.py": "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"}
    )
    before = signal.getsignal(signal.SIGINT)
    said = cascade("run")
    assert (said.code, said.out) == (130, "")
    assert "Interrupted: `main` moves as a whole or not at all" in said.err
    assert "Traceback" not in said.err
    assert signal.getsignal(signal.SIGINT) is before
