"""What packages may bring, and what the installed ones do bring: one table, one report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cascade.catalog.base import CatalogFactory
from cascade.catalog.database import DatabaseFactory
from cascade.engine.base import Engine
from cascade.framework.base import AssetSource, ScheduleFactory, StorageProvider
from cascade.plugins import PluginRecord, groups, installed, load_all
from cascade.plugins.base import FAMILIES, Command
from cascade.publish.marts import PublishMarts

__all__ = ["GROUPS", "inspect_plugins"]

#: Every group of entry points: what its names are, and the Protocol that each of its objects fits.
GROUPS: Mapping[str, tuple[str, type[object]]] = {
    **{group: ("any name", shape) for group, shape in FAMILIES.items()},
    "cascade.assets": ("any name", AssetSource),
    "cascade.catalogs": ("the engine", CatalogFactory),
    "cascade.commands": ("the command", Command),
    "cascade.databases": ("the scheme of a URL", DatabaseFactory),
    "cascade.engines": ("the engine", Engine),
    "cascade.marts": ("the scheme of a URL", PublishMarts),
    "cascade.schedules": ("any name", ScheduleFactory),
    "cascade.storages": ("the scheme of a URL", StorageProvider),
}


def inspect_plugins() -> list[PluginRecord]:
    """Load everything that installed packages bring, and check it.

    Returns:
        One record for each, by group and name; `cause` says what is wrong with a broken one.
    """
    fix = f"choose one of {', '.join(GROUPS)}."
    strangers = [
        replace(record, where=record.value, cause="there is no such group", fix=fix)
        for group in groups()
        if group not in GROUPS
        for record in installed(group)
    ]
    return [record for group, (_, shape) in GROUPS.items() for record in load_all(group, shape)] + strangers
