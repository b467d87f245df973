"""Packages that are installed for one test: a module and its metadata in a folder on the path."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest


def install(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    packages: Mapping[str, tuple[str, str]],
    sources: Mapping[str, str] | None = None,
) -> None:
    """Install packages of version 1.0 for the rest of a test.

    Args:
        folder: An empty folder.
        monkeypatch: What takes them away again.
        packages: Name to its `entry_points.txt` and the source of its module, which has the name with `_` for `-`.
        sources: More files, by path.
    """
    for name, (entry_points, source) in packages.items():
        module = name.replace("-", "_")
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entry_points)
        (folder / f"{module}.py").write_text(source)
        monkeypatch.delitem(sys.modules, module, raising=False)
    for path, source in (sources or {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(source)
    monkeypatch.syspath_prepend(folder)
