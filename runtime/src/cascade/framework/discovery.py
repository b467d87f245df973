"""Find the definitions below `workflows/`. A bad definition or a bad file is left out; the rest loads."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg

from cascade._dagster import (
    ComponentTree,
    ComponentTreeException,
    UnresolvedAssetJobDefinition,
    UnresolvedPartitionedAssetScheduleDefinition,
    disable_dagster_warnings,
    replace_record,
)
from cascade.errors import CascadeError, DefinitionError
from cascade.ingestion.partitions import refusal
from cascade.plugins import refused
from cascade.plugins.source import failing_line

__all__ = ["Found", "Item", "collect", "discover", "says"]

# What a module may define, and the argument of `Definitions` that takes it. Kinds that others need come first.
_KINDS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("resources", (dg.ResourceDefinition, dg.ConfigurableResource)),
    ("asset_checks", (dg.AssetChecksDefinition,)),
    ("assets", (dg.AssetsDefinition, dg.AssetSpec, dg.SourceAsset)),
    ("definitions", (dg.Definitions,)),
    ("jobs", (dg.JobDefinition, UnresolvedAssetJobDefinition)),
    ("schedules", (dg.ScheduleDefinition, UnresolvedPartitionedAssetScheduleDefinition)),
    ("sensors", (dg.SensorDefinition,)),
)
# Files that make a folder a component of Dagster; of two in one folder the last one counts.
_COMPONENTS = ("component.py", "component.yaml", "defs.yml", "defs.yaml")
# Folders of projects that were made importable.
_opened: list[str] = []


@dataclass(frozen=True, eq=False)
class Item:
    """One object that a file or a package defines.

    Attributes:
        origin: The file or package.
        kind: The argument of `Definitions` that takes it, or `definitions`.
        name: The variable that holds it.
        value: The object.
    """

    origin: str
    kind: str
    name: str
    value: Any

    @property
    def title(self) -> str:
        """File and name, for messages."""
        many = isinstance(self.value, dg.AssetsDefinition) and len(list(self.value.keys)) > 1
        return f"{self.origin}: {next(iter(() if many else _names(self)), f'`{self.name}`')}"

    @property
    def order(self) -> int:
        """Its position when items are loaded: kinds that others need come first."""
        return [kind for kind, _ in _KINDS].index(self.kind)

    @property
    def guards(self) -> bool:
        """Whether it may contain checks, which a promotion must know."""
        return self.kind not in ("jobs", "schedules", "sensors")


@dataclass
class Found:
    """What the files define.

    Attributes:
        items: The objects, each once.
        broken: Files and assets that cannot be loaded: where and why.
    """

    items: list[Item] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def discover(path: Path) -> Found:
    """Import every file below a folder and find what it defines for Dagster; load its components as Dagster does.

    Assets, asset checks, jobs, schedules, sensors and `Definitions` are found by type, resources too: their
    key is the name of the variable.

    Args:
        path: The folder, such as `<project>/workflows`; its parent becomes importable.
    """
    root = path.parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
        _opened.append(str(root))
    _forget_other_projects(path)
    found = Found()
    folders = {file.parent: file for kind in _COMPONENTS for file in path.rglob(kind)}
    components = {_module(at, root): file for at, file in folders.items() if not folders.keys() & at.parents}
    files: dict[str, Path] = {}
    for file in sorted(path.rglob("*.py")):
        hidden = file.name.startswith("_") and file.name != "__init__.py"
        if not hidden and "__pycache__" not in file.parts and not folders.keys() & file.parents:
            files[_module(file, root)] = file
    left_out = refused(files, root)
    found.broken += [f"{where}: {cause}" for where, cause in left_out.values()]
    owners: dict[str, str] = {}
    seen: set[int] = set()
    for name, file in (files | components).items():
        if name in left_out:
            continue
        try:
            module = importlib.import_module(name)
            defined = {name: _component(module, root)} if name in components else vars(module)
            _take(defined, str(file.relative_to(root)), found, owners, seen)
        except KeyboardInterrupt:
            raise
        # A workflow may raise anything, SystemExit included; the other files still load.
        except BaseException as error:  # noqa: BLE001
            found.broken.append(_explain(error, file, root))
    return found


def collect(items: Sequence[Item], owners: Sequence[str] = ()) -> dg.Definitions:
    """Return one `Definitions` of all items. Plain assets of Dagster that name no owner get `owners`."""
    kinds: dict[str, Any] = {kind: [item.value for item in items if item.kind == kind] for kind, _ in _KINDS}
    kinds["resources"] = {item.name: item.value for item in items if item.kind == "resources"}
    whole = kinds.pop("definitions")
    kinds["assets"] = [_described(each, owners) for each in kinds["assets"]]
    return dg.Definitions.merge(dg.Definitions(**kinds), *whole)


def _described(asset: Any, owners: Sequence[str]) -> Any:
    """Say whose a plain asset of Dagster is, and where its code lies, as our own do."""
    plain = isinstance(asset, dg.AssetsDefinition) and asset.is_executable
    if not plain or "dagster/code_references" in str(asset.metadata_by_key):
        return asset
    with disable_dagster_warnings():
        found: Any = dg.with_source_code_references([asset])[0]
    return found.map_asset_specs(lambda spec: spec if spec.owners else spec.replace_attributes(owners=list(owners)))


def says(error: BaseException) -> str:
    """Return an error and its causes in one line, the innermost last, with the fix if it is known."""
    text = re.sub(r"AssetKey\(\['(.*?)'\]\)", lambda key: key[1].replace("', '", "/"), " ".join(str(error).split()))
    if isinstance(error, CascadeError):
        where, fix = (f" ({error.where})" if error.where else ""), (f"; {error.fix}" if error.fix else "")
        text = " ".join(f"{error.what.rstrip('.')}{where}{fix}".split())
    elif not isinstance(error, dg.DagsterError):
        text = f"{type(error).__name__}: {text}"
    elif error.__cause__ is not None:
        cause = says(error.__cause__)
        text = cause if cause in text else f"{text}; {cause}"
    return text


def _module(place: Path, root: Path) -> str:
    return ".".join(place.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _component(folder: ModuleType, root: Path) -> dg.Definitions:
    """Load a component as Dagster does: its Python files are its own, and may be scripts that only a run executes."""
    try:
        with disable_dagster_warnings():
            loaded = ComponentTree.from_module(folder, root).build_defs()
    except ComponentTreeException as error:  # it says where in the tree, and not what
        raise error.__cause__ or error from None
    return replace_record(loaded, component_tree=None)  # Dagster merges no two that have one


def _take(defined: Mapping[str, Any], origin: str, found: Found, owners: dict[str, str], seen: set[int]) -> None:
    """Add the objects that a file defines and no earlier one defined."""
    new: dict[int, Item] = {}
    for name, value in defined.items():
        # Some definitions of Dagster are named tuples: one object, not a list.
        listed = isinstance(value, list | tuple) and not hasattr(value, "_fields")
        for each in value if listed else [value]:
            kind = next((kind for kind, types in _KINDS if isinstance(each, types)), None)
            if kind is not None and id(each) not in seen:
                new.setdefault(id(each), Item(origin, kind, name, each))
    # A file that defines a name of an earlier file is left out as a whole.
    owned = {name: origin for item in new.values() for name in _names(item)}
    if clash := [name for name in owned if name in owners]:
        what = "; ".join(f"{name} is already defined in {owners[name]}" for name in clash)
        raise DefinitionError(what, fix="rename one of them.")
    owners |= owned
    seen.update(new)
    for item in new.values():
        problems = list(_unfilled(item))
        found.broken += [f"{origin}: {problem}" for problem in problems]
        if not problems:
            found.items.append(item)


def _names(item: Item) -> Iterable[str]:
    """Return the names that must be unique in a project."""
    if item.kind == "resources":
        yield f"resource {item.name}"
    if isinstance(item.value, dg.AssetsDefinition):
        if item.kind == "assets":
            yield from (f"asset {key.to_user_string()}" for key in item.value.keys)
        yield from (f"check {key.name} of {key.asset_key.to_user_string()}" for key in item.value.check_keys)
    if item.kind in ("jobs", "schedules", "sensors"):
        yield f"{item.kind[:-1]} {item.value.name}"


def _unfilled(item: Item) -> Iterator[str]:
    """Return a problem for each asset whose partitions a run cannot fill."""
    values = item.value.assets or () if item.kind == "definitions" else [item.value]
    for asset in values:
        for spec in asset.specs if isinstance(asset, dg.AssetsDefinition) and asset.is_executable else ():
            if problem := refusal(spec.partitions_def):
                yield f"asset {spec.key.to_user_string()}: {problem}"


def _forget_other_projects(path: Path) -> None:
    """Forget imported modules of the same name from elsewhere: one process may open two projects."""
    # A package of another project would win over ours, where ours is a folder without `__init__.py`.
    sys.path[:] = [entry for entry in sys.path if entry == str(path.parent) or entry not in _opened]
    for name in sorted(sys.modules, reverse=True):  # inner ones first: they ask the outer one where they are
        if name.partition(".")[0] == path.name:
            module = sys.modules[name]
            origin = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), "")
            if not str(origin).startswith(str(path)):
                del sys.modules[name]


def _explain(error: BaseException, file: Path, root: Path) -> str:
    """Return `file:line: cause`; the line is the innermost one in a file of the project."""
    where, line = failing_line(error, [root]) or (file, 0)
    shown = where.relative_to(root) if where.is_relative_to(root) else where
    own = "" if where == file else f" (imported by {file.relative_to(root)})"
    place = f"{shown}:{line}" if line else shown
    if isinstance(error, ModuleNotFoundError) and error.name in sys.modules:  # `refused` put it there
        return f"{place}{own}: it imports {error.name}, which is left out"
    return f"{place}{own}: {says(error)}"
