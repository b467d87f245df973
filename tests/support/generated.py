"""A generated project as the tests of triggers, browser and command line use it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from support import forks

REPOSITORY = Path(__file__).resolve().parents[2]
#: Extensions that every generated project depends on.
EXTENSIONS = (
    "alerts",
    "checks",
    "cli",
    "create",
    "dbt",
    "dlt",
    "embedded",
    "forms",
    "maintain",
    "operations",
    "project",
    "servers",
    "services",
    "testing",
    "transform",
)
#: Those that it has as extras, each of its own name.
EXTRAS = ("logs", "monitoring", "openlineage", "postgrest", "superset")
#: The commands of the environment that runs the tests: copier, cascade, dagster.
BIN = Path(sys.executable).parent
#: No command of a test may take longer.
LIMIT_SECONDS = 300

_HIDDEN = (
    "CASCADE_",
    "DAGSTER_",
    "DBT_",
    "COPIER_",
    "GIT_CONFIG",
    "GIT_DIR",
    "PYTEST_",
    "UV_PROJECT",
    "VIRTUAL_ENV",
)


def stranger(home: Path) -> dict[str, str]:
    """The environment of a stranger whose virtual environment is not activated.

    No settings of ours, no configuration of git or copier, and none of our commands on the PATH.
    """
    (home / "gitconfig").write_text("[user]\nname = Test\nemail = test@example.com\n[init]\ndefaultBranch = main\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_HIDDEN)}
    path = [folder for folder in clean["PATH"].split(os.pathsep) if Path(folder).absolute() != BIN]
    return clean | {
        "PATH": os.pathsep.join(path),
        "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
        "GIT_CONFIG_SYSTEM": os.devnull,
        "COPIER_SETTINGS_PATH": str(home / "no-copier-settings.yml"),
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }


def odd_folder(parent: Path) -> Path:
    """Make a folder of a name that every command must be able to live with: quotes, spaces, percent signs, ä and ☂."""
    folder = parent / "o'neil's \"50%20\" größe ☂ #1"
    folder.mkdir()
    return folder


def generate(target: Path, environment: dict[str, str]) -> Path:
    """Generate a project from this checkout by copier's command line, all answers the default ones."""
    answers = ("--quiet", "--defaults", "--vcs-ref", "HEAD")
    done = run(BIN / "copier", "copy", *answers, REPOSITORY, target, cwd=target.parent, environment=environment)
    assert done.returncode == 0, done.stderr
    return target


def run(
    *command: str | Path, cwd: Path, environment: dict[str, str], **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with standard input closed."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )


def share_bytecode(environment: Path) -> None:
    """Give a new virtual environment what Python compiled in the tests' own: that takes a minute otherwise.

    Python itself refuses bytecode of another source.
    """
    ours = Path(sysconfig.get_path("purelib"))
    (theirs,) = environment.glob("lib/python3*/site-packages")
    for folder, _, names in os.walk(ours):
        target = theirs / Path(folder).relative_to(ours)
        if not folder.endswith("__pycache__") or not target.parent.is_dir():
            continue
        target.mkdir(exist_ok=True)
        for name in names:
            with contextlib.suppress(OSError):  # it is there already, or lies on another disk: Python compiles again
                os.link(Path(folder, name), target / name)


class Project:
    """A generated project, and `cascade` in it as a user calls it."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.root = root
        self.environment = environment

    def cascade(
        self, *arguments: str | Path, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `cascade`, in the project's root unless told otherwise; how, see `forks`."""
        environment = self.environment | variables
        return forks.call(*arguments, cwd=cwd or self.root, environment=environment, seconds=LIMIT_SECONDS)

    def json(self, *arguments: str | Path, **variables: str) -> Any:
        """Run `cascade … --json`, which must succeed, and return its document."""
        done = self.cascade(*arguments, "--json", **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `cascade` and return at once; whoever calls it waits for the end."""
        return subprocess.Popen(
            [str(BIN / "cascade"), *arguments],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
