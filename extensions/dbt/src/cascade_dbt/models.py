"""What the definitions ask of this package: the assets of the dbt project, parsed while workflows are imported."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from cascade.config import Settings
from cascade_dbt.project import start_parsing

if TYPE_CHECKING:
    import dagster as dg

__all__ = ["start_models"]


@contextlib.contextmanager
def start_models(settings: Settings) -> Iterator[Callable[[], list[dg.AssetsDefinition]]]:
    """Let dbt parse its project in a process beside this one.

    Args:
        settings: The project's settings.

    Yields:
        A function that waits for dbt and returns the assets of all models, seeds and tests; none when there is no dbt
        project. It raises TransformError when dbt cannot parse the project, or when it holds what cannot be built.
    """
    with start_parsing(settings) as manifest:

        def assets() -> list[dg.AssetsDefinition]:
            parsed = manifest()
            if parsed is None:
                return []
            # dagster-dbt imports all of dbt, three seconds that a project without models need not pay.
            from cascade_dbt.assets import build_dbt_assets

            made = build_dbt_assets(settings, parsed)
            return [made] if made else []

        yield assets
