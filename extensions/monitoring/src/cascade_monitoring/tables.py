"""The tables of `main`: rows, bytes, files and age from their metadata, which is read once for each state."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from pyiceberg.table import Table

from cascade.catalog import MAIN, open_catalog, rows_of
from cascade.config import Settings
from cascade.errors import CatalogError
from cascade.iceberg.read import row_count
from cascade_monitoring.metrics import Values

__all__ = ["Tables"]

#: The size to which `cascade maintain compact` joins files.
FULL_FILE = 128 << 20
_THREADS = 16


class Tables:
    """The tables of `main` as they were seen last: only those that have moved since are read again.

    Args:
        settings: The project's settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._catalog = open_catalog(settings)
        self._pointers: dict[str, str] | None = None
        self._states: dict[str, dict[str, float] | None] = {}

    def refresh(self, values: Values) -> None:
        """Put what `main` holds into the metrics.

        Args:
            values: The metrics; those of tables that are gone leave it.

        Raises:
            ServiceError: The catalog or S3 cannot be used.
        """
        pointers = self._catalog.pointers(MAIN)
        if pointers == self._pointers:
            return
        known = self._pointers or {}
        changed = [name for name, at in pointers.items() if known.get(name) != at]
        with ThreadPoolExecutor(_THREADS) as threads:
            states = list(threads.map(lambda name: self._read(name, pointers[name]), changed))
        self._states = {name: self._states.get(name) for name in pointers} | dict(zip(changed, states, strict=True))
        self._pointers = pointers
        for name in [name for name in values if name.startswith("cascade.table.") and name != "cascade.table.max_age"]:
            values[name] = {}
        for table, state in self._states.items():
            for metric, value in (state or {}).items():
                values[f"cascade.table.{metric}"][table,] = value
        values["cascade.tables.unreadable"][()] = sum(state is None for state in self._states.values())
        newest = next(iter(self._catalog.log(MAIN, limit=1)), None)
        values["cascade.promotions"][()] = newest.id if newest else 0
        values["cascade.promotion.timestamp"][()] = newest.at.timestamp() if newest else 0

    def _read(self, name: str, location: str) -> dict[str, float] | None:
        try:
            return _state(self._catalog.load(name, location))
        except CatalogError as error:  # one damaged table hides no other
            print(f"{name} cannot be read: {error}", file=sys.stderr, flush=True)
            return None


def _state(table: Table) -> dict[str, float]:
    """Return what the newest snapshot says of a table; nothing of what it does not say."""
    head = table.current_snapshot()
    if head is None:
        return {"rows": 0, "size": 0, "files": 0, "small_files": 0}
    told = head.summary.additional_properties if head.summary else {}
    wrote = table.metadata.snapshot_by_id(rows_of(table) or 0) or head
    found: dict[str, float | None] = {"rows": row_count(head), "updated.timestamp": wrote.timestamp_ms / 1000}
    if "total-files-size" in told and "total-data-files" in told:
        size, files = int(told["total-files-size"]), int(told["total-data-files"])
        needed = -(-size // FULL_FILE)
        found |= {"size": size, "files": files, "small_files": max(files - needed, 0)}
    return {name: value for name, value in found.items() if value is not None}
