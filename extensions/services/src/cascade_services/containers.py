"""The services of a project, by the compose client of this machine: Docker's or podman's."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cascade.errors import ConfigurationError, ServiceError

__all__ = ["Container", "ask_compose", "compose", "find_client", "list_containers"]

# Tried in this order; what a client of containers answers when it has compose.
_CLIENTS = (("docker", "compose"), ("docker-compose",), ("podman", "compose"))
# The first that knows `config --no-env-resolution` (docker/compose#12665); all else that we ask for is older.
_OLDEST = (2, 35, 0)
_NATIVE = "start the lake's servers without containers: `cascade services start --native`."


@dataclass(frozen=True)
class Container:
    """A container that compose has made.

    Attributes:
        name: Its service, as Compose calls it.
        state: As the engine says it: `running`, `exited`, ….
        health: `healthy`, `unhealthy`, `starting`; empty without a health check.
        status: The engine's sentence, such as `Up 2 hours (healthy)`.
        image: What it was made from.
        ports: The ports of this machine that it holds.
    """

    name: str
    state: str
    health: str
    status: str
    image: str
    ports: tuple[int, ...] = ()

    @property
    def is_wrong(self) -> bool:
        """Whether it does not do its work, though nobody stopped it."""
        stopped = self.state == "exited" and re.match(r"Exited \((0|143)\)", self.status)  # its end, or SIGTERM
        return self.health == "unhealthy" or (self.state in ("exited", "dead", "restarting") and not stopped)


def compose(project_dir: Path, *arguments: str, files: Sequence[str] = ()) -> None:
    """Run the compose client in a project; what it says is shown as it says it.

    Args:
        project_dir: The project's root folder, which has `compose.yaml`.
        arguments: What compose is asked for, such as `up --wait`.
        files: Options that name the files to merge; without them, those that the client finds by itself.

    Raises:
        ConfigurationError: The project has no `compose.yaml`.
        ServiceError: There is no client, no engine answers it, or it failed.
    """
    client = _with_engine(project_dir)
    sys.stdout.flush()
    status = subprocess.run([*client, *files, *arguments], cwd=project_dir, check=False).returncode
    if status:
        raise ServiceError(
            f"`{' '.join([*client, *arguments])}` ended with exit status {status}; its words are above.",
            where=str(project_dir / "compose.yaml"),
            fix="see `cascade services logs`; the same command goes on where it stopped.",
        )


def ask_compose(project_dir: Path, *arguments: str, files: Sequence[str] = ()) -> str:
    """Return what the compose client answers to what needs no engine, such as `config`.

    Args:
        project_dir: As for `compose`.
        arguments: As for `compose`.
        files: As for `compose`.

    Raises:
        ConfigurationError: The project has no `compose.yaml`, or the client refuses the files; in its words.
        ServiceError: There is no client.
    """
    return _ask(find_client(project_dir), project_dir, *files, *arguments)


def list_containers(project_dir: Path, *, files: Sequence[str] = ()) -> tuple[Container, ...]:
    """Return every container that compose has made of a project's services.

    Args:
        project_dir: As for `compose`.
        files: As for `compose`.

    Raises:
        ConfigurationError: The project has no `compose.yaml`, or the client refuses the files.
        ServiceError: There is no client, or no engine answers it.
    """
    return read_containers(_ask(_with_engine(project_dir), project_dir, *files, "ps", "--all", "--format", "json"))


def read_containers(written: str) -> tuple[Container, ...]:
    """Return the containers that `compose ps --format json` names: an object a line, or one array."""
    text = written.strip()
    found = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    return tuple(
        Container(
            one["Service"],
            one["State"],
            one.get("Health", ""),
            one.get("Status", ""),
            one.get("Image", ""),
            tuple(sorted({port["PublishedPort"] for port in one.get("Publishers") or () if port["PublishedPort"]})),
        )
        for one in found
    )


def find_client(project_dir: Path) -> tuple[str, ...]:
    """Return the command of the compose client, which is new enough.

    Args:
        project_dir: The project's root folder, which has `compose.yaml`.

    Raises:
        ConfigurationError: The project has no `compose.yaml`.
        ServiceError: There is no client, or an old one.
    """
    if not (project_dir / "compose.yaml").is_file():
        raise ConfigurationError(
            "This project has no compose.yaml.",
            where=str(project_dir),
            fix="get it with `copier update --vcs-ref :current: --data containers=true`.",
        )
    for client in _CLIENTS:
        version = _version(shutil.which(client[0]), *client[1:])
        if version is None:
            continue
        if version < _OLDEST:
            needed = ".".join(map(str, _OLDEST))
            raise ServiceError(
                f"`{' '.join(client)}` is of version {'.'.join(map(str, version))}; {needed} or later is needed.",
                fix="update Docker Compose; podman uses its program `docker-compose`, too (`compose_providers` in "
                f"containers.conf). Or {_NATIVE}",
            )
        return client
    raise ServiceError(
        "There is no compose client here: neither `docker compose` nor `docker-compose` nor `podman compose`.",
        fix=f"install Docker or podman, or {_NATIVE}",
    )


def _with_engine(project_dir: Path) -> tuple[str, ...]:
    """Return the client, once an engine answers it."""
    client = find_client(project_dir)
    engine = subprocess.run([*client, "ls", "--quiet"], cwd=project_dir, check=False, capture_output=True, text=True)
    if engine.returncode:
        raise ServiceError(
            f"No container engine answers: {engine.stderr.strip() or 'it does not say why'}",
            where=" ".join(client),
            fix=f"start it, or {_NATIVE}",
        )
    return client


def _ask(client: Sequence[str], project_dir: Path, *arguments: str) -> str:
    done = subprocess.run([*client, *arguments], cwd=project_dir, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ConfigurationError(
            f"The compose client refuses: {done.stderr.strip()}",
            where=str(project_dir / "compose.yaml"),
            fix="correct compose.yaml or `services` in cascade.yaml; a key that .env lacks: `cascade services env`.",
        )
    return done.stdout


@functools.cache
def _version(path: str | None, *rest: str) -> tuple[int, ...] | None:
    """Return the version of a client; `None` where there is none that works."""
    if not path:
        return None
    done = subprocess.run([path, *rest, "version", "--short"], check=False, capture_output=True, text=True)
    if done.returncode:
        return None
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", done.stdout)
    return tuple(map(int, found.groups())) if found else _OLDEST  # who does not say is tried
