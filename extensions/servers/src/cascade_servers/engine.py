"""The engine `trino`: catalog on Nessie, SQL by Trino. Imported whenever settings are read, so all else comes late."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from cascade.catalog import BranchingCatalog
    from cascade.config import Settings
    from cascade.engine import Engine

__all__ = ["ENGINE"]


class _Trino:
    """What it keeps for a branch is a catalog of the server; see `trino.catalogs`."""

    name = "trino"
    label = "Trino"
    default_warehouse = "s3://warehouse"

    def setting_problems(self, settings: Settings) -> list[str]:
        if settings.warehouse_location.startswith("s3://"):
            return []
        return ["`warehouse` must be s3://… on the engine trino, which several machines share"]

    def open_catalog(self, settings: Settings) -> BranchingCatalog:
        from cascade_servers.nessie import NessieCatalog

        return NessieCatalog(settings)

    def query(
        self,
        catalog: BranchingCatalog,
        ref: str,
        sql: str,
        at: int | dt.datetime | None,
        parameters: list[object] | None,
    ) -> pa.Table:
        from cascade_servers.trino import query

        return query(catalog, ref, sql, at, parameters)

    def regexp_match(self, column: str, pattern: str) -> str:
        return f"regexp_like({column}, {pattern})"

    def await_ready(self, settings: Settings, tell: Callable[[str], None]) -> None:
        from cascade_servers.trino import server_of

        server_of(settings).wait(tell)

    def forget(self, catalog: BranchingCatalog, ref: str) -> None:
        from cascade_servers.trino import drop_catalog

        drop_catalog(catalog.settings, ref)

    def drop_leftovers(self, catalog: BranchingCatalog) -> list[str]:
        from cascade_servers.trino import drop_leftover_catalogs

        return drop_leftover_catalogs(catalog)


#: What the entry point names.
ENGINE: Engine = _Trino()
