"""The services of one project: what is installed, with what `services:` in cascade.yaml says of it.

Compose merges: this only writes the files that its client is given, the fragments of packages and the project's own
words, with their tags `!override` and `!reset`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import yaml

from cascade.errors import ConfigurationError, UsageError
from cascade_services.env import read_env
from cascade_services.known import LOADER, Known, find_services
from cascade_services.schema import COMPOSE_KEYS, Service, nearest, unknown_keys

if TYPE_CHECKING:
    from cascade.config import Settings

__all__ = ["Chosen", "Placed", "choose", "compose_files", "containers_of", "env_lines"]

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_OWN_KEYS = {"enabled", "type"}
_PLAIN = re.compile(r"[\w./:@%+,=-]*")


@dataclass(frozen=True)
class Placed:
    """A service of a project.

    Attributes:
        name: Its name.
        origin: `core`, `compose.yaml` for one that was added there, `inline`, or the package that brings it.
        enabled: Whether `cascade services start` starts it.
        reason: Why it is not enabled; empty when it is.
        containers: Its containers, as compose names them.
        images: Their images, where they are known without the compose client.
        service: What it says of itself; `None` for one that is broken, inline, or was added to compose.yaml.
        folder: The folder of its `service.yaml`.
    """

    name: str
    origin: str
    enabled: bool
    reason: str
    containers: tuple[str, ...]
    images: tuple[str, ...]
    service: Service | None = None
    folder: Path | None = None

    @property
    def is_package(self) -> bool:
        """Whether a package brings its containers."""
        return self.origin not in ("core", "compose.yaml", "inline")


@dataclass(frozen=True)
class Chosen:
    """All services of a project, and what its owner says of containers.

    Attributes:
        services: Every service by name, disabled and broken ones included.
        overrides: What comes after all other files, as YAML; empty without a word of the owner.
    """

    services: Mapping[str, Placed]
    overrides: str

    @property
    def enabled(self) -> tuple[Placed, ...]:
        """Those that are started."""
        return tuple(placed for placed in self.services.values() if placed.enabled)


def choose(root: Path, sources: Mapping[str, str] = MappingProxyType({})) -> Chosen:
    """Return the services of a project: those that are installed, and what cascade.yaml says of them.

    Args:
        root: The project's root folder.
        sources: Where each setting was found, as `Settings.sources` has it.

    Raises:
        ConfigurationError: `services:` names what is not there, uses a name twice, switches off what others need, or
            is written elsewhere than in cascade.yaml. All problems are told together.
    """
    found, base = find_services(), _base_images(root)
    table = _Table(found, root, base)
    elsewhere = {name: at for name, at in sources.items() if name.startswith("services.") and at != "cascade.yaml"}
    table.problems += [
        f"`{name}` is in {at}: services are read from cascade.yaml alone" for name, at in elsewhere.items()
    ]
    placed = {name: _placed(known, table, base) for name, known in found.items()}
    core = {container for one in placed.values() if one.origin == "core" for container in one.containers}
    own = {name: ("compose.yaml", image) for name, image in base.items() if name not in core}
    own |= {name: ("inline", _image(node)) for name, node in table.inline.items()}
    for name, (origin, image) in own.items():
        on = table.enabled.get(name, True)
        placed.setdefault(name, Placed(name, origin, on, "" if on else _SWITCHED_OFF, (name,), (image,)))
    problems = [*table.problems, *_missing_needs(placed.values()), *_same_containers(placed.values(), base)]
    if problems:
        raise ConfigurationError(
            "The services of this project are not right: " + "; ".join(problems) + ".",
            where=str(root / "cascade.yaml"),
            fix="correct the table `services`; `cascade services list` shows which there are.",
        )
    off = [container for one in placed.values() if not one.enabled for container in one.containers]
    gone = {name for name in off if name in base}
    return Chosen(placed, table.overrides(without=set(off), reset=gone))


def compose_files(chosen: Chosen, settings: Settings) -> tuple[str, ...]:
    """Write the files that compose merges into the project's own, and return the options that name all of them.

    Nothing is written, and nothing returned, for a project that has no services but those of compose.yaml.

    Args:
        chosen: Its services.
        settings: Its settings; the files are below its data folder.
    """
    root, folder = settings.project_dir, settings.data_path / "services"
    env = root / ".env"
    files: dict[str, str] = {}
    include: list[dict[str, str]] = []
    for one in chosen.enabled:
        if one.service and one.service.compose and one.folder:
            fragment = {key: value for key, value in one.service.compose.items() if not key.startswith("x-")}
            files[f"{one.name}.yaml"] = yaml.dump(fragment, Dumper=_DUMPER, sort_keys=False)
            place = {"path": str(folder / f"{one.name}.yaml"), "project_directory": str(one.folder)}
            include.append({**place, "env_file": str(env) if env.is_file() else os.devnull})
    last = []
    if include:
        files["packages.yaml"] = yaml.safe_dump({"include": include})
        last.append("packages.yaml")
    if chosen.overrides:
        files["overrides.yaml"] = chosen.overrides
        last.append("overrides.yaml")
    if folder.is_dir():
        for stale in {path.name for path in folder.glob("*.yaml")} - files.keys():
            (folder / stale).unlink(missing_ok=True)
    if not last:
        return ()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        if not (folder / name).is_file() or (folder / name).read_text("utf-8") != text:
            (folder / name).write_text(text, "utf-8")
    paths = [*_base_files(root), *(folder / name for name in last)]
    return ("--project-directory", str(root), *(part for path in paths for part in ("--file", str(path))))


def containers_of(chosen: Chosen, names: Iterable[str]) -> tuple[str, ...]:
    """Return the containers of services; a container may be named, too.

    Args:
        chosen: The project's services.
        names: Services or containers.

    Raises:
        UsageError: A name is of neither, or of a service that is not enabled.
    """
    of: dict[str, tuple[str, ...]] = {container: (container,) for one in chosen.enabled for container in one.containers}
    of |= {one.name: one.containers for one in chosen.enabled}
    for name in (names := tuple(names)):
        if name not in of:
            off = chosen.services.get(name)
            what = f"{name} is not enabled: {off.reason}." if off else f"There is no service {name}{nearest(name, of)}."
            raise UsageError(what, fix="`cascade services list` shows which there are.")
    return tuple(dict.fromkeys(container for name in names for container in of[name]))


def env_lines(chosen: Chosen) -> list[str]:
    """Return the keys that enabled packages want in `.env`, as `services/env.example` lists those of the others."""
    lines: list[str] = []
    for one in chosen.enabled:
        if not one.is_package or one.service is None:
            continue
        lines += ["", f"# {one.service.title}: {one.service.description}"]
        lines += [f"{key}={port.default}" for key, port in one.service.ports.items()]
        for key, setting in one.service.settings.items():
            if setting.default is not None:
                text = str(setting.default).lower() if isinstance(setting.default, bool) else str(setting.default)
                lines += [f"# {setting.description}", f"{key}={text if _PLAIN.fullmatch(text) else repr(text)}"]
            elif setting.secret:
                lines += [f"# {setting.description}", f"{key}=<generated>"]
    return lines


_SWITCHED_OFF = "switched off in cascade.yaml"
_ABSENT = "compose.yaml does not have it"


class _Table:
    """`services:` of cascade.yaml, read as YAML nodes: what a value means is for the compose client."""

    def __init__(self, found: Mapping[str, Known], root: Path, base: Iterable[str]) -> None:
        self.problems: list[str] = []
        self.enabled: dict[str, bool] = {}
        self._services = found.keys()
        self.inline: dict[str, yaml.Node] = {}
        self._compose: dict[str, list[tuple[yaml.Node, yaml.Node]]] = {}
        known = {name: known.service.container_names for name, known in found.items() if known.service}
        owner = dict.fromkeys(base, "compose.yaml")
        owner |= {container: name for name, containers in known.items() for container in containers}
        whole = _compose_file(root / "cascade.yaml")
        for name, node in _entries(_entries(whole).get("services")).items():
            self._read(name, node, found, owner)

    def _read(self, name: str, node: yaml.Node, found: Mapping[str, Known], owner: Mapping[str, str]) -> None:
        if not isinstance(node, yaml.MappingNode):
            self.problems.append(f"`services.{name}` must be a mapping, such as `{name}: {{enabled: true}}`")
            return
        entries, at = _entries(node), f"services.{name}."
        self.problems += unknown_keys(entries, COMPOSE_KEYS | _OWN_KEYS, at=at)
        if "enabled" in entries:
            if entries["enabled"].tag == "tag:yaml.org,2002:bool":
                self.enabled[name] = entries["enabled"].value.lower() in ("true", "yes", "on")
            else:
                self.problems.append(f"`{at}enabled` must be true or false")
        compose = [(key, value) for key, value in node.value if key.value not in _OWN_KEYS]
        if "type" in entries:
            by = found[name].origin if name in found else f"the service {owner[name]}" if name in owner else ""
            if entries["type"].value != "inline":
                self.problems.append(f"`{at}type` can be `inline` alone: a service that cascade.yaml describes itself")
            elif by:
                self.problems.append(f"`services.{name}` is inline, but {by} brings one of this name, too: rename it")
            else:
                self.inline[name] = node
                self._compose[name] = compose
        elif name not in found and name not in owner:
            hint = nearest(name, [*found, *owner]) or (
                f": install its package (one of Cascade's: `uv sync --extra {name}`), or say `type: inline` and `image`"
            )
            self.problems.append(f"`services.{name}`: no installed package, and not compose.yaml, has one{hint}")
        else:
            if name in found and found[name].problem and self.enabled.get(name):
                self.problems.append(f"`{name}` cannot be used: {found[name].problem}")
            if compose and name not in owner and not found[name].problem:
                mine = ", ".join(container for container, its in owner.items() if its == name)
                self.problems.append(f"`services.{name}` has no container of that name: write it for one of {mine}")
            self._compose[name] = compose

    def overrides(self, *, without: set[str], reset: set[str]) -> str:
        """Return what comes after all other files: the words of the owner, and what is taken away."""
        own = self.enabled.keys() - self._services - self.inline.keys()  # containers of a service that stays
        own = {name for name in own if not self.enabled[name]}
        services: list[tuple[yaml.Node, yaml.Node]] = []
        for name in sorted(reset | (own - without)):
            services.append((_text(name), yaml.ScalarNode("!reset", "null")))
        for name, compose in self._compose.items():
            if compose and name not in without | reset | own:
                services.append((_text(name), yaml.MappingNode("tag:yaml.org,2002:map", compose)))
        if not services:
            return ""
        document = yaml.MappingNode("tag:yaml.org,2002:map", services)
        whole = yaml.MappingNode("tag:yaml.org,2002:map", [(_text("services"), document)])
        return yaml.serialize(whole, Dumper=yaml.SafeDumper)


def _placed(known: Known, table: _Table, base: Mapping[str, str]) -> Placed:
    service = known.service
    if service is None:
        return Placed(known.name, known.origin, False, known.problem, (), ())
    on = table.enabled.get(known.name, service.enabled)
    if known.origin == "core" and not base.keys() & set(service.containers):
        return Placed(known.name, known.origin, False, _ABSENT, (), (), service)
    reason = "" if on else _SWITCHED_OFF if known.name in table.enabled else "off unless cascade.yaml enables it"
    own: Mapping[str, Any] = (service.compose or {}).get("services", {})
    images = [own[name].get("image", "") if name in own else base.get(name, "") for name in service.container_names]
    return Placed(known.name, known.origin, on, reason, service.container_names, tuple(images), service, known.folder)


def _missing_needs(placed: Iterable[Placed]) -> Iterator[str]:
    there = {one.name: one for one in placed}
    for one in there.values():
        for need in one.service.needs if one.enabled and one.service else ():
            # Who took a service out of compose.yaml knows what stands in for it.
            if not there[need].enabled and not (one.origin == "core" and there[need].reason == _ABSENT):
                yield f"`{one.name}` needs `{need}`, which is not enabled: enable `{need}`, or disable `{one.name}`"


def _same_containers(placed: Iterable[Placed], base: Mapping[str, str]) -> Iterator[str]:
    owner = dict.fromkeys(base, "compose.yaml")
    for one in placed:
        for container in one.containers if one.enabled and one.origin not in ("core", "compose.yaml") else ():
            if container in owner:
                yield f"`{one.name}` and `{owner[container]}` both have a container `{container}`: disable one of them"
            owner[container] = one.name


def _base_files(root: Path) -> list[Path]:
    """Return the project's own Compose files, as the client chooses them by itself."""
    if named := (os.environ.get("COMPOSE_FILE") or read_env(root).get("COMPOSE_FILE")):
        return [root / name for name in named.split(os.pathsep)]
    return [root / "compose.yaml", *sorted(root.glob("*compose.override.y*ml"))[:1]]


def _base_images(root: Path) -> dict[str, str]:
    """Return the containers of the project's own Compose files, each with its image; empty for one that is built."""
    found: dict[str, str] = {}
    for path in _base_files(root):
        for name, node in _entries(_entries(_compose_file(path)).get("services")).items():
            found[name] = _image(node) or found.get(name, "")
    return found


def _image(node: yaml.Node) -> str:
    return str(getattr(_entries(node).get("image"), "value", ""))


def _compose_file(path: Path) -> yaml.Node | None:
    if not path.is_file():
        return None
    try:
        found: yaml.Node | None = yaml.compose(path.read_text("utf-8"), Loader=LOADER)
    except (yaml.YAMLError, UnicodeError) as error:
        what = f"{path.name} cannot be read: {error}"
        raise ConfigurationError(what, where=str(path), fix="correct the file at that line.") from error
    return found


def _entries(node: yaml.Node | None) -> dict[str, yaml.Node]:
    """Return what a mapping holds by key; merged keys (`<<`) are for the compose client."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return {str(key.value): value for key, value in pairs if key.tag != "tag:yaml.org,2002:merge"}


def _text(value: str) -> yaml.ScalarNode:
    return yaml.ScalarNode("tag:yaml.org,2002:str", value)
