"""`service.yaml`: what a service says of itself, checked. Every problem is told, with the key that it is at."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cascade.errors import ConfigurationError

__all__ = ["COMPOSE_KEYS", "Port", "Service", "Setting", "json_schema", "nearest", "read_service", "unknown_keys"]

#: What a service of a Compose file may say, as the Compose Specification has it (a test compares); and `x-…`.
COMPOSE_KEYS = frozenset(
    """
    annotations attach blkio_config build cap_add cap_drop cgroup cgroup_parent command configs container_name cpu_count
    cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus cpuset credential_spec depends_on
    deploy develop device_cgroup_rules devices dns dns_opt dns_search domainname entrypoint env_file environment expose
    extends external_links extra_hosts gpus group_add healthcheck hostname image init ipc isolation label_file labels
    links logging mac_address mem_limit mem_reservation mem_swappiness memswap_limit models network_mode networks
    oom_kill_disable oom_score_adj pid pids_limit platform ports post_start pre_start pre_stop privileged profiles
    provider pull_policy pull_refresh_after read_only restart runtime scale secrets security_opt shm_size stdin_open
    stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits umask use_api_socket user userns_mode uts
    volumes volumes_from working_dir
    """.split()  # noqa: SIM905
)
_FRAGMENT_KEYS = ("services", "networks", "volumes", "secrets", "configs")

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
Variable = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Port(_Strict):
    """A port of this machine, on 127.0.0.1 alone."""

    default: int = Field(ge=1, le=65535, description="The port, where `.env` names no other.")
    meaning: Text = Field(description="What is there.")


class Setting(_Strict):
    """A variable of `.env`."""

    type: Literal["string", "integer", "number", "boolean", "url"] = "string"
    secret: bool = Field(default=False, description="Never shown; without a default a random one is written.")
    default: str | bool | int | float | None = Field(default=None, description="What is written where it is missing.")
    description: Text = Field(description="What it means.")


class Service(_Strict):
    """What `service.yaml` says."""

    name: Name = Field(description="The name of its entry point, and in `services:` of cascade.yaml.")
    title: Text
    description: Text = Field(description="What it is for, in one sentence.")
    category: Literal["orchestration", "lake", "dashboards", "api", "monitoring", "lineage", "logs", "access"]
    enabled: bool = Field(default=False, description="Whether it is on where cascade.yaml does not say.")
    needs: tuple[Name, ...] = Field(default=(), description="Services without which it cannot work.")
    ports: dict[Variable, Port] = Field(default={}, description="Variable of `.env` to the port that it moves.")
    settings: dict[Variable, Setting] = Field(default={}, description="What `.env` must have.")
    health: str = Field(default="", description="The address that answers on this machine when it works.")
    links: dict[Text, Text] = Field(default={}, description="Title to address of its pages.")
    containers: tuple[Name, ...] = Field(
        default=(), description="Of a service of compose.yaml alone: its containers there."
    )
    compose: dict[str, Any] | None = Field(
        default=None, description="A fragment in the words of the Compose Specification: services, volumes, …."
    )

    @property
    def container_names(self) -> tuple[str, ...]:
        """Names of its containers, as the compose client takes them."""
        return self.containers or tuple((self.compose or {})["services"])


_PARTS: Mapping[str, type[BaseModel]] = {"ports": Port, "settings": Setting}


def read_service(said: Any, *, where: str) -> Service:
    """Check what a service says of itself.

    Args:
        said: The content of its `service.yaml`.
        where: The file, for errors.

    Raises:
        ConfigurationError: It does not fit; every problem is named with its key.
    """
    problems: list[str] = []
    try:
        found = Service.model_validate(said)
    except ValidationError as error:
        # The value is left out: a default may be a password.
        for problem in error.errors(include_input=False, include_url=False, include_context=False):
            at = [str(part) for part in problem["loc"] if not str(part).endswith("]")]
            known: type[BaseModel] = _PARTS.get(at[0], Service) if len(at) > 1 else Service
            unknown = problem["type"] == "extra_forbidden"
            text = f"there is no such key{nearest(at[-1], known.model_fields)}" if unknown else problem["msg"]
            problems.append(f"`{'.'.join(at) or 'the whole'}`: {text}")
    if isinstance(said, Mapping) and not said.get("containers"):
        problems += _fragment_problems(said.get("compose"))
    if problems:
        raise ConfigurationError("; ".join(problems) + ".", where=where, fix="correct these keys.")
    return found


def json_schema() -> str:
    """Return the JSON Schema of `service.yaml`; `service.schema.json` holds it, for editors."""
    return json.dumps(Service.model_json_schema(), indent=2) + "\n"


def unknown_keys(said: Iterable[Any], known: Iterable[str], *, at: str = "") -> Iterator[str]:
    """Yield a sentence for each key that is not known, with the nearest one that is; `x-…` is everybody's.

    Args:
        said: The keys.
        known: Those that there are.
        at: The path before them, for the sentence.
    """
    known = tuple(known)
    for key in said:
        if key not in known and not str(key).startswith("x-"):
            yield f"`{at}{key}`: there is no such key{nearest(str(key), known)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (is it …?)` with the name that is spelled most like one; nothing when none is near."""
    return "".join(f" (is it `{one}`?)" for one in difflib.get_close_matches(name, list(known), n=1))


def _fragment_problems(fragment: Any) -> Iterator[str]:
    services = fragment.get("services") if isinstance(fragment, Mapping) else None
    if not isinstance(services, Mapping) or not services:
        yield "`compose.services`: it must have one service at least"
        return
    yield from unknown_keys(fragment, _FRAGMENT_KEYS, at="compose.")
    for name, service in services.items():
        if isinstance(service, Mapping):
            yield from unknown_keys(service, COMPOSE_KEYS, at=f"compose.services.{name}.")
        else:
            yield f"`compose.services.{name}`: it must be a mapping with the keys of Compose"
