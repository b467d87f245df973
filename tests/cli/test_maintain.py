"""`cascade maintain`: what it prints, what it removes, what bad input gets.

Modules: `cascade_maintain.commands`.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from cascade.catalog import open_catalog
from cascade.config import load_settings
from support.generated import Project

#: What deletes, and an option that is an age.
COMMANDS = {
    "maintain all": "--branches-older-than",
    "maintain branches": "--older-than",
    "maintain expire": "--keep-history",
    "maintain files": "--older-than",
}


def files_of(project: Project) -> set[Path]:
    return {path for path in (project.root / ".cascade" / "warehouse").rglob("*") if path.is_file()}


def failed_run(project: Project) -> str:
    """Let a run fail that had written before, and return its branch."""
    lake = open_catalog(load_settings(project.root))
    before = {branch.name for branch in lake.branches()}
    done = project.cascade("run", "--select", "newcomers", "--select", "grim_guests")
    assert done.returncode == 1, done.stdout + done.stderr
    (branch,) = {branch.name for branch in lake.branches()} - before
    return branch


@pytest.mark.parametrize("command", COMMANDS)
def test_it_explains_itself_outside_a_project(command: str, fresh: Project, tmp_path: Path) -> None:
    done = fresh.cascade(*command.split(), "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert COMMANDS[command] in done.stdout
    assert "--apply" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_an_age_that_is_none_is_refused_with_an_example(command: str, project: Project) -> None:
    done = project.cascade(*command.split(), f"{COMMANDS[command]}=7")
    assert done.returncode == 2
    assert "is not a duration" in done.stderr
    assert "7d, 12h, 30m" in done.stderr


def test_a_failed_run_is_cleaned_up_and_main_reads_as_before(project: Project) -> None:
    """Nothing goes before its time; the command says what goes; with --apply it goes, and the files with it."""
    rows = project.json("query", "select * from raw.guests order by id")
    branch = failed_run(project)
    assert branch in project.json("maintain", "branches")["left"]
    dry = project.json("maintain", "branches", "--older-than", "0d")
    assert branch in dry["removed"]
    done = project.json("maintain", "branches", "--older-than", "0d", "--apply")
    assert (done["removed"].keys(), done["problems"]) == (dry["removed"].keys(), [])

    before = files_of(project)
    assert project.json("maintain", "files", "--apply")["removed"] == []
    _age(before)
    planned = project.json("maintain", "files", "--older-than", "1h")
    assert files_of(project) >= before
    collected = project.json("maintain", "files", "--older-than", "1h", "--apply")
    assert collected["removed"] == planned["removed"] != []
    assert collected["failed"] == {}
    assert len(before - files_of(project)) == len(collected["removed"])
    assert project.json("query", "select * from raw.guests order by id") == rows
    done_again = project.cascade("maintain", "files", "--older-than", "1h", "--apply")
    assert "Removed 0 files" in done_again.stdout


def test_history_that_was_not_kept_is_refused_in_words(project: Project) -> None:
    """A table of `main` that is dropped and created again forgets its first rows."""
    lake = open_catalog(load_settings(project.root))
    first = lake.log()[0]
    lake.create("without")
    lake.open("without").drop_table("raw.guests")
    lake.merge("without")
    assert project.cascade("run", "--select", "raw/guests").returncode == 0
    project.json("maintain", "files", "--older-than", "0d", "--keep-history", "0d", "--apply")
    done = project.cascade("branch", "restore", str(first.id))
    assert done.returncode == 1
    assert f"Entry {first.id} of the log is too old" in done.stderr
    assert "--keep-history" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(project.json("query", "select * from raw.guests")) == 2


def test_an_unreadable_table_stops_it_in_words(project: Project) -> None:
    lake = open_catalog(load_settings(project.root))
    location = Path(lake.pointers("main")["raw.guests"])
    content = location.read_bytes()
    location.write_text("{}")
    try:
        before = files_of(project)
        done = project.cascade("maintain", "files", "--older-than", "0d")
        assert done.returncode == 1
        assert "nothing was removed" in done.stderr
        assert str(location) in done.stderr
        assert "Traceback" not in done.stderr
        assert files_of(project) >= before
    finally:
        location.write_bytes(content)


def _age(files: set[Path]) -> Any:
    """Let files be a month old."""
    then = time.time() - 30 * 86_400
    for path in files:
        os.utime(path, (then, then))


def test_all_says_what_each_step_would_do_and_then_does_it(project: Project) -> None:
    rows = project.json("query", "select * from raw.guests order by id")
    lake = open_catalog(load_settings(project.root))
    lake.create("more")
    guests = lake.open("more").load_table("raw.guests")
    guests.append(guests.scan().to_arrow())
    lake.merge("more")
    lake.delete("more")
    ages = [f"--{what}=0d" for what in ("branches-older-than", "files-older-than", "keep-history")]
    state = lake.pointers("main")
    shown = project.cascade("maintain", "all", *ages)
    assert shown.returncode == 0, shown.stderr
    assert "Would compact" in shown.stdout
    assert "with --apply" in shown.stdout
    assert lake.pointers("main") == state
    done = project.json("maintain", "all", *ages, "--apply")
    assert "raw.guests" in [table["table"] for table in done["compaction"]["compacted"]]
    assert "raw.guests" in [table["table"] for table in done["expiry"]["expired"]]
    assert (done["files"]["failed"], len(done["files"]["removed"]) > 0) == ({}, True)
    assert project.json("query", "select distinct * from raw.guests order by id") == rows


def test_verify_names_damaged_files_and_exits_with_one(project: Project) -> None:
    sound = project.cascade("maintain", "verify")
    assert (sound.returncode, "0 damaged" in sound.stdout) == (0, True), sound.stdout + sound.stderr
    path = next((project.root / ".cascade/warehouse/raw/guests/data").rglob("*.parquet"))
    content = path.read_bytes()
    try:
        path.write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
        done = project.cascade("maintain", "verify", "--json")
    finally:
        path.write_bytes(content)
    found = json.loads(done.stdout)
    assert (done.returncode, [file["table"] for file in found["damaged"]]) == (1, ["raw.guests"])
    assert found["damaged"][0]["path"] == str(path)
