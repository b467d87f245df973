"""Which assets a run leaves out, because computing them again would give what `main` holds."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Set

import dagster as dg

from cascade.catalog import BranchingCatalog
from cascade.config import Settings
from cascade.errors import count
from cascade.framework.base import AssetSource, Unchanged
from cascade.plugins import load_all

__all__ = ["explain", "explain_always", "find_unchanged"]


def find_unchanged(
    settings: Settings, catalog: BranchingCatalog, asked: Set[dg.AssetKey], computed: Set[dg.AssetKey]
) -> Unchanged:
    """Ask all packages that make assets; arguments as for `AssetSource.unchanged`."""
    since: dict[dg.AssetKey, dt.datetime] = {}
    always: dict[dg.AssetKey, str] = {}
    for record in load_all("cascade.assets", AssetSource):
        if not record.cause:  # of what is broken the definitions have told
            found = record.object.unchanged(settings, catalog, asked, computed)
            since.update(found.since)
            always.update(found.always)
    return Unchanged(since, always)


def explain(since: Mapping[str, dt.datetime]) -> str:
    """Say how many assets were left out, and why.

    Args:
        since: The assets, and when each was made (UTC).
    """
    made = f"{max(since.values()):%Y-%m-%d %H:%M:%S} UTC"
    return f"{_some(since)}, for nothing that they are made from has changed since {made}"


def explain_always(always: Mapping[str, str]) -> Iterator[str]:
    """Say which assets every run computes, a sentence for each reason.

    Args:
        always: The assets, and the reason of each.
    """
    for why in sorted(set(always.values())):
        yield f"{_some(asset for asset, reason in always.items() if reason == why)}, since {why}"


def _some(assets: Iterable[str]) -> str:
    names = sorted(assets)
    return f"{count(len(names), 'model')} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
