"""Find the entry points of a group, load each by itself, and check its shape. A plugin that is broken costs itself."""

from __future__ import annotations

import functools
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cascade.errors import CascadeError, ConfigurationError
from cascade.plugins.shape import problem
from cascade.plugins.source import failing_line, folders, place, top

__all__ = ["ImportProbe", "PluginRecord", "find", "groups", "installed", "load", "load_all", "refused"]

T = TypeVar("T")
_release = functools.cache(lambda: metadata.version("cascade-runtime"))
# What was refused in this process, and why.
_blocked: dict[str, tuple[str, str]] = {}


@dataclass(frozen=True)
class PluginRecord:
    """One thing that an installed package brings, or the reason why it does not.

    Attributes:
        group: The group of the entry point, such as `cascade.engines`.
        name: Its name in the group; `*` when the package's list of entry points cannot be read.
        package: The package and its version, such as `cascade-runtime 0.1.0`.
        value: What it names, `module:object`.
        where: `module`, or `file:line`: where the object is defined, or where loading it failed.
        cause: Why it cannot be used, in one line; empty when it can.
        fix: What to do about it.
        object: What was loaded; `None` before that, and when it is broken.
    """

    group: str
    name: str
    package: str
    value: str
    where: str = ""
    cause: str = ""
    fix: str = ""
    object: Any = field(default=None, repr=False)

    def __str__(self) -> str:
        """The problem in one line."""
        return f"package {self.package}: `{self.name}` of {self.group}: {self.cause} ({self.where}); {self.fix}"

    @property
    def is_ours(self) -> bool:
        """Whether its package belongs to the runtime's own release."""
        name, version = self.package.split(" ", 1)
        return name.startswith("cascade-") and version == _release()

    @property
    def error(self) -> ConfigurationError:
        """The problem as an error."""
        return ConfigurationError(
            f"`{self.name}` of {self.group} cannot be used: {self.cause}",
            where=f"package {self.package}, {self.where}",
            fix=self.fix,
        )


class ImportProbe(Protocol):
    """Group `cascade.probes`, by any name: knows beforehand which imports end, stop or spoil a process."""

    def __call__(self, modules: Mapping[str, Path], project: Path | None) -> Mapping[str, tuple[str, str]]:
        """Return `file:line` and the cause for each module that must not be imported.

        Args:
            modules: Each module with its file; with the folder or file of its top-level package when it is a plugin's.
            project: The folder that all files are in; `None` for plugins.
        """


def groups() -> list[str]:
    """Return every group that begins with `cascade.` and has an entry point, also one that nobody asks for."""
    return sorted(_entries(tuple(sys.path)))


def installed(group: str) -> list[PluginRecord]:
    """Return what installed packages bring for a group, by name; nothing is imported.

    Two packages that bring one name have a cause already, unless one of them is Cascade's own: it keeps its names.
    """
    return list(_entries(tuple(sys.path)).get(group, ()))


def load_all(group: str, shape: type[object], *, ours: bool = True) -> list[PluginRecord]:
    """Load everything that installed packages bring for a group, each by itself.

    Args:
        group: The group of the entry points.
        shape: The Protocol that each object must fit, or the class that it must be an instance of.
        ours: Whether what the runtime's own release brings is loaded, too.

    Returns:
        One record for each, broken ones included, by name.
    """
    return [_loaded(record, shape) if ours or not record.is_ours else record for record in installed(group)]


def find(group: str, name: str, shape: type[T]) -> T | None:
    """Load one thing by its name in a group; `None` when no installed package brings it. `shape` is as in `load_all`.

    Raises:
        ConfigurationError: It cannot be loaded, has another shape, or two packages bring one of that name.
    """
    records = [_loaded(record, shape) for record in installed(group) if record.name == name]
    working = [record for record in records if not record.cause]
    if records and not working:
        raise records[0].error
    found: T | None = working[0].object if working else None
    return found


def load(group: str, name: str, shape: type[T], *, where: str) -> T:
    """Load what somebody asks for by name, as `find` does; `where` is named when no installed package brings it."""
    found = find(group, name, shape)
    if found is None:
        have = ", ".join(f"`{record.name}`" for record in installed(group) if not record.cause) or "none"
        raise ConfigurationError(
            f"No installed package brings `{name}` for {group}; there is {have}.",
            where=where,
            fix=f"correct the name; or add the package that brings `{name}` to pyproject.toml, then `uv sync`. "
            "`cascade plugins list` shows what is installed.",
        )
    return found


def refused(modules: Mapping[str, Path], project: Path | None = None) -> dict[str, tuple[str, str]]:
    """Return what installed probes say; the arguments are as in `ImportProbe`. Python imports no such module then."""
    probes = [record.object for record in load_all("cascade.probes", ImportProbe) if not record.cause]
    found = {name: why for probe in probes for name, why in probe(modules, project).items()}
    sys.modules.update(dict.fromkeys(found))
    _blocked.update(found)
    return found


@functools.cache
def _refused_plugins(_path: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Look at the packages of others, all at once: ours are tried by our tests."""
    others = [record for group in groups() for record in installed(group) if not record.is_ours and record.value]
    places = {record.value.partition(":")[0].strip(): folders(record.value) for record in others}
    # Python no longer tells where a module lies that it must not import.
    before = {name: why for name, why in _blocked.items() if sys.modules.get(name, sys) is None}
    return before | refused({module: at[0] for module, at in places.items() if at})


def _loaded(record: PluginRecord, shape: type[object]) -> PluginRecord:
    """Load one plugin and check its shape."""
    loaded = _imported(record, tuple(sys.path))
    if not loaded.cause and (cause := problem(loaded.object, shape)):
        return replace(loaded, cause=cause, fix=_fix(record), object=None)
    return loaded


@functools.cache
def _imported(record: PluginRecord, _path: tuple[str, ...]) -> PluginRecord:
    """Import one plugin. Kept for a path of modules, so that a broken one is tried once."""
    if record.cause:
        return record
    module = record.value.partition(":")[0].strip()
    if record.group != "cascade.probes" and not record.is_ours and module in (refusals := _refused_plugins(_path)):
        return replace(record, where=refusals[module][0], cause=refusals[module][1], fix=_fix(record))
    try:
        found = metadata.EntryPoint(record.name, record.value, record.group).load()
    except KeyboardInterrupt:
        raise
    # A package may raise anything, SystemExit included; the others must not suffer.
    except BaseException as error:  # noqa: BLE001
        at = failing_line(error, folders(record.value))
        where = f"{at[0]}:{at[1]}" if at and at[0] != Path(__file__) else record.value
        return replace(record, where=where, cause=_says(error), fix=_fix(record, error))
    return replace(record, where=place(found) or record.value, object=found)


def _says(error: BaseException) -> str:
    if isinstance(error, CascadeError):
        return " ".join(f"{error.what.rstrip('.')}; {error.fix}".split())
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}".removesuffix(": ")


def _fix(record: PluginRecord, error: BaseException | None = None) -> str:
    package = record.package.partition(" ")[0]
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] != top(record.value):
        return f"install `{error.name}`, which {package} needs, or uninstall {package}."
    return f"install {package} again or in another version, or uninstall it."


@functools.cache
def _entries(_path: tuple[str, ...]) -> dict[str, list[PluginRecord]]:
    """Read the entry points of all installed packages that belong to Cascade, by group.

    Read package by package: `metadata.entry_points` fails for all when one list cannot be parsed.
    """
    found: dict[tuple[str, str], dict[str, PluginRecord]] = defaultdict(dict)
    seen: set[str] = set()
    for distribution in metadata.distributions():
        text = distribution.read_text("entry_points.txt") or ""
        if "[cascade." not in text:
            continue
        name = distribution.name
        if name in seen:  # the first on the path is the one that is imported
            continue
        seen.add(name)
        for record in _records(f"{name} {distribution.version}", distribution, text):
            found[record.group, record.name].setdefault(name, record)
    groups: dict[str, list[PluginRecord]] = defaultdict(list)
    for (group, _), packages in sorted(found.items()):
        groups[group] += _told_apart(packages)
    return dict(groups)


def _records(package: str, distribution: metadata.Distribution, text: str) -> Iterator[PluginRecord]:
    try:
        for entry in distribution.entry_points:
            if entry.group.startswith("cascade."):
                yield PluginRecord(entry.group, entry.name, package, entry.value)
    except Exception as error:  # noqa: BLE001  # whatever the parser says of a file that is none
        cause = f"entry_points.txt cannot be read: {_says(error)}"
        for group in sorted(set(re.findall(r"^\[(cascade\.[\w.]+)\]", text, re.MULTILINE))):
            record = PluginRecord(group, "*", package, "", "entry_points.txt", cause)
            yield replace(record, fix=_fix(record))


def _told_apart(packages: dict[str, PluginRecord]) -> Iterator[PluginRecord]:
    """Give each of several packages that bring one name the cause; a package of Cascade keeps its names."""
    ours = [package for package, record in packages.items() if record.is_ours]
    for package, record in sorted(packages.items()):
        others = " and ".join(sorted(packages.keys() - {package}))
        if not others or ours == [package] or record.name == "*":
            yield record
        else:
            fix = f"uninstall {package}, or {'let its author choose another name' if ours else others}."
            yield replace(record, where=record.value, cause=f"{others} brings one of this name, too", fix=fix)
