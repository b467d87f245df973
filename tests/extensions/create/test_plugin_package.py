"""A new package of plugins: its tests pass at once, and Cascade finds and uses it once it is installed.

Modules: `cascade_create.plugin`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cascade.errors import UsageError
from cascade.plugins import get_quality_check, get_service, get_source_connector, get_transformation, list_plugins
from cascade_create.plugin import KINDS, new_plugin
from cascade_services.schema import read_service
from support.packages import install
from support.projects import Command


def _entries(manifest: Path) -> str:
    """What a package's entry points are once it is installed."""
    groups = tomllib.loads(manifest.read_text("utf-8"))["project"]["entry-points"]
    lines = [[f"[{group}]", *(f"{name} = {value}" for name, value in one.items())] for group, one in groups.items()]
    return "\n".join(line for part in lines for line in part) + "\n"


def test_each_kind_is_tested_by_itself_and_found_once_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [new_plugin(kind, f"my_{kind}", tmp_path / "plugins") for kind in KINDS]
    sources = os.pathsep.join(str(folder / "src") for folder in folders)
    tests = [str(folder / "tests") for folder in folders]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": sources},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    packages = {}
    for folder in folders:
        (module,) = (folder / "src").iterdir()
        packages[folder.name] = (_entries(folder / "pyproject.toml"), (module / "__init__.py").read_text("utf-8"))
    install(tmp_path / "installed", monkeypatch, packages)
    described = tmp_path / "plugins/my-service-cascade/src/my_service_cascade/service.yaml"
    (tmp_path / "installed/service.yaml").write_text(described.read_text("utf-8"))
    ours = {record.name: record.cause for record in list_plugins() if record.name.startswith("my_")}
    assert ours == {f"my_{kind}": "" for kind in KINDS}
    made = (get_source_connector, get_quality_check, get_transformation, get_service)
    assert [make(f"my_{kind}").metadata.version for make, kind in zip(made, KINDS, strict=True)] == ["0.1.0"] * 4
    service = get_service("my_service").definition()
    assert read_service(service, where="service.yaml").name == "my_service"
    told = Command(capsys)("plugins", "info", "my_source").out
    assert "  description: Rows of my_source.\n  option rows: int, default 3\n" in told


@pytest.mark.parametrize("name", ["My", "a b", "../x", "class", ""])
def test_a_name_that_cannot_be_one_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        new_plugin("source", name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    new_plugin("source", "numbers", tmp_path)
    with pytest.raises(UsageError, match="is there already; nothing was written"):
        new_plugin("check", "numbers", tmp_path)
