"""The services of a project as they run: listed, merged by the compose client, looked at, started."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from dotenv.variables import parse_variables

from cascade.errors import CascadeError, ConfigurationError, ServiceError
from cascade_services.chosen import Chosen, choose, compose_files, containers_of, env_lines
from cascade_services.containers import Container, ask_compose, compose, list_containers
from cascade_services.env import complete_env, read_env, texts_of

if TYPE_CHECKING:
    from cascade.config import Settings
    from cascade_services.chosen import Placed

__all__ = [
    "HostPort",
    "Listed",
    "Trouble",
    "containers",
    "examine",
    "list_ports",
    "list_services",
    "render",
    "run_compose",
    "start",
]

_LINES = 10
_TYPES = {
    "integer": re.compile(r"-?\d+"),
    "number": re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?"),
    "boolean": re.compile(r"true|false", re.IGNORECASE),
    "url": re.compile(r"[A-Za-z][\w+.-]*://\S+"),
    "string": re.compile(r"(?s).*"),
}


@dataclass(frozen=True)
class Listed:
    """A service, as `cascade services list` shows it.

    Attributes:
        name: Its name.
        origin: `core`, `compose.yaml` for one that was added there, `inline`, or the package that brings it.
        enabled: Whether `cascade services start` starts it.
        state: As its containers are, or `ready`, `starting`, `stopped` on this machine; `unknown` without an engine.
        ports: Its ports on this machine.
        version: The tags of its images.
        reason: Why it is not enabled, or cannot be used.
        description: What it is for.
        links: Title to address of its pages.
    """

    name: str
    origin: str
    enabled: bool
    state: str
    ports: tuple[str, ...]
    version: str
    reason: str
    description: str
    links: Mapping[str, str]


@dataclass(frozen=True)
class HostPort:
    """A port of this machine that a container publishes.

    Attributes:
        port: Its number.
        variable: The key of `.env` that moves it; empty when cascade.yaml or compose.yaml says the number.
        service: The service.
        container: The container.
        meaning: What is there.
        state: `ours` while a service of this project holds it, `free`, `taken` by another program, or `twice`.
        instead: A free port to take in place of one that is taken, or given twice; otherwise `None`.
    """

    port: int
    variable: str
    service: str
    container: str
    meaning: str
    state: str
    instead: int | None = None


@dataclass(frozen=True)
class Trouble:
    """Something that keeps services from working.

    Attributes:
        what: What is wrong.
        fix: What to do about it.
    """

    what: str
    fix: str


def list_services(settings: Settings, *, tell: Callable[[str], object] = str) -> tuple[Listed, ...]:
    """Return every service of a project, enabled or not, and also broken ones.

    Args:
        settings: The project's settings.
        tell: Hears why the states of containers are not known, where nobody can say; nobody by default.

    Raises:
        ConfigurationError: `services:` in cascade.yaml is wrong.
    """
    chosen, values = choose(settings.project_dir, settings.sources), read_env(settings.project_dir)
    native, unknown = _native(settings), ""
    made: tuple[Container, ...] = ()
    files = compose_files(chosen, settings)
    if not native:
        try:
            made = list_containers(settings.project_dir, files=files)
        except CascadeError as error:
            unknown = error.what
            tell(f"States of containers are unknown. {unknown}")
    published: list[tuple[int, str]] | None = None  # as declared, where nothing else was said, or nobody can merge
    if chosen.overrides:
        with suppress(CascadeError):
            published = _published(settings, files)
    services = chosen.services.values()
    return tuple(_listed(one, values, native, made, unknown=unknown, published=published) for one in services)


def render(settings: Settings) -> str:
    """Return all Compose files of a project as one, merged by the compose client; variables stay variables.

    Args:
        settings: The project's settings.

    Raises:
        ConfigurationError: `services:` in cascade.yaml is wrong, or the client refuses what it says.
        ServiceError: There is no client, or an old one.
    """
    files = compose_files(choose(settings.project_dir, settings.sources), settings)
    return ask_compose(settings.project_dir, "config", "--no-interpolate", "--no-env-resolution", files=files)


def list_ports(settings: Settings) -> tuple[HostPort, ...]:
    """Return every port of this machine that enabled services publish; raises as `render` does."""
    chosen = choose(settings.project_dir, settings.sources)
    files = compose_files(chosen, settings)
    made: tuple[Container, ...] = ()
    with suppress(CascadeError):  # no engine has none
        made = list_containers(settings.project_dir, files=files)
    return tuple(_ports(chosen, settings, files, _held(settings, made)))


def examine(settings: Settings) -> tuple[Trouble, ...]:
    """Look for everything that keeps the services of a project from working.

    The compose client, the engine, `.env`, ports, needs, and containers that are unhealthy, with what they wrote last.

    Args:
        settings: The project's settings.
    """
    try:
        chosen = choose(settings.project_dir, settings.sources)
    except CascadeError as error:
        return (_trouble(error),)
    broken = [one for one in chosen.services.values() if one.is_package and one.service is None]
    found = [
        Trouble(f"{one.name} of {one.origin} cannot be used: {one.reason}", "mend or uninstall it.") for one in broken
    ]
    found += _wrong_values(chosen, read_env(settings.project_dir))
    files = compose_files(chosen, settings)
    made: tuple[Container, ...] = ()
    try:
        made = list_containers(settings.project_dir, files=files)
    except CascadeError as error:
        if not _native(settings):
            found.append(_trouble(error))
    try:
        found += _port_troubles(_ports(chosen, settings, files, _held(settings, made)))
    except ConfigurationError as error:
        found += [] if _trouble(error) in found else [_trouble(error)]
    except ServiceError:
        pass  # there is no client: told above
    found += [
        Trouble(_last_words(one, settings, files), f"mend that; `cascade services logs {one.name}` shows more.")
        for one in made
        if one.is_wrong
    ]
    found += _strangers(chosen, made)
    return tuple(found + list(_unanswered(chosen, made, read_env(settings.project_dir))))


def run_compose(settings: Settings, *arguments: str, names: Iterable[str] = ()) -> None:
    """Run the compose client on a project's services; raises as `start` does.

    Args:
        settings: The project's settings.
        arguments: What compose is asked for, such as `stop`.
        names: Services or containers; all by default.
    """
    chosen = choose(settings.project_dir, settings.sources)
    wanted = containers_of(chosen, names)
    compose(settings.project_dir, *arguments, *wanted, files=compose_files(chosen, settings))


def containers(settings: Settings) -> tuple[Container, ...]:
    """Return every container that was made of a project's services; raises as `start` does."""
    return list_containers(
        settings.project_dir, files=compose_files(choose(settings.project_dir, settings.sources), settings)
    )


def start(settings: Settings, names: Iterable[str] = (), *, tell: Callable[[str], object]) -> Chosen:
    """Start services in containers, and wait until they are healthy; what runs stays as it is.

    Everything that can be found before is: then nothing is started. A start that was interrupted goes on. Without
    names, containers of services that are not enabled any more are taken away.

    Args:
        settings: The project's settings.
        names: Services or containers, each with what it needs; all by default.
        tell: Hears what happens, a line each.

    Returns:
        The project's services.

    Raises:
        UsageError: A name is of no service.
        ConfigurationError: `services:` in cascade.yaml is wrong, or the client refuses what it says.
        ServiceError: A check failed, and nothing is started; or a service is not healthy, with its last lines.
    """
    chosen = choose(settings.project_dir, settings.sources)
    wanted = containers_of(chosen, names)
    if running := [name for name, state in _native(settings).items() if state != "stopped"]:
        raise ServiceError(
            f"Servers run on this machine without containers: {', '.join(running)}. Nothing is started.",
            fix="`cascade services stop` first. Their data and that of containers are two lakes.",
        )
    for text in texts_of(complete_env(settings.project_dir, env_lines(chosen))):
        tell(text)
    files = compose_files(chosen, settings)
    made = list_containers(settings.project_dir, files=files)
    wrong = list(_wrong_values(chosen, read_env(settings.project_dir)))
    wrong += _port_troubles(_ports(chosen, settings, files, _held(settings, made)))
    if wrong:
        raise ServiceError(
            "Nothing is started: " + "; ".join(one.what for one in wrong) + ".",
            where=str(settings.project_dir / ".env"),
            fix=" ".join(dict.fromkeys(one.fix for one in wrong)),
        )
    orphans = () if wanted else ("--remove-orphans",)
    try:
        compose(settings.project_dir, "up", "--detach", "--build", "--wait", *orphans, *wanted, files=files)
    except ServiceError as error:
        made = list_containers(settings.project_dir, files=files)
        if not (failed := [one for one in made if one.is_wrong]):
            raise
        words = "\n".join(_last_words(one, settings, files) for one in failed)
        raise ServiceError(f"{error.what}\n{words}", where=error.where, fix=error.fix) from error
    return chosen


def _native(settings: Settings) -> dict[str, str]:
    """Return the states of servers on this machine, by name; empty while none runs there."""
    if not (settings.data_path / "servers").exists():
        return {}
    from cascade_services.servers import list_native

    with suppress(ServiceError):
        servers = list_native(settings)
        return {server.name: server.state for server in servers} if any(server.pid for server in servers) else {}
    return {}


def _listed(
    one: Placed,
    values: Mapping[str, str],
    native: Mapping[str, str],
    made: Sequence[Container],
    *,
    unknown: str,
    published: list[tuple[int, str]] | None,
) -> Listed:
    said = one.service
    ports = [values.get(key, str(port.default)) for key, port in said.ports.items()] if said else []
    if one.enabled and published is not None:
        ports = [str(port) for port, container in published if container in one.containers]
    own = [image for container, image in zip(one.containers, one.images, strict=True) if container == one.name]
    tags = [
        tag for image in own or one.images if (tag := re.sub(r"@.*", "", image).rpartition("/")[2].partition(":")[2])
    ]
    if one.name == "dagster":  # built from the project: its version is that of the package
        tags = [metadata.version("dagster")]
    if not one.enabled:
        state = "broken" if one.is_package and said is None else "disabled"
    elif native:
        state = native.get(one.name, "stopped")
    else:
        state = "unknown" if unknown else _state([each for each in made if each.name in one.containers])
    return Listed(
        one.name,
        one.origin,
        one.enabled,
        state,
        tuple(ports),
        ", ".join(dict.fromkeys(tags)),
        one.reason,
        said.description if said else "",
        {title: _filled(address, values, said) for title, address in said.links.items()} if said else {},
    )


def _state(made: Sequence[Container]) -> str:
    """Return the state of a service: that of the container that works least. One that has done its work ends."""
    states = [one.health or one.state for one in made if not one.status.startswith("Exited (0)")]
    return next((state for state in states if state not in ("healthy", "running")), min(states, default="stopped"))


def _filled(address: str, values: Mapping[str, str], service: Any) -> str:
    """Put variables into an address, by the rules of `.env`."""
    known = {key: str(port.default) for key, port in service.ports.items()} | dict(values)
    return "".join(atom.resolve(known) for atom in parse_variables(address))


def _wrong_values(chosen: Chosen, values: Mapping[str, str]) -> Iterator[Trouble]:
    for one in chosen.enabled:
        if one.service is None:
            continue
        said = {key: ("integer", port.meaning, False) for key, port in one.service.ports.items()}
        said |= {key: (its.type, its.description, its.secret) for key, its in one.service.settings.items()}
        lacking = {key for key, (_, _, secret) in said.items() if key not in values or (secret and not values[key])}
        if lacking:
            names = ", ".join(f"{key} ({said[key][1].rstrip('.')})" for key in said if key in lacking)
            yield Trouble(
                f".env lacks keys of {one.name}: {names}",
                "write what is missing into .env; `cascade services env` does it for what has a default.",
            )
        for key, (kind, _, _) in said.items():
            if key not in lacking and not _TYPES[kind].fullmatch(values[key]):  # not shown: it may be a password
                yield Trouble(f"{key} of {one.name} is not of type {kind}", f"correct {key} in .env.")


def _held(settings: Settings, made: Iterable[Container]) -> set[int]:
    """Return the ports that services of this project hold already, in containers or on this machine."""
    held = {port for one in made for port in one.ports}
    if _native(settings):
        from cascade_services.servers import list_native

        held |= {int(server.address.rpartition(":")[2]) for server in list_native(settings) if server.pid}
    return held


def _published(settings: Settings, files: Sequence[str]) -> list[tuple[int, str]]:
    """Return the ports of this machine, each with its container, as the compose client merges all files."""
    merged = json.loads(ask_compose(settings.project_dir, "config", "--format", "json", files=files))
    return sorted(
        (int(port["published"]), name)
        for name, service in merged["services"].items()
        for port in service.get("ports", [])
        if str(port.get("published", "")).isdigit()
    )


def _ports(chosen: Chosen, settings: Settings, files: Sequence[str], held: set[int]) -> Iterator[HostPort]:
    from cascade_services.native.processes import is_free

    published, values = _published(settings, files), read_env(settings.project_dir)
    owner = {container: one for one in chosen.enabled for container in one.containers}
    used = {port for port, _ in published}
    for i, (port, name) in enumerate(published):
        said = owner[name].service if name in owner else None
        declared = said.ports if said else {}
        variable = next((key for key in declared if values.get(key) == str(port)), "")
        meaning = declared[variable].meaning if variable else ""
        twice = i > 0 and published[i - 1][0] == port
        state = "twice" if twice else "ours" if port in held else "free" if is_free(port) else "taken"
        instead = None
        if state in ("twice", "taken"):
            instead = next(other for other in range(port + 1, 65536) if other not in used and is_free(other))
            used.add(instead)
        service = owner[name].name if name in owner else name
        yield HostPort(port, variable, service, name, meaning, state, instead)


def _port_troubles(ports: Iterable[HostPort]) -> Iterator[Trouble]:
    ports = tuple(ports)
    for one in ports:
        if one.instead is None:
            continue
        others = [each.service for each in ports if each.port == one.port and each is not one]
        by = f"is given to {others[0]}, too" if one.state == "twice" else "is held by another program"
        move = (
            f"write {one.variable}={one.instead} into .env." if one.variable else f"give {one.service} {one.instead}."
        )
        yield Trouble(f"port {one.port} of {one.service} {by}", move)


def _last_words(one: Container, settings: Settings, files: Sequence[str]) -> str:
    said = ""
    with suppress(CascadeError):
        arguments = ("logs", "--no-color", "--no-log-prefix", "--tail", str(_LINES), one.name)
        said = ask_compose(settings.project_dir, *arguments, files=files)
    lines = "".join(f"\n    {line}" for line in said.splitlines()[-_LINES:])
    return f"{one.name} is {one.health or one.state} ({one.status}); its last lines:{lines or ' none'}"


def _strangers(chosen: Chosen, made: Iterable[Container]) -> Iterator[Trouble]:
    off = {container: one.name for one in chosen.services.values() if not one.enabled for container in one.containers}
    for one in made:
        if one.state == "running" and one.name in off:
            what = f"{one.name} runs, and {off[one.name]} is not enabled"
            yield Trouble(what, "`cascade services start` without names takes it away.")


def _unanswered(chosen: Chosen, made: Iterable[Container], values: Mapping[str, str]) -> Iterator[Trouble]:
    from cascade_services.native.processes import direct

    running = {one.name for one in made if one.state == "running" and not one.is_wrong}  # that is told already
    for one in chosen.enabled:
        if one.service and one.service.health and running.intersection(one.containers):
            address = _filled(one.service.health, values, one.service)
            try:
                direct().open(address, timeout=5).close()
            except (OSError, ValueError) as error:
                if getattr(error, "code", 500) < 500:  # it answers, and asks for a login, or for https
                    continue
                yield Trouble(
                    f"{one.name} runs, but {address} does not answer: {error}", f"`cascade services logs {one.name}`."
                )


def _trouble(error: CascadeError) -> Trouble:
    return Trouble(error.what, error.fix)
