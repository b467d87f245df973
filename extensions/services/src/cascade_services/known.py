"""Which services there are: those of compose.yaml, and those that packages bring. A broken one costs itself."""

from __future__ import annotations

import graphlib
import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from cascade.errors import CascadeError
from cascade.plugins import ServicePlugin
from cascade.plugins.registry import PluginRecord, load_all
from cascade_services.schema import Service, read_service

__all__ = ["LOADER", "Known", "core_services", "find_services"]

#: Ten times as fast as `SafeLoader`, where the wheel has it.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = Path(__file__).with_name("core")


@dataclass(frozen=True)
class Known:
    """A service that is installed.

    Attributes:
        name: Its name.
        origin: `core`, or the package that brings it with its version.
        service: What it says of itself; `None` when it is broken.
        folder: The folder of its `service.yaml`.
        problem: Why it cannot be used, with the place; empty when it can.
    """

    name: str
    origin: str
    service: Service | None = None
    folder: Path | None = None
    problem: str = ""


def core_services() -> dict[str, Service]:
    """Return the services of compose.yaml by name."""
    files = sorted(_CORE.glob("*.yaml"))
    said = {file: yaml.load(file.read_text("utf-8"), Loader=LOADER) for file in files}  # a safe one
    return {file.stem: read_service(its, where=str(file)) for file, its in said.items()}


def find_services() -> dict[str, Known]:
    """Return every service that is installed, broken ones with their problem, by name; those of compose.yaml first."""
    found = {name: Known(name, "core", service, _CORE) for name, service in core_services().items()}
    for record in load_all("cascade.plugins.services", ServicePlugin):
        known = _of_package(record)
        if known.name in found:  # two packages of one name are broken both; the first problem says so
            if found[known.name].origin != "core":
                continue
            known = Known(
                f"{known.name} of {known.origin}", known.origin, problem="a service of compose.yaml has this name"
            )
        found[known.name] = known
    return _with_needs_checked(found)


def _of_package(record: PluginRecord) -> Known:
    if record.cause:
        return Known(record.name, record.package, problem=str(record))
    folder = Path(inspect.getfile(record.object)).parent
    try:
        service = read_service(record.object().definition(), where=str(folder / "service.yaml"))
    except CascadeError as error:
        return Known(record.name, record.package, problem=" ".join(f"{error.what} ({error.where})".split()))
    # `definition` is the package's: it may raise anything, and the others must not suffer.
    except Exception as error:  # noqa: BLE001
        return Known(
            record.name, record.package, problem=f"{' '.join(f'{type(error).__name__}: {error}'.split())} ({folder})"
        )
    if service.name != record.name:
        text = f"`name`: it is {service.name}, but its entry point is {record.name} ({folder / 'service.yaml'})"
        return Known(record.name, record.package, problem=text)
    return Known(record.name, record.package, service, folder)


def _with_needs_checked(found: dict[str, Known]) -> dict[str, Known]:
    """Take out services whose needs are unknown, broken, or need themselves in a circle."""
    while True:
        good = {name: known.service.needs for name, known in found.items() if known.service}
        bad = {
            n: f"it needs {', '.join(gone)}, which is not there"
            for n, needs in good.items()
            if (gone := [x for x in needs if x not in good])
        }
        if not bad:
            try:
                graphlib.TopologicalSorter(good).prepare()
            except graphlib.CycleError as error:
                circle = " → ".join(error.args[1])
                bad = dict.fromkeys(error.args[1], f"`needs`: these need each other in a circle: {circle}")
        if not bad:
            return found
        found |= {name: replace(found[name], service=None, problem=text) for name, text in bad.items()}
