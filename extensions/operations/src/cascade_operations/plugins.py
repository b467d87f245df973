"""What packages may bring, and what the installed ones do bring: one table, one report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module

from cascade.plugins import PluginRecord, groups, installed, load_all
from cascade.plugins.families import FAMILIES

__all__ = ["GROUPS", "inspect_plugins", "known_groups"]

#: Every group that the runtime and the commands read: what its names are, and where the Protocol is that its objects
#: fit. Most are beside what takes Dagster or Arrow, so each is imported when it is needed.
GROUPS: Mapping[str, tuple[str, str]] = {
    **{group: ("any name", f"{shape.__module__}.{shape.__name__}") for group, shape in FAMILIES.items()},
    "cascade.after_command": ("any name", "cascade_operations.after.AfterCommand"),
    "cascade.after_promotion": ("any name", "cascade.publish.after.AfterPromotion"),
    "cascade.assets": ("any name", "cascade.framework.base.AssetSource"),
    "cascade.checks": ("the check", "types.FunctionType"),
    "cascade.columns": ("any name", "cascade_operations.columns.ColumnSource"),
    "cascade.column_lineage": ("any name", "cascade_operations.columns.LineageSource"),
    "cascade.contracts": ("the library of models", "cascade.ingestion.contract.ContractFactory"),
    "cascade.decorators": ("the name in `from cascade import …`", "types.FunctionType"),
    "cascade.engines": ("the engine", "cascade.engine.base.Engine"),
    "cascade.forms": ("library and class", "cascade.ingestion.forms.RowsForm"),
    "cascade.groups": ("a group of the package's own", "builtins.type"),
    "cascade.marts": ("the kind of database", "cascade.publish.marts.PublishMarts"),
    "cascade.probes": ("any name", "cascade.plugins.ImportProbe"),
    "cascade.reviews": ("any name", "cascade.framework.base.Reviewer"),
    "cascade.schedules": ("any name", "cascade.framework.base.ScheduleFactory"),
    "cascade.settings": ("the plugin", "cascade.config.SettingsModel"),
    "cascade.storages": ("the scheme of a URL", "cascade.framework.base.StorageProvider"),
    "cascade.testing": ("the name in `from cascade.testing import …`", "builtins.type"),
    "cascade.triggers": ("any name", "cascade.framework.base.TriggerFactory"),
}


def known_groups() -> dict[str, tuple[str, type[object]]]:
    """Return every group: those of the runtime, and those that a package reads itself and names in `cascade.groups`."""
    return {
        **{group: (named, _shape(place)) for group, (named, place) in GROUPS.items()},
        **{group: ("as the package says", shape) for group, shape in _own_groups().items()},
    }


def inspect_plugins(*, ours: bool = True) -> list[PluginRecord]:
    """Load everything that installed packages bring, and check it.

    Args:
        ours: Whether what the packages of Cascade's own release bring is loaded, too.

    Returns:
        One record for each, by group and name; `cause` says what is wrong with a broken one.
    """
    known = [*GROUPS, *(record.name for record in installed("cascade.groups"))]
    fix = f"choose one of {', '.join(known)}."
    found = []
    for group in sorted(groups(), key=lambda group: group not in known):
        if (records := installed(group)) and not ours and all(record.is_ours for record in records):
            found += records
        elif group in GROUPS:
            found += load_all(group, _shape(GROUPS[group][1]), ours=ours)
        elif shape := _own_groups().get(group):
            found += load_all(group, shape, ours=ours)
        else:
            strange = {"cause": "there is no such group", "fix": fix}
            found += [replace(record, where=record.value, **strange) for record in records]
    return found


def _own_groups() -> dict[str, type[object]]:
    return {record.name: record.object for record in load_all("cascade.groups", type) if not record.cause}


def _shape(place: str) -> type[object]:
    module, _, name = place.rpartition(".")
    found: type[object] = getattr(import_module(module), name)
    return found
