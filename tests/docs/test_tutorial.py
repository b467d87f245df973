"""The tutorial is followed command by command, against this checkout."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TUTORIAL = REPOSITORY / "docs" / "tutorial" / "first-lakehouse.md"

# What a reader types, and what stands for it here: this checkout instead of the published repository.
HERE = {"uvx copier copy gh:org/cascade": f"copier copy --defaults --quiet --vcs-ref HEAD {REPOSITORY}"}


def blocks(page: Path) -> list[list[str]]:
    """The lines of every block marked `console`."""
    found = re.findall(r"^```console\n(.*?)^```$", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [block.splitlines() for block in found]


def test_the_tutorial_does_what_it_says(environment: dict[str, str], tmp_path: Path) -> None:
    """Lines after `$ ` are commands, others their output; `...` stands for lines that are left out."""
    folder = tmp_path
    for block in blocks(TUTORIAL):
        for command, expected in _commands(block):
            if command.startswith("cd "):
                folder = folder / command.removeprefix("cd ")
                continue
            begin = time.monotonic()
            done = subprocess.run(
                command,
                shell=True,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            print(f"{time.monotonic() - begin:6.1f} s  {command}")
            output = done.stdout + done.stderr
            assert done.returncode == 0, f"{command}\n{output}"
            _assert_shown(command, expected, output)


def _commands(block: list[str]) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for line in block:
        if line.startswith("$ "):
            found.append((_meant(line.removeprefix("$ ")), []))
        elif found:
            found[-1][1].append(line)
        else:
            pytest.fail(f"a console block begins with output: {line}")
    return found


def _meant(command: str) -> str:
    for typed, meant in HERE.items():
        command = command.replace(typed, meant)
    return command


def _assert_shown(command: str, expected: list[str], output: str) -> None:
    """Every expected line appears, in this order; spaces at the end and the width of columns do not count."""
    lines = iter([" ".join(line.split()) for line in output.splitlines()])
    for line in expected:
        wanted = " ".join(line.split())
        if wanted in ("", "..."):
            continue
        assert any(wanted in shown for shown in lines), f"{command} does not show {line!r}:\n{output}"
