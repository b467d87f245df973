"""What dbt needs to know of an engine: one object for each, found by the value of the setting `engine`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cascade.config import Settings
from cascade.plugins import load

if TYPE_CHECKING:
    from cascade.catalog import BranchingCatalog

__all__ = ["EMBEDDED", "TABLES", "DbtTarget", "namespaces_of", "target_of"]

#: What dbt makes tables of, by its types of resources.
TABLES = ("model", "seed", "snapshot")


class DbtTarget(Protocol):
    """Group `cascade.dbt_targets`, by the value of the setting `engine`: how dbt writes on that engine.

    Attributes:
        macros: Folders of `.sql` files that the engine adds to the macros of `cascade_dbt`.
        keeps_tables: Whether tables that a hook writes beside the lakehouse outlive dbt's process. Without it, asking
            for them is an error.
    """

    macros: Sequence[Path]
    keeps_tables: bool

    def target(self, settings: Settings) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the target of dbt's profile, and the environment variables that it reads, secrets among them.

        Nothing in it changes from run to run: dbt would parse all files again.

        Args:
            settings: The project's settings.
        """

    def prepare(self, catalog: BranchingCatalog, branch: str, namespaces: Iterable[str]) -> dict[str, str]:
        """Prepare the engine for a branch, and return the environment variables that the run's dbt process needs.

        Args:
            catalog: The catalog.
            branch: The branch, which exists.
            namespaces: What dbt will write to.

        Raises:
            QueryError: The engine cannot show the branch.
            ServiceError: The engine is a server that cannot be used.
        """


def target_of(settings: Settings) -> DbtTarget:
    """Return the target for the engine that is set.

    Args:
        settings: The project's settings.

    Raises:
        ConfigurationError: No installed package has one for this engine.
    """
    return load("cascade.dbt_targets", settings.engine, DbtTarget, where="setting `engine`")


def namespaces_of(manifest: Mapping[str, Any], *, failures: bool = False) -> set[str]:
    """Return the namespaces that dbt may write to.

    Args:
        manifest: dbt's manifest.
        failures: Whether every test keeps the rows that fail, not only those that say so.
    """
    found = set()
    for node in manifest["nodes"].values():
        kept = node["resource_type"] == "test" and (failures or node.get("config", {}).get("store_failures"))
        if kept or node["resource_type"] in TABLES:
            found.add(node["schema"])
    return found


class _Embedded:
    """DuckDB in memory; our plugin in it writes models as Iceberg tables, and finds the branch by itself."""

    macros: Sequence[Path] = ()
    keeps_tables = False

    def target(self, settings: Settings) -> tuple[dict[str, Any], dict[str, str]]:
        target = {
            "type": "duckdb",
            "path": ":memory:",
            "attach": [{"path": ":memory:", "alias": "iceberg"}],
            "database": "iceberg",
            "schema": "main",
            "threads": 2,
            "settings": {"TimeZone": "UTC"},
            "plugins": [{"module": "cascade_dbt.duckdb_plugin", "alias": "cascade"}],
        }
        return target, {}

    def prepare(self, catalog: BranchingCatalog, branch: str, namespaces: Iterable[str]) -> dict[str, str]:
        return {}


#: What the entry point names.
EMBEDDED: DbtTarget = _Embedded()
