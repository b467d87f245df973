"""A small project, and the command `cascade` in this process."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from cascade_cli import main


@dataclass(frozen=True)
class Said:
    """What a command printed and exited with."""

    code: int
    out: str
    err: str


def make_project(root: Path, files: Mapping[str, str] | None = None) -> Path:
    """Write a project that has these files, by path."""
    root.mkdir(parents=True, exist_ok=True)
    given = {"pyproject.toml": "[tool.cascade]\n", "dagster.yaml": "telemetry: {enabled: false}\n", **(files or {})}
    for name, text in given.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


class Command:
    """`cascade`, called in this process.

    Args:
        capsys: What catches the output.
    """

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Said:
        """Run it in the working folder."""
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as done:
            main(list(arguments))
        out, err = self._capsys.readouterr()
        code = done.value.code
        return Said(code if isinstance(code, int) else 0, out, err)
