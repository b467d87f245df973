"""What packages may bring, and what the installed ones do bring: one table, one report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import FunctionType

from cascade.config import SettingsModel
from cascade.engine.base import Engine
from cascade.framework.base import AssetSource, ScheduleFactory, StorageProvider, TriggerFactory
from cascade.ingestion.contract import ContractFactory
from cascade.ingestion.forms import FORMS, RowsForm
from cascade.plugins import ImportProbe, PluginRecord, groups, installed, load_all
from cascade.plugins.families import FAMILIES
from cascade.publish.after import AfterPromotion
from cascade.publish.marts import PublishMarts
from cascade.quality import CHECKS
from cascade_operations.after import AfterCommand
from cascade_operations.columns import ColumnSource

__all__ = ["GROUPS", "inspect_plugins", "known_groups"]

#: Every group that the runtime and the commands read: what its names are, and the Protocol that its objects fit.
GROUPS: Mapping[str, tuple[str, type[object]]] = {
    **{group: ("any name", shape) for group, shape in FAMILIES.items()},
    "cascade.after_command": ("any name", AfterCommand),
    "cascade.after_promotion": ("any name", AfterPromotion),
    "cascade.assets": ("any name", AssetSource),
    CHECKS: ("the check", FunctionType),
    "cascade.columns": ("any name", ColumnSource),
    "cascade.contracts": ("the library of models", ContractFactory),
    "cascade.decorators": ("the name in `from cascade import …`", FunctionType),
    "cascade.engines": ("the engine", Engine),
    FORMS: ("library and class", RowsForm),
    "cascade.groups": ("a group of the package's own", type),
    "cascade.marts": ("the kind of database", PublishMarts),
    "cascade.probes": ("any name", ImportProbe),
    "cascade.schedules": ("any name", ScheduleFactory),
    "cascade.settings": ("the plugin", SettingsModel),
    "cascade.storages": ("the scheme of a URL", StorageProvider),
    "cascade.triggers": ("any name", TriggerFactory),
    "cascade.testing": ("the name in `from cascade.testing import …`", type),
}


def known_groups() -> dict[str, tuple[str, type[object]]]:
    """Return every group: those of the runtime, and those that a package reads itself and names in `cascade.groups`."""
    own = {record.name: record.object for record in load_all("cascade.groups", type) if not record.cause}
    return {**GROUPS, **{group: ("as the package says", shape) for group, shape in own.items()}}


def inspect_plugins() -> list[PluginRecord]:
    """Load everything that installed packages bring, and check it.

    Returns:
        One record for each, by group and name; `cause` says what is wrong with a broken one.
    """
    known = known_groups()
    fix = f"choose one of {', '.join(known)}."
    strangers = [
        replace(record, where=record.value, cause="there is no such group", fix=fix)
        for group in groups()
        if group not in known
        for record in installed(group)
    ]
    return [record for group, (_, shape) in known.items() for record in load_all(group, shape)] + strangers
