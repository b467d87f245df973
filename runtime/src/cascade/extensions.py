"""What installed packages add to the runtime, found by entry points. Ours are in `extensions/` of the repository."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from cascade.errors import ConfigurationError

__all__ = ["extension_names", "find_extension", "load_extension"]


def find_extension(group: str, name: str) -> Any:
    """Load what a package brings; `None` when none is installed that does.

    | group | name | what it is |
    |---|---|---|
    | `cascade.catalogs` | an engine | subclass of `cascade.catalog.BranchingCatalog`, made from `Settings` |
    | `cascade.engines` | an engine | module: what `cascade.engine.embedded` has, `dbt_target(settings)`, `DBT_MACROS` |
    | `cascade.portability` | an engine | module with `check_project` and `check_statement`: its SQL beside DuckDB's |
    | `cascade.databases` | URL scheme | subclass of `cascade.catalog.database.Database`, made from a secret URL |
    | `cascade.marts` | URL scheme | function that publishes: see `cascade.publish.marts` |
    | `cascade.storages` | URL scheme | Dagster storage with `open(url)` |
    | `cascade.schedules` | any | function of `Settings` that returns a `dagster.ScheduleDefinition` with a job |

    Args:
        group: Of the entry points.
        name: Of the entry point in its group.

    Raises:
        ConfigurationError: It cannot be loaded, or two packages bring one of that name.
    """
    entries = {entry.dist.name if entry.dist else "?": entry for entry in metadata.entry_points(group=group, name=name)}
    if not entries:
        return None
    packages = " and ".join(sorted(entries))
    if len(entries) > 1:
        raise ConfigurationError(
            f"`{name}` of {group} is brought by {packages}.", where="installed packages", fix="uninstall one of them."
        )
    try:
        return entries[packages].load()
    except Exception as error:
        raise ConfigurationError(
            f"`{name}` of {group} cannot be loaded: {type(error).__name__}: {error}",
            where=f"package {packages}, {entries[packages].value}",
            fix=f"install another version of {packages}, or uninstall it.",
        ) from error


def extension_names(group: str) -> list[str]:
    """Return what installed packages bring for a group, by name."""
    return sorted(metadata.entry_points(group=group).names)


def load_extension(group: str, name: str, setting: str) -> Any:
    """Load what a package brings; arguments as for `find_extension`.

    Args:
        group: Of the entry points.
        name: Of the entry point in its group.
        setting: The setting that asks for it, for the message.

    Raises:
        ConfigurationError: No installed package brings it.
    """
    found = find_extension(group, name)
    if found is None:
        raise ConfigurationError(
            f"No installed package brings `{name}` for {group}.",
            where=f"setting `{setting}`",
            fix="add cascade-servers to the dependencies in pyproject.toml, from where cascade-runtime comes "
            f"and of its version, then `uv sync`; or change `{setting}`.",
        )
    return found
