"""What an engine is: it opens the catalog, and runs SQL on the branches of it. All are found in the same way."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from cascade.catalog import BranchingCatalog, CatalogOpener
from cascade.config import EngineRules, Settings
from cascade.plugins import load

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Engine", "engine_of"]


class Engine(EngineRules, CatalogOpener, Protocol):
    """Group `cascade.engines`, by the value of the setting `engine`: an object that opens the catalog and runs SQL.

    Its module is imported whenever settings are read: it imports Dagster, PyIceberg and clients of servers late.

    Attributes:
        name: The value of the setting.
        label: What people call it, such as `DuckDB`.
    """

    name: str
    label: str

    def query(
        self,
        catalog: BranchingCatalog,
        ref: str,
        sql: str,
        at: int | dt.datetime | None,
        parameters: list[object] | None,
    ) -> pa.Table:
        """Run one SELECT; see `cascade.engine.query`."""

    def regexp_match(self, column: str, pattern: str) -> str:
        """Return SQL that says whether a regular expression matches somewhere in a text.

        Args:
            column: SQL of the text.
            pattern: SQL of the expression.
        """

    def await_ready(self, settings: Settings, tell: Callable[[str], None]) -> None:
        """Wait until the engine can be used, before work begins that would be lost without it.

        Args:
            settings: The project's settings.
            tell: Told what is waited for.

        Raises:
            ServiceError: It is a server that cannot be used.
        """

    def forget(self, catalog: BranchingCatalog, ref: str) -> None:
        """Drop what the engine keeps for a branch or tag that was deleted; never raises when it cannot be reached."""

    def drop_leftovers(self, catalog: BranchingCatalog) -> list[str]:
        """Drop what the engine still keeps for branches and tags that were deleted.

        Returns:
            What was dropped, by the engine's names.

        Raises:
            ServiceError: It is a server that cannot be used.
        """
        return []


def engine_of(settings: Settings) -> Engine:
    """Return the engine that is set.

    Args:
        settings: The project's settings.

    Raises:
        ConfigurationError: The package that brings it is broken.
    """
    return load("cascade.engines", settings.engine, Engine, where="setting `engine`")
