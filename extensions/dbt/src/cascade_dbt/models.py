"""What the runtime asks of this package, a `cascade.framework.base.AssetSource`: models, and which of them may wait."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Set
from typing import TYPE_CHECKING

from cascade.config import Settings
from cascade.lakehouse import Lakehouse
from cascade_dbt.project import parse_project, start_parsing

if TYPE_CHECKING:
    import dagster as dg

    from cascade.framework.base import Unchanged

__all__ = ["start", "unchanged"]


@contextlib.contextmanager
def start(settings: Settings) -> Iterator[Callable[[], list[dg.AssetsDefinition]]]:
    """Let dbt parse its project in a process beside this one.

    Args:
        settings: The project's settings.

    Yields:
        A function that waits for dbt and returns the assets of all models, seeds, tests and exposures; none when there
        is no dbt project. It raises TransformError when dbt cannot parse the project, or when it holds what cannot be
        built.
    """
    with start_parsing(settings) as manifest:

        def assets() -> list[dg.AssetsDefinition]:
            parsed = manifest()
            if parsed is None:
                return []
            # dagster-dbt imports all of dbt, three seconds that a project without models need not pay.
            from cascade_dbt.assets import build_dbt_assets, build_exposures

            return [made for made in (build_dbt_assets(settings, parsed), build_exposures(settings, parsed)) if made]

        yield assets


def unchanged(lakehouse: Lakehouse, asked: Set[dg.AssetKey], computed: Set[dg.AssetKey]) -> Unchanged:
    """Say which models and seeds are as dbt would make them; see `cascade_dbt.unchanged`.

    Args:
        lakehouse: What the run begins with.
        asked: Assets that a run shall materialize; those that are no models are passed over.
        computed: Assets that it materializes in any case.
    """
    import dagster as dg

    from cascade.framework.base import Unchanged
    from cascade_dbt.unchanged import judge, read_recipes

    manifest = parse_project(lakehouse.settings)
    if manifest is None:
        return Unchanged()
    recipes = read_recipes(lakehouse.settings, json.loads(manifest.read_text("utf-8")))
    tables = {".".join(key.path) for key in asked}
    # What is no model is computed, whatever it reads.
    others = {".".join(key.path) for key in computed} | (tables - recipes.keys())
    found = judge(recipes, lakehouse.catalog, tables & recipes.keys(), others, ref=lakehouse.ref)
    always = {name: recipe.always for name, recipe in recipes.items() if recipe.always and name in tables}
    return Unchanged(
        since={dg.AssetKey(name.split(".")): since for name, since in found.same.items()},
        always={dg.AssetKey(name.split(".")): why for name, why in always.items()},
        changed={dg.AssetKey(name.split(".")): reasons for name, reasons in found.changed.items()},
    )
