"""Which assets a run leaves out, because computing them again would give what there is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Set

import dagster as dg

from cascade.framework.base import AssetSource, Unchanged
from cascade.lakehouse import Lakehouse
from cascade.plugins import load_all

__all__ = ["find_unchanged"]


def find_unchanged(lakehouse: Lakehouse, asked: Set[dg.AssetKey], computed: Set[dg.AssetKey]) -> Unchanged:
    """Ask all packages that make assets; arguments as for `AssetSource.unchanged`."""
    since: dict[dg.AssetKey, dt.datetime] = {}
    always: dict[dg.AssetKey, str] = {}
    changed: dict[dg.AssetKey, tuple[str, ...]] = {}
    for record in load_all("cascade.assets", AssetSource):
        if not record.cause:  # of what is broken the definitions have told
            found = record.object.unchanged(lakehouse, asked, computed)
            since.update(found.since)
            always.update(found.always)
            changed.update(found.changed)
    return Unchanged(since, always, changed)
