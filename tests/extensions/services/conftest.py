"""A project with the servers of the template, and packages that bring a service."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.generated import BIN, REPOSITORY
from support.packages import install

AddService = Callable[..., None]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project without workflows, whose compose.yaml is the template's; the real client is the only one there."""
    root = tmp_path / "project"
    shutil.copytree(REPOSITORY / "template/services", root / "services")
    whole = (REPOSITORY / "template/compose.yaml.jinja").read_text("utf-8")
    (root / "compose.yaml").write_text(re.sub(r"\{%- if.*?\{%- endif %\}", "", whole, flags=re.DOTALL))
    (root / "pyproject.toml").write_text("[tool.cascade]\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/docker-compose").symlink_to(BIN / "docker-compose")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.chdir(root)
    before = dict(os.environ)
    yield root
    for name in os.environ.keys() - before.keys():  # what commands took from `.env`
        del os.environ[name]


@pytest.fixture
def add_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AddService:
    """Install a package with one service, whose `service.yaml` is given."""

    def add(name: str, said: str) -> None:
        source = f"""
from cascade.plugins import PluginMetadata, ServicePlugin

class Found(ServicePlugin):
    metadata = PluginMetadata(name="{name}", version="1")
"""
        entry = f"[cascade.plugins.services]\n{name} = {name}_pack:Found\n"
        install(tmp_path / "packages" / name, monkeypatch, {f"{name}-pack": (entry, source)}, {"service.yaml": said})

    return add
