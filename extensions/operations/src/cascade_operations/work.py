"""What a run has to do: the same for the run itself and for a plan of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg

from cascade.framework.base import Unchanged
from cascade.lakehouse import Lakehouse
from cascade.names import TABLE_METADATA
from cascade.publish import PROMOTE_KEY, PUBLISH_KEY
from cascade_operations.leave_out import find_unchanged
from cascade_operations.resume import settled
from cascade_operations.selection import PartitionGroup, group_by_partitions, select_assets

__all__ = ["ENDS", "Work", "after_first", "choose", "find_work", "runs_of"]

#: The assets that end a pipeline.
ENDS = frozenset((PROMOTE_KEY, PUBLISH_KEY))


@dataclass(frozen=True)
class Work:
    """What a run does.

    Attributes:
        groups: Assets with partitions that have something to load.
        idle: Assets with partitions that have nothing to load.
        rest: Assets without partitions that are computed, with those that end a pipeline.
        unchanged: What is left out of them, and why others are not.
        first: Those of `rest` that run first, since others can be left out when they bring nothing new.
        refused: Assets that a blocking check has refused on the branch: they are not left out.
    """

    groups: Sequence[PartitionGroup]
    idle: set[dg.AssetKey]
    rest: set[dg.AssetKey]
    unchanged: Unchanged = field(default_factory=Unchanged)
    first: set[dg.AssetKey] = field(default_factory=set)
    refused: set[dg.AssetKey] = field(default_factory=set)

    @property
    def loaded(self) -> set[dg.AssetKey]:
        """The assets with partitions that load something."""
        return {key for group in self.groups for key in group.assets}


def choose(
    definitions: dg.Definitions, select: Sequence[str], *, promote: bool
) -> tuple[set[dg.AssetKey], set[dg.AssetKey]]:
    """Return the assets that a run is about, and those that are computed because they are named.

    Args:
        definitions: The project's definitions.
        select: As for `run_pipeline`.
        promote: Whether the run promotes its branch.

    Raises:
        UsageError: An asset does not exist.
    """
    chosen = set(definitions.resolve_asset_graph().executable_asset_keys)
    if select:
        chosen = select_assets(definitions, select)
    named = select_assets(definitions, select, connected=False)
    return (chosen | ENDS if promote else chosen - ENDS), named


def find_work(
    graph: Any,
    chosen: set[dg.AssetKey],
    partition: str | None,
    named: Iterable[dg.AssetKey] | None,
    *,
    instance: dg.DagsterInstance,
    lakehouse: Lakehouse,
    emptied: Collection[str] = (),
    resumed: bool = False,
) -> Work:
    """Find out what has to be done.

    Args:
        graph: Dagster's asset graph.
        chosen: The assets of the run.
        partition: As `range_of` reads it: a partition, a time, or a range `first..last`; by default what is missing.
        named: Assets that are computed in any case, while others are left out when nothing has changed; `None`: all.
        instance: Where Dagster keeps what plain assets have materialized.
        lakehouse: The branch that the run begins with.
        emptied: Tables of it that the run empties first.
        resumed: Whether the run goes on with a branch that a failed run has left.

    Raises:
        UsageError: There is no such partition, or the branch is not worth going on with.
    """
    groups, idle = group_by_partitions(
        graph, chosen, partition, instance=instance, lakehouse=lakehouse, emptied=emptied
    )
    work = Work(groups, idle, chosen - idle - {key for group in groups for key in group.assets})
    if resumed:
        kept, refused = settled(graph, chosen, work.loaded, instance=instance, branch=lakehouse.branch)
        work = replace(work, idle=idle | kept, rest=work.rest - kept, refused=refused)
    if named is None:
        return work
    computed = {*named} | work.loaded | work.refused
    asked = work.rest - computed
    found = find_unchanged(lakehouse, asked, computed)
    work = replace(work, rest=work.rest - found.since.keys(), unchanged=found)
    return replace(work, first=_first(graph, work, asked, computed, lakehouse))


def _first(
    graph: Any, work: Work, asked: set[dg.AssetKey], computed: set[dg.AssetKey], lakehouse: Lakehouse
) -> set[dg.AssetKey]:
    """Return the loads on which it depends whether models are computed, and what comes before them."""
    loads = {key for key in work.rest if TABLE_METADATA in graph.get(key).metadata}
    changed = work.unchanged.changed.keys()
    if not loads or not changed:
        return set()
    waiting = find_unchanged(lakehouse, asked - loads, computed - loads).since.keys() & changed
    before = {parent for key in waiting for parent in graph.get_ancestor_asset_keys(key)}
    # A load that reads a model or partitions of this run cannot come before them.
    return set() if before & (work.loaded | (changed - waiting)) else before & work.rest - waiting


def after_first(work: Work, named: Iterable[dg.AssetKey], *, lakehouse: Lakehouse) -> Work:
    """Find out what is still to be done when the first assets of some work have run.

    Args:
        work: What `find_work` found.
        named: As for `find_work`.
        lakehouse: The branch that they have written.
    """
    rest, computed = work.rest - work.first, ({*named} | work.loaded | work.refused) - work.first
    found = find_unchanged(lakehouse, rest - computed, computed)
    since = {**work.unchanged.since, **found.since}
    return Work(work.groups, work.idle, rest - since.keys(), replace(work.unchanged, since=since))


def runs_of(graph: Any, work: Work) -> list[tuple[set[dg.AssetKey], PartitionGroup | None]]:
    """Return the runs that do the work, in their order: one run holds a range of partitions of one kind only.

    What an asset reads is in its run, or in one before. All is one run where it can be.

    Args:
        graph: Dagster's asset graph.
        work: What is done.
    """
    groups = {key: group for group in work.groups for key in group.assets}
    runs: list[tuple[set[dg.AssetKey], PartitionGroup | None]] = []
    place: dict[dg.AssetKey, int] = {}
    first = _read_by(graph, work.rest, set(groups))
    for key in graph.toposorted_asset_keys:
        place[key] = max((place.get(parent, 0) for parent in graph.get(key).parent_keys), default=0)
        if key not in groups and key not in first:
            continue
        group = groups.get(key)
        fits = (i for i, (_, of) in enumerate(runs) if i >= place[key] and (group is None or of in (None, group)))
        place[key] = next(fits, len(runs))
        if place[key] == len(runs):
            runs.append((set(), group))
        keys, of = runs[place[key]]
        runs[place[key]] = ({*keys, key}, of or group)
    if rest := work.rest - first:
        if len(runs) == 1:
            runs = [(runs[0][0] | rest, runs[0][1])]
        else:
            runs.append((rest, None))
    return runs


def _read_by(graph: Any, some: set[dg.AssetKey], readers: set[dg.AssetKey]) -> set[dg.AssetKey]:
    """Return those of some assets that one of the readers depends on."""
    found: set[dg.AssetKey] = set()
    for key in reversed(graph.toposorted_asset_keys):
        if not graph.get(key).child_keys.isdisjoint(found | readers):
            found.add(key)
    return found & some
