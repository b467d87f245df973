"""Superset from PyPI, run as its container is: by the command, the environment and the files of `cascade-superset`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

import cascade_superset
from cascade_services.native.downloads import cache_folder
from cascade_services.native.processes import Server, answers
from support.generated import BIN

PACKAGE = Path(cascade_superset.__file__).parent
FILES = PACKAGE / "files"
DEFINITION: dict[str, Any] = yaml.safe_load((PACKAGE / "service.yaml").read_text("utf-8"))
#: Secrets that `.env` has for it.
SECRETS = {name: f"secret-of-{name.lower()}" for name in DEFINITION["settings"]}
# What the container has beside Superset itself; and what Superset 6.1 needs to be held back, or forgot to name.
_DOCKERFILE = (FILES / "Dockerfile").read_text("utf-8")
_PACKAGES = [
    "apache-superset==" + re.findall(r"FROM apache/superset:(\S+)", _DOCKERFILE)[0],
    *re.findall(r'"(psycopg2-binary==\S+)"', _DOCKERFILE),
    "flask-caching<2.5",
    "cachetools",
    "rich",
]


def composed(main: Path, folder: Path, variables: Mapping[str, str], overrides: str = "{}") -> dict[str, Any]:
    """Return the services that the real compose client makes of a project's file and the package's fragment.

    Args:
        main: The project's `compose.yaml`.
        folder: Where the files in between go.
        variables: The environment of the client.
        overrides: The last file: what the project's owner changes.
    """
    include = {"path": str(folder / "superset.yaml"), "project_directory": str(PACKAGE)}
    made = {
        "superset.yaml": yaml.safe_dump(DEFINITION["compose"]),
        "packages.yaml": yaml.safe_dump({"include": [include]}),
        "overrides.yaml": overrides,
    }
    for name, content in made.items():
        (folder / name).write_text(content, "utf-8")
    files = [part for file in (main, folder / "packages.yaml", folder / "overrides.yaml") for part in ("-f", file)]
    done = subprocess.run(
        [BIN / "docker-compose", "--project-directory", main.parent, *files, "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    return services


def programs() -> Path:
    """Return the folder of Superset's programs; installed once, and kept in the cache."""
    folder = cache_folder() / _PACKAGES[0].replace("==", "-")
    whole = folder / "installed.json"
    with FileLock(cache_folder() / "superset.lock"):
        if not whole.exists() or json.loads(whole.read_text()) != _PACKAGES:
            whole.unlink(missing_ok=True)
            _uv("venv", "--clear", "--python", sys.executable, folder)
            _uv("pip", "install", "--compile-bytecode", "--python", folder / "bin/python", *_PACKAGES)
            whole.write_text(json.dumps(_PACKAGES))
    return folder / "bin"


def native(
    service: Mapping[str, Any], folder: Path, *, port: int, dashboards: Path
) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of a container's service for this machine.

    Args:
        service: As compose has it.
        folder: The home of what runs.
        port: Of Superset, on loopback.
        dashboards: The folder that is mounted at `/app/dashboards`.
    """
    places = {
        "/app/cascade": str(FILES),
        "/app/dashboards": str(dashboards),
        "/tmp": str(folder),
        "0.0.0.0:8088": f"127.0.0.1:{port}",
    }

    def here(text: str) -> str:
        return re.sub("|".join(map(re.escape, places)), lambda found: places[found.group()], text)

    environment = {name: here(value) for name, value in service["environment"].items()}
    return [here(part) for part in service["command"]], {"PATH": f"{programs()}:/usr/bin:/bin", **environment}


@contextlib.contextmanager
def running_superset(service: Mapping[str, Any], folder: Path, *, port: int, dashboards: Path) -> Iterator[Server]:
    """Launch Superset, and end it; whoever needs it to answer calls `wait`."""
    command, environment = native(service, folder, port=port, dashboards=dashboards)
    server = Server(
        "Superset",
        command,
        ready=answers(f"http://127.0.0.1:{port}/health", containing="OK"),
        log=folder / "superset.log",
        environment=environment,
        folder=folder,
        seconds=180,
    )
    try:
        server.launch()
        yield server
    finally:
        server.kill()  # asked to end, it waits for the browser's connections


def _uv(*arguments: str | Path) -> None:
    done = subprocess.run(["uv", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"Superset cannot be installed: uv {' '.join(map(str, arguments))}\n{done.stderr}")
