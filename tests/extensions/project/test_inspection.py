"""What `cascade validate` names, and what of it makes it fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.packages import install
from support.projects import Command, make_project

# A job of two assets that no run can hold together, and that does not promote.
WARNED = """
import dagster as dg
from cascade import Lakehouse

@dg.asset(partitions_def=dg.DailyPartitionsDefinition("2024-01-01"))
def days(lakehouse: dg.ResourceParam[Lakehouse]): ...

j = dg.define_asset_job("j", ["days"])
"""
BROKEN = """
import dagster as dg

@dg.asset
def bad(nowhere): ...
"""
PACKAGES = {
    "no-schedule": ("[cascade.schedules]\nlate = nothere:build\n", ""),
    "no-marts": ("[cascade.marts]\nmysql = no_marts:publish\n", "def publish(): ...\n"),
}


def test_problems_and_warnings_are_named_and_only_problems_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What packages bring in any group is looked at, in the words of `cascade plugins check`, and each named once."""
    monkeypatch.chdir(make_project(tmp_path / "project", {"workflows/jobs.py": WARNED}))
    cascade = Command(capsys)
    warned = cascade("validate")
    assert warned.code == 0
    assert "Warnings:\n  workflows/jobs.py: job j: what it writes (days) stays" in warned.out
    (tmp_path / "project/workflows/bad.py").write_text(BROKEN)
    install(tmp_path / "packages", monkeypatch, PACKAGES)
    failed, checked = cascade("validate"), cascade("plugins", "check")
    assert (failed.code, checked.code) == (1, 1)
    assert 'workflows/bad.py: asset bad: Input asset "["nowhere"]" is not produced by any' in failed.err
    problems = [line for line in checked.err.splitlines() if line.startswith("  package no-")]
    assert len(problems) == 2
    assert [failed.err.count(problem) for problem in problems] == [1, 1]
