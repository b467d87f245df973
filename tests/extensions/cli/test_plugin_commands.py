"""Commands of packages, and what `cascade plugins` says of all that packages bring.

Modules: `cascade_cli.command`, `cascade_cli.plugins`, `cascade_cli.summary`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.packages import install
from support.projects import Command

GREET = '''\
import click


@click.command()
@click.argument("name")
def greet(name):
    """Say hello to NAME. Loudly."""
    click.echo(f"hello {name}")
'''
SOURCE = """\
from cascade.plugins import SourceConnectorPlugin
class Source(SourceConnectorPlugin): pass
"""
ENTRY = "[cascade.commands]\n{name} = {module}:greet\n"


@pytest.fixture
def cascade(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def test_a_command_of_another_package_is_one_of_ours(
    cascade: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, {"nice-one": (ENTRY.format(name="greet", module="nice_one"), GREET)})
    assert " greet Say hello to NAME. " in " ".join(cascade("--help").out.split())
    assert cascade("greet", "Ada").out == "hello Ada\n"
    assert "Usage: cascade greet [OPTIONS] NAME" in cascade("greet", "--help").out


# Source, the line in the help, and the place that is blamed.
BAD = {
    "raises": ("import nothere\n", "A command of bad-one 1.0.", "bad_one.py:1"),
    "no_command": ('def greet():\n    """Say hello."""\n', "Say hello.", "bad_one.py:1"),
    "no_python": ("def (\n", "(cannot be used: bad-one 1.0: SyntaxError: invalid syntax", "bad_one.py:1"),
    "nothing": ("", "A command of bad-one 1.0.", "bad_one:greet"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_command_that_cannot_be_used_costs_itself(
    cascade: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: tuple[str, str, str]
) -> None:
    source, line, where = bad
    install(tmp_path, monkeypatch, {"bad-one": (ENTRY.format(name="bad", module="bad_one"), source)})
    helped = cascade("--help")
    assert (helped.code, f" bad {line}" in " ".join(helped.out.split())) == (0, True), helped.out
    said = cascade("bad", "Ada")
    assert said.code == 2
    assert "Error: `bad` of cascade.commands cannot be used: " in said.err
    assert "where: package bad-one 1.0, " in said.err
    assert where in said.err
    assert cascade("query", "--help").code == 0


def test_plugins_are_listed_and_what_is_broken_is_named_with_place_and_cause(
    cascade: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same words as in `cascade validate`; what a package prints while it is imported spoils no document."""
    sources = {
        "bad-one": ("[cascade.plugins.sources]\nbad = bad_one:Source\n", "print('noise')\n" + SOURCE),
        "lost-one": ("[cascade.plugins.source]\nlost = lost_one:Source\n", ""),
    }
    install(tmp_path, monkeypatch, sources)
    listed = cascade("plugins", "list")
    lines = [line.split() for line in listed.out.splitlines()]
    assert listed.code == 0
    assert ["cascade.plugins.sources", "bad", "bad-one", "1.0", "broken"] in lines
    assert ["cascade.commands", "run", "cascade-cli", "0.1.0", "installed"] in lines
    (info,) = json.loads(cascade("plugins", "info", "bad", "--json").out)
    assert info["package"] == "bad-one 1.0"
    assert info["cause"] == "Source has no `metadata`, which SourceConnectorPlugin asks for"
    assert info["where"].endswith("bad_one.py:3")
    checked = cascade("plugins", "check")
    assert checked.code == 1
    assert "package bad-one 1.0: `bad` of cascade.plugins.sources: Source has no `metadata`" in checked.err
    assert "package lost-one 1.0: `lost` of cascade.plugins.source: there is no such group" in checked.err
    broken = json.loads(cascade("plugins", "check", "--json").out)
    assert [record["name"] for record in broken] == ["bad", "lost"]


def test_what_is_installed_passes_and_an_unknown_name_is_refused(cascade: Command) -> None:
    checked = cascade("plugins", "check")
    assert (checked.code, checked.out.endswith(": no problems.\n")) == (0, True)
    unknown = cascade("plugins", "info", "nothing")
    assert unknown.code == 2
    assert "No installed package brings `nothing`" in unknown.err


ALWAYS = ("cascade_cli.app", "cascade_cli.command", "cascade_cli.output", "cascade_cli.style", "cascade_cli.summary")


def test_help_imports_no_command_and_nothing_heavy() -> None:
    """It is asked for in every shell completion and by everybody who looks for a command."""
    code = "import sys, cascade_cli\ntry: cascade_cli.main(['-h'])\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = done.stderr.split()
    assert "cascade.plugins.registry" in modules
    heavy = {"dagster", "pydantic", "pyarrow", "duckdb", "sqlalchemy", "pyiceberg", "rich", "yaml"}
    assert heavy.isdisjoint(modules)
    assert [m for m in modules if m.startswith("cascade_cli.") and m not in ALWAYS] == []
