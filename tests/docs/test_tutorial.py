"""The tutorial is followed command by command, against this checkout."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from support.generated import BIN, REPOSITORY, share_bytecode

TUTORIAL = REPOSITORY / "docs" / "tutorial" / "first-lakehouse.md"

# What a reader types, and what stands for it here: this checkout instead of the published repository.
HERE = {"uvx copier copy gh:org/cascade": f"{BIN}/copier copy --defaults --quiet --vcs-ref HEAD {REPOSITORY}"}


def blocks(page: Path) -> list[tuple[int, list[str]]]:
    """Every block marked `console`: the exit code that it promises, 0 unless it says another, and its lines."""
    pattern = r"^```console(?: exit=(\d+))?\n(.*?)^```$"
    found = re.findall(pattern, page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [(int(code or 0), lines.splitlines()) for code, lines in found]


def test_the_tutorial_does_what_it_says(environment: dict[str, str], tmp_path: Path) -> None:
    """Lines after `$ ` are commands, others their output; `...` stands for what is left out."""
    folder = tmp_path
    for exit_code, block in blocks(TUTORIAL):
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
            if command == "uv sync" and done.returncode == 0:
                share_bytecode(folder / ".venv")
            output = done.stdout + done.stderr
            assert done.returncode == exit_code, f"{command}\n{output}"
            _assert_shown(command, [line for line in expected if line not in ("", "...")], output)


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
    """Every expected line is the beginning of a line of the output, in this order, whatever the spaces."""
    lines = iter([" ".join(line.split()) for line in output.splitlines()])
    for line in expected:
        wanted = ".*".join(re.escape(part) for part in " ".join(line.split()).split("..."))
        assert any(re.match(wanted, shown) for shown in lines), f"{command} does not show {line!r}:\n{output}"
