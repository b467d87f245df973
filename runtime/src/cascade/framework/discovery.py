"""Find what users define below `workflows/`; a broken file costs itself, never the rest."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import dagster as dg
from dagster._core.definitions.partitions.partitioned_schedule import UnresolvedPartitionedAssetScheduleDefinition
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

__all__ = ["BROKEN_METADATA", "broken_files", "discover_user_workflows"]

#: Metadata of the discovered definitions: the files that could not be loaded.
BROKEN_METADATA = "cascade/broken_workflows"

# What a module may define, and the argument of `Definitions` that takes it.
_KINDS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("asset_checks", (dg.AssetChecksDefinition,)),
    ("assets", (dg.AssetsDefinition, dg.AssetSpec, dg.SourceAsset)),
    ("jobs", (dg.JobDefinition, UnresolvedAssetJobDefinition)),
    ("schedules", (dg.ScheduleDefinition, UnresolvedPartitionedAssetScheduleDefinition)),
    ("sensors", (dg.SensorDefinition,)),
    ("resources", (dg.ResourceDefinition, dg.ConfigurableResource)),
    ("definitions", (dg.Definitions,)),
)


@dataclass
class _Found:
    """What all healthy files define, each object once."""

    kinds: dict[str, Any] = field(default_factory=lambda: {kind: [] for kind, _ in _KINDS} | {"resources": {}})
    owners: dict[str, Path] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)


def discover_user_workflows(path: Path) -> dg.Definitions:
    """Import every file below a folder and collect what it defines for Dagster.

    Assets, asset checks, jobs, schedules, sensors and `Definitions` are found by type, resources too: their
    key is the name of the variable.

    Args:
        path: The folder, such as `<project>/workflows`; its parent becomes importable.

    Returns:
        The definitions of all files that load. `broken_files` tells of those that do not.
    """
    root = path.parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    _forget_other_projects(path)
    found = _Found()
    broken: list[str] = []
    for file in sorted(path.rglob("*.py")) if path.is_dir() else ():
        relative = file.relative_to(root)
        if "__pycache__" in relative.parts or (file.name.startswith("_") and file.name != "__init__.py"):
            continue
        try:
            name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            _collect(importlib.import_module(name), file, found)
        except KeyboardInterrupt:
            raise
        # A workflow may raise anything, SystemExit included; the other files must not suffer.
        except BaseException as error:  # noqa: BLE001
            broken.append(_explain(error, file, root))
    definitions = found.kinds.pop("definitions")
    own = dg.Definitions(**found.kinds, metadata={BROKEN_METADATA: dg.MetadataValue.json(broken)})
    return dg.Definitions.merge(own, *definitions)


def broken_files(definitions: dg.Definitions) -> list[str]:
    """Return the files that `discover_user_workflows` could not load: file, line and cause of each."""
    value = (definitions.metadata or {}).get(BROKEN_METADATA)
    return [str(file) for file in cast("list[str]", value.value)] if value is not None else []


def _collect(module: ModuleType, file: Path, found: _Found) -> None:
    new: list[tuple[str, str, Any]] = []
    for name, value in vars(module).items():
        # Some definitions of Dagster are named tuples, and no lists.
        listed = isinstance(value, list | tuple) and not hasattr(value, "_fields")
        for item in value if listed else [value]:
            kind = next((kind for kind, types in _KINDS if isinstance(item, types)), None)
            if kind is not None and id(item) not in found.seen:
                new.append((name, kind, item))
    # Whole files count: one that contradicts an earlier one is left out with all it defines.
    owned = {key: file for name, kind, item in new for key in _names(name, kind, item)}
    if clash := [key for key in owned if key in found.owners]:
        raise ValueError("; ".join(f"{key} is defined already in {found.owners[key].name}" for key in clash))
    for name, kind, item in new:
        found.seen.add(id(item))
        if kind == "resources":
            found.kinds[kind][name] = item
        else:
            found.kinds[kind].append(item)
    found.owners |= owned


def _names(variable: str, kind: str, item: Any) -> Iterable[str]:
    """Return by what names Dagster tells an object from others."""
    if kind == "resources":
        yield f"resource {variable}"
    if isinstance(item, dg.AssetsDefinition) and kind == "assets":
        yield from (f"asset {key.to_user_string()}" for key in item.keys)
    if isinstance(item, dg.AssetsDefinition):
        yield from (f"check {key.name} of {key.asset_key.to_user_string()}" for key in item.check_keys)
    if kind in ("jobs", "schedules", "sensors"):
        yield f"{kind[:-1]} {item.name}"


def _forget_other_projects(path: Path) -> None:
    """Drop imported modules of the same name that lie elsewhere, as when one process opens two projects."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == path.name:
            origin = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), "")
            if not str(origin).startswith(str(path)):
                del sys.modules[name]


def _explain(error: BaseException, file: Path, root: Path) -> str:
    """Return `file:line: cause`, the line being the innermost one in a file of the project."""
    where, line = file, 0
    if isinstance(error, SyntaxError) and error.filename:
        where, line = Path(error.filename), error.lineno or 0
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            frame_file = Path(frame.filename)
            if frame_file.is_relative_to(root) and "site-packages" not in frame_file.parts:
                where, line = frame_file, frame.lineno or 0
    shown = where.relative_to(root) if where.is_relative_to(root) else where
    own = "" if where == file else f" (imported by {file.relative_to(root)})"
    cause = str(error) if type(error).__module__.startswith("cascade.") else f"{type(error).__name__}: {error}"
    return f"{shown}:{line}{own}: {cause}"
