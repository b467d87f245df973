"""Look at a project without running it: what it defines, and everything that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from cascade.config import Settings
from cascade.errors import CascadeError
from cascade.framework.definitions import build_definitions
from cascade.framework.discovery import broken_files
from cascade.ingestion import TABLE_METADATA, load_plan

__all__ = ["Inspection", "inspect_project"]


@dataclass
class Inspection:
    """What a project defines.

    Attributes:
        problems: Everything that is wrong, in words.
        assets: Keys of all assets.
        checks: Name, asset and whether it blocks, of all checks.
    """

    problems: list[str] = field(default_factory=list)
    assets: list[str] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)


def inspect_project(settings: Settings) -> Inspection:
    """Load a project's definitions, and derive each table's schema from its contract.

    Args:
        settings: The project's settings.
    """
    definitions = build_definitions(settings)
    found = Inspection(problems=broken_files(definitions))
    try:
        graph = definitions.resolve_asset_graph()
        dg.Definitions.validate_loadable(definitions)
    except dg.DagsterError as error:
        found.problems.append(str(error))
        return found
    found.assets = sorted(key.to_user_string() for key in graph.executable_asset_keys)
    for check in sorted(graph.asset_check_keys):
        spec, asset = graph.get_check_spec(check), check.asset_key.to_user_string()
        found.checks.append({"name": check.name, "asset": asset, "blocking": spec.blocking})
        if check.asset_key not in graph.get_all_asset_keys():
            found.problems.append(f"check `{check.name}`: there is no asset {asset}")
    for key in graph.executable_asset_keys:
        if TABLE_METADATA in graph.get(key).metadata:
            try:
                load_plan(key)
            except CascadeError as error:
                found.problems.append(f"{key.to_user_string()}: {error}")
    return found
