"""How-to pages about data are followed command by command, in a small project that has the files they show.

Modules: `cascade_cli.partitions`.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cascade.config import build_settings
from cascade_alerts.targets import open_receivers
from support import forks
from support.generated import LIMIT_SECONDS, REPOSITORY
from support.projects import make_project
from support.receiver import receiving

PAGES = (
    "read-the-lake",
    "load-nested-data",
    "load-only-what-is-new",
    "backfill",
    "use-the-python-api",
    "troubleshooting",
    "see-what-a-run-would-do",
    "mend-quarantined-rows",
    "change-a-tables-schema",
    "choose-what-runs",
    "transform-in-python",
    "partitions-explained",
    "run-by-itself",
    "send-lineage",
    "test-workflows-and-models",
    "use-dbt",
    "declare-settings",
    "keep-secrets",
    "write-a-check",
    "write-a-plugin",
    "../concepts/contracts-and-quarantine",
)


@pytest.mark.parametrize("page", PAGES)
def test_the_page_does_what_it_says(page: str, environment: dict[str, str], tmp_path: Path) -> None:
    _follow(page, environment, tmp_path)


def test_people_are_told_what_the_page_of_alerts_says(environment: dict[str, str], tmp_path: Path) -> None:
    """Each block of text is a part of a message, in their order."""
    with receiving() as receiver:
        text = _follow("be-told", environment | {"TEAM_HOOK": receiver.address}, tmp_path)
    told = [message.splitlines() for title, message in receiver.messages if "a test of" not in title]
    shown = re.findall(r"^```text\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    assert len(told) == len(shown)
    for block, lines in zip(shown, told, strict=True):
        assert {*block.splitlines()} - {"..."} <= {*lines}


def test_the_addresses_of_the_page_of_alerts_are_complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (REPOSITORY / "docs/how-to/be-told.md").read_text("utf-8")
    urls = re.findall(r"`(\w+://[^`…]+/[^`…]*|\w+://[^`]+@[^`]+)`", text)
    for variable in re.findall(r"\$\{(\w+)\}", text):
        monkeypatch.setenv(variable, "A1B2C3D4E5F6A7B8C9D0A1B2C3D4E5F6")
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-1234567890-1234567890-4ddbc191d40ee098cbaae6f3523ada2d")
    assert {url.partition(":")[0] for url in urls} == {"mailtos", "slack", "pagerduty", "ntfys", "jsons"}
    settings = build_settings(tmp_path, {"alerts.targets": dict(zip("abcdefg", urls, strict=False))})
    assert [receiver.shown for receiver in open_receivers(settings)] == urls


def _follow(page: str, environment: dict[str, str], tmp_path: Path) -> str:
    """Follow a page, and return its text.

    Lines after `$ ` are commands, those up to the next one what they print, whatever the spaces; `...` stands for what
    is left out.
    A block of Python, SQL or YAML whose first line says its path is that file.
    """
    text = (REPOSITORY / "docs/how-to" / f"{page}.md").read_text("utf-8")
    first = r"(?:\"\"\"[^\n]*: (\S+)\.\"\"\"|(?:--|#) (?:[^\n]*: )?(\S+/\S+?)\.?)\n"
    files = re.findall(rf"^```(?:python|sql|yaml)\n({first}.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    root = make_project(tmp_path / "project", {one or other: code for code, one, other in files})
    blocks = re.findall(r"^```console(?: exit=(\d+))?\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    for exit_code, block in blocks:
        for command, printed in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, flags=re.MULTILINE):
            words = shlex.split(command)
            if words[:3] == ["uv", "run", "cascade"]:
                done = forks.call(*words[3:], cwd=root, environment=environment, seconds=LIMIT_SECONDS)
            elif words[:3] == ["uv", "run", "pytest"]:
                pytest_ = [sys.executable, "-m", *words[2:], "-p", "no:cacheprovider"]
                done = subprocess.run(pytest_, cwd=root, capture_output=True, text=True, check=False)
            elif words[:3] == ["uv", "run", "python"]:
                script = [sys.executable, *words[3:]]
                done = subprocess.run(script, cwd=root, env=environment, capture_output=True, text=True, check=False)
            else:
                done = subprocess.run(command, shell=True, cwd=root, capture_output=True, text=True, check=False)
            out = done.stdout + done.stderr
            assert done.returncode == int(exit_code or 0), f"{command}\n{out}"
            shown = {" ".join(line.split()) for line in out.splitlines()}
            missing = {" ".join(line.split()) for line in printed.splitlines() if line != "..."} - shown - {""}
            assert not missing, f"{command}\n{out}"
    return text
