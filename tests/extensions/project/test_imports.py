"""Whatever a file or a plugin does while it is imported costs itself: the others load, and it is named with its cause.

Modules: `cascade_project.imports`, `cascade_project.trial`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cascade.config import Settings
from cascade.framework import definitions
from cascade.framework.definitions import build_definitions, guards_of, problems_of
from cascade_project.imports import probe
from cascade_project.trial import Limits
from support.packages import install
from support.projects import Command, make_project

#: Short, since the kinds that reach them are meant to; a healthy file does nearly nothing.
LIMITS = Limits(cpu=5, idle=1.0, exit=1.0, memory=400 << 20)
#: What is done while a module is imported; the line that is named, or 0; the cause.
KINDS = {
    "import_error": ("import nothing_of_that_name", 1, "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
    "syntax_error": ("def (", 1, "SyntaxError: invalid syntax"),
    "system_exit": ("\nraise SystemExit(0)", 2, "SystemExit: 0"),
    "os_exit": ("import os\n\nos._exit(0)", 3, "it ends the process by os._exit(0)"),
    "segmentation_fault": ("import ctypes\nctypes.string_at(0)", 2, "it kills the process: Segmentation fault"),
    "hang": ("import time\n\n\ntime.sleep(100_000)", 4, "importing it does not end: it did nothing for 1 seconds"),
    "recursion": ("def deeper():\n    deeper()\n\ndeeper()", 2, "RecursionError: maximum recursion depth exceeded"),
    "memory": ("kept = []\nwhile True:\n    kept.append(b'x' * 50_000_000)", 3, "takes more than 0.39 GB of memory"),
    "poisoned": ("import sys\n\nsys.modules['dagster'] = None", 0, "in the place of `dagster` in sys.modules"),
    "thread": (
        "import threading, time\n\ndef run():\n    while True:\n        time.sleep(1)\n\n"
        "threading.Thread(target=run).start()",
        5,
        "it starts a thread that never ends",
    ),
}
ASSET = "\nimport dagster as dg\n\n@dg.asset\ndef {name}(): ...\n"
PLUGIN = """
from cascade.plugins import PluginMetadata, SourceConnectorPlugin

class Source(SourceConnectorPlugin):
    metadata = PluginMetadata(name="{name}", version="1.0")

    def fetch(self, options): return []
"""
HEALTHY = tuple(f"healthy_{number}" for number in range(11))


@dataclass(frozen=True)
class Spoilt:
    """A project with eleven healthy files and plugins, and one of each kind that is not, which were tried."""

    root: Path
    assets: frozenset[str]
    problems: tuple[str, ...]


def _entry(name: str, module: str) -> str:
    return f"[cascade.plugins.sources]\n{name} = {module}:Source\n"


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spoilt]:
    root, site = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("site")
    files = {f"workflows/{name}.py": ASSET.format(name=name) for name in HEALTHY}
    files |= {f"workflows/{kind}.py": f"{source}\n{ASSET.format(name=kind)}" for kind, (source, _, _) in KINDS.items()}
    files |= {"workflows/later.py": ASSET.format(name="healthy_0"), "workflows/user.py": "import workflows.hang"}
    sources = {f"plug_{name}": PLUGIN.format(name=name) for name in HEALTHY}
    sources |= {f"plug_{kind}": f"{source}\n{PLUGIN.format(name=kind)}" for kind, (source, _, _) in KINDS.items()}
    packages = {name.replace("_", "-"): (_entry(name[5:], name), source) for name, source in sources.items()}
    packages["plug-doubled"] = (_entry("healthy_0", "plug_doubled"), sources["plug_healthy_0"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(sys, "path", [*sys.path])
        install(site, patch, packages)
        make_project(root, files)
        patch.chdir(root)
        patch.syspath_prepend(root)
        modules = {".".join(Path(file).with_suffix("").parts): root / file for file in sorted(files)}
        probe(modules, root, limits=LIMITS)
        probe({name: site / f"{name}.py" for name in (*sources, "plug_doubled")}, None, limits=LIMITS)
        built = build_definitions(Settings(project_dir=root))
        keys = built.resolve_asset_graph().executable_asset_keys
        yield Spoilt(root, frozenset(key.to_user_string() for key in keys), tuple(problems_of(built).all))
    for name in [name for name in sys.modules if name.startswith(("workflows", "plug_"))]:
        del sys.modules[name]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["workflows/{kind}.py", "plug_{kind}.py"])
def test_each_kind_is_named_with_its_file_and_cause(spoilt: Spoilt, kind: str, where: str) -> None:
    _, line, cause = KINDS[kind]
    place = where.format(kind=kind)
    at = place if where.startswith("workflows") else f"`{kind}` of cascade.plugins.sources"
    (problem,) = (problem for problem in spoilt.problems if at in problem and "user.py" not in problem)
    assert re.search(re.escape(f"{place}:{line}" if line else place), problem)
    assert cause in problem


def test_all_healthy_files_and_plugins_load(spoilt: Spoilt) -> None:
    assert spoilt.assets - {"cascade/promote", "cascade/publish"} == set(HEALTHY)
    assert not [problem for problem in spoilt.problems if re.search(r"plug-healthy-([1-9]|10) ", problem)]


def test_a_doubled_name_and_one_who_imports_a_bad_file_are_named(spoilt: Spoilt) -> None:
    said = "\n".join(spoilt.problems)
    assert "workflows/later.py: asset healthy_0 is already defined in workflows/healthy_0.py" in said
    assert "workflows/user.py:1: it imports workflows.hang, which is left out" in said
    assert "plug-doubled 1.0: `healthy_0` of cascade.plugins.sources: plug-healthy-0 brings one of this name" in said


def test_commands_name_them_all(spoilt: Spoilt, capsys: pytest.CaptureFixture[str]) -> None:
    """From what was kept: nothing is waited for again."""
    cascade = Command(capsys)
    for command in ("validate", "run"):
        done = cascade(command)
        assert done.code == 1
        assert all(problem in done.err for problem in spoilt.problems if "jobs" not in problem), command


def test_a_location_of_dagster_names_them_all(spoilt: Spoilt, capsys: pytest.CaptureFixture[str]) -> None:
    check = guards_of(definitions.defs).told()
    said = capsys.readouterr().err
    for problem in spoilt.problems:
        assert f"cascade: not loaded: {problem}\n" in said
        assert problem in str(check.description)
    assert not check.passed


# What was tried once is not tried again

NOTED = "from pathlib import Path\n\nPath(__file__).with_suffix('.seen').open('a').write('x')\n"


def test_a_file_is_tried_once_until_it_or_what_it_imports_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = {"workflows/noted.py": f"from workflows.parts import _inner\n{NOTED}", "workflows/parts/_inner.py": ""}
    root = make_project(tmp_path / "project", files)
    monkeypatch.syspath_prepend(root)
    modules = {"workflows.noted": root / "workflows" / "noted.py"}
    seen = root / "workflows" / "noted.seen"

    def times() -> int:
        assert probe(modules, root) == {}
        return len(seen.read_text())

    assert (times(), times()) == (1, 1)
    (root / "workflows" / "parts" / "_inner.py").write_text("x = 1\n")
    assert (times(), times()) == (2, 2)
    (root / "workflows" / "other.py").write_text("x = 1\n")
    assert times() == 2, "it imports no such file"
    (tmp_path / "cache").rename(tmp_path / "gone")
    (tmp_path / "cache").write_text("no folder can be made here")
    assert (times(), times()) == (3, 4), "where nothing can be kept, all is tried each time"
