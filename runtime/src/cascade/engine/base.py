"""What an engine is: SQL on the branches of a catalog."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cascade.catalog import BranchingCatalog
from cascade.config import Settings

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Engine"]


class Engine(Protocol):
    """Group `cascade.engines`, by the name that the setting `engine` has: runs SQL on branches."""

    DBT_MACROS: Path

    def query(
        self,
        catalog: BranchingCatalog,
        ref: str,
        sql: str,
        at: int | dt.datetime | None,
        parameters: list[object] | None,
    ) -> pa.Table:
        """Run one SELECT; see `cascade.engine.query`."""

    def environment(self, catalog: BranchingCatalog, ref: str, namespaces: Iterable[str]) -> dict[str, str]:
        """Make a branch ready for dbt; see `cascade.engine.branch_environment`."""

    def forget(self, catalog: BranchingCatalog, name: str) -> None:
        """Drop what it keeps for a branch or tag that is dropped."""

    def leftovers(self, catalog: BranchingCatalog) -> list[str]:
        """Drop what it keeps for branches that are no more; see `cascade.engine.drop_leftovers`."""

    def await_ready(self, settings: Settings, tell: Callable[[str], None]) -> None:
        """Wait until it can be used; see `cascade.engine.await_engine`."""

    def dbt_target(self, settings: Settings) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the target of dbt's profile, and the environment variables that it reads."""
