"""The services of `compose.yaml`, by the compose client of this machine: Docker's or podman's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cascade.errors import ConfigurationError, ServiceError

__all__ = ["Container", "compose", "list_containers"]

# Tried in this order; what a client of containers answers when it has compose.
_CLIENTS = (("docker", "compose"), ("docker-compose",), ("podman", "compose"))
_NATIVE = "start the lake's servers without containers: `cascade services start --native`."


@dataclass(frozen=True)
class Container:
    """A service of `compose.yaml`.

    Attributes:
        name: Its name there.
        state: As the engine says it: `running`, `exited`, ….
        health: `healthy`, `unhealthy`, `starting`; empty without a health check.
        status: The engine's sentence, such as `Up 2 hours (healthy)`.
        image: What it was made from.
    """

    name: str
    state: str
    health: str
    status: str
    image: str


def compose(project_dir: Path, *arguments: str) -> None:
    """Run the compose client in a project; what it says is shown as it says it.

    Args:
        project_dir: The project's root folder, which has `compose.yaml`.
        arguments: What compose is asked for, such as `up --wait`.

    Raises:
        ConfigurationError: The project has no `compose.yaml`.
        ServiceError: There is no client, no engine answers it, or it failed.
    """
    command = [*_client_of(project_dir), *arguments]
    sys.stdout.flush()
    status = subprocess.run(command, cwd=project_dir, check=False).returncode
    if status:
        raise ServiceError(
            f"`{' '.join(command)}` ended with exit status {status}; its words are above.",
            where=str(project_dir / "compose.yaml"),
            fix="see `cascade services logs`; the same command goes on where it stopped.",
        )


def list_containers(project_dir: Path) -> tuple[Container, ...]:
    """Return every container that compose has made of a project's services.

    Args:
        project_dir: As for `compose`.

    Raises:
        ConfigurationError: The project has no `compose.yaml`.
        ServiceError: There is no client, no engine answers it, or it failed.
    """
    command = [*_client_of(project_dir), "ps", "--all", "--format", "json"]
    done = subprocess.run(command, cwd=project_dir, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ServiceError(f"`{' '.join(command)}` failed: {done.stderr.strip()}", where=str(project_dir))
    return read_containers(done.stdout)


def read_containers(written: str) -> tuple[Container, ...]:
    """Return the containers that `compose ps --format json` names: an object a line, or one array."""
    text = written.strip()
    found = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    return tuple(
        Container(one["Service"], one["State"], one.get("Health", ""), one.get("Status", ""), one.get("Image", ""))
        for one in found
    )


def _client_of(project_dir: Path) -> tuple[str, ...]:
    """Return the client, once it is sure that it can do something."""
    if not (project_dir / "compose.yaml").is_file():
        raise ConfigurationError(
            "This project has no compose.yaml.",
            where=str(project_dir),
            fix="get it with `copier update --vcs-ref :current: --data containers=true`.",
        )
    client = next((client for client in _CLIENTS if _is_there(client)), None)
    if client is None:
        raise ServiceError(
            "There is no compose client here: neither `docker compose` nor `docker-compose` nor `podman compose`.",
            fix=f"install Docker or podman, or {_NATIVE}",
        )
    engine = subprocess.run([*client, "ls", "--quiet"], cwd=project_dir, check=False, capture_output=True, text=True)
    if engine.returncode:
        raise ServiceError(
            f"No container engine answers: {engine.stderr.strip() or 'it does not say why'}",
            where=" ".join(client),
            fix=f"start it, or {_NATIVE}",
        )
    return client


def _is_there(client: tuple[str, ...]) -> bool:
    if not shutil.which(client[0]):
        return False
    return not subprocess.run([*client, "version"], check=False, capture_output=True).returncode
