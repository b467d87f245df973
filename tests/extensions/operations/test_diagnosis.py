"""The promise of `cascade doctor`: each thing that keeps a project from working is named, with what to do about it.

Modules: `cascade_operations.diagnosis`, `cascade_operations.installation`, `cascade_cli.doctor`.
"""

import errno
import json
import socket
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from cascade.config import Settings
from cascade.errors import ProjectNotFoundError
from cascade.framework.instance import open_instance
from cascade.names import COMMAND_TAG
from cascade_cli.doctor import doctor
from cascade_embedded.catalog import EmbeddedCatalog
from cascade_operations import diagnose
from support.file_operations import watched
from support.lakes import numbers, open_embedded, put
from support.projects import make_project


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project whose `main` has a table."""
    root = make_project(tmp_path / "project", {})
    lake = open_embedded(root / ".cascade")
    put(lake, "dev", "raw.a", numbers(1, 2))
    lake.merge("dev")
    assert isinstance(lake, EmbeddedCatalog)
    lake.database.engine.dispose()  # what SQLite keeps beside its file goes
    return root


def _unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _moved(root: Path) -> None:
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "cascade").write_text("#!/elsewhere/.venv/bin/python\nimport sys\n")


def _copied(root: Path) -> None:
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "cascade").write_text(f"#!/bin/sh\n'''exec' \"{root}/.venv/bin/python\" \"$0\"\n")


def _server_gone(root: Path) -> None:
    (root / ".env").write_text(f"CASCADE_MARTS_URL=postgresql://marts:secret@127.0.0.1:{_unused_port()}/marts\n")


def _wrong_setting(root: Path) -> None:
    (root / ".env").write_text("CASCADE_ENGIN=embedded\n")


def _catalog_gone(root: Path) -> None:
    (root / ".cascade" / "catalog.db").unlink()


def _catalog_damaged(root: Path) -> None:
    (root / ".cascade" / "catalog.db").write_bytes(b"\xff" * 9000)


def _files_gone(root: Path) -> None:
    for file in (root / ".cascade" / "warehouse").rglob("*.metadata.json"):
        file.unlink()


def _history_damaged(root: Path) -> None:
    file = root / ".dagster" / "history" / "runs.db"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\xff" * 9000)


@pytest.mark.parametrize(
    ("breaks", "about", "what", "fix"),
    [
        (
            _moved,
            "environment",
            "was moved or copied; commands of its environment lead to another folder: cascade",
            "rm -rf .venv && uv sync",
        ),
        (_copied, "environment", "not the one that is installed in the project", "uv run cascade"),
        (_wrong_setting, "settings", "engin", "engine"),
        (_server_gone, "servers", "does not answer", "start it"),
        (_catalog_gone, "catalog", "catalog.db is gone", "backup"),
        (_catalog_damaged, "catalog", "catalog.db is damaged", "backup"),
        (_files_gone, "catalog", "gone or damaged: raw.a", "cascade branch restore"),
        (_history_damaged, "history", "history cannot be read", "move that folder away"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(
    root: Path, breaks: Callable[[Path], None], about: str, what: str, fix: str
) -> None:
    breaks(root)
    (finding,) = diagnose(root).findings
    assert (finding.about, finding.grave) == (about, True)
    assert what in finding.what
    assert fix in finding.fix
    assert finding.where


def test_a_sound_project_is_called_so_and_what_a_project_is_without_is_refused(root: Path, tmp_path: Path) -> None:
    found = diagnose(root)
    assert found.findings == found.left_out == ()
    assert found.examined == ("environment", "settings", "folders", "servers", "catalog", "history")
    with pytest.raises(ProjectNotFoundError):
        diagnose(tmp_path)


def test_a_run_that_was_killed_is_a_note(root: Path) -> None:
    settings = Settings(project_dir=root)
    with open_instance(settings) as instance:
        run = instance.create_run_for_job(dg.job(name="work")(lambda: None), tags={COMMAND_TAG: "run"})
    (finding,) = diagnose(root).findings
    assert (finding.about, finding.grave, finding.where) == ("history", False, run.run_id)
    assert "next `cascade run`" in finding.fix


def _diagnose_read_only(root: Path) -> None:
    found = diagnose(root)
    (finding,) = found.findings
    assert (finding.about, found.left_out) == ("folders", ("history",))
    assert "Read-only" in finding.what
    assert str(root / ".cascade") in finding.where


def test_a_folder_that_cannot_be_written_is_named(root: Path) -> None:
    folder = root / ".cascade"
    assert watched(_diagnose_read_only, root, under=folder, answer=lambda _o, _n: errno.EROFS).code == 0


def test_the_command_tells_people_and_programs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert CliRunner().invoke(doctor).exit_code == 0
    _catalog_gone(root)
    done = CliRunner().invoke(doctor)
    assert done.exit_code == 1
    assert "wrong   catalog: catalog.db is gone" in done.stderr
    done = CliRunner().invoke(doctor, ["--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["findings"][0]["about"] == "catalog"
