"""Keys of partitions: what a text means, which range covers some, and the dynamic ones that Dagster's storage knows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from cascade.catalog import MAIN
from cascade.config import Settings
from cascade.errors import UsageError
from cascade.ingestion.partitions import dimensions_of, parts_of
from cascade.names import MISSING_ONLY_TAG, RANGE_END_TAG, RANGE_START_TAG, TABLE_METADATA
from cascade_operations.times import ends_in

if TYPE_CHECKING:
    from cascade.lakehouse import Lakehouse

__all__ = [
    "PartitionRow",
    "UnknownKeyError",
    "add_partitions",
    "ends_of",
    "held_partitions",
    "is_dynamic",
    "learn_keys",
    "list_partitions",
    "may_have",
    "newest",
    "range_of",
    "range_tags",
    "remove_partitions",
]

Definition = dg.PartitionsDefinition[Any]


class UnknownKeyError(Exception):
    """A text names no partition; the arguments are its parts that are unknown."""


@dataclass(frozen=True)
class PartitionRow:
    """A partition of an asset.

    Attributes:
        key: Its key; of two dimensions `a|b`, in the order of the dimensions' names.
        loaded: Whether `main` holds it, with rows or without.
    """

    key: str
    loaded: bool


def ends_of(definition: Definition, keys: Sequence[str]) -> tuple[str, str]:
    """Return the first and the last key of the smallest range that has all of some keys, which are in their order.

    A range goes from the first to the last in each dimension.
    """
    if not isinstance(definition, dg.MultiPartitionsDefinition):
        return keys[0], keys[-1]
    ends = []
    for i, dimension in enumerate(dimensions_of(definition)):
        parts = {parts_of(definition, key)[i] for key in keys}
        order = [key for key in dimension.get_partition_keys() if key in parts]
        ends.append((order[0], order[-1]))
    first, last = ("|".join(some) for some in zip(*ends, strict=True))
    return first, last


def range_tags(definition: Definition, ends: tuple[str, str], *, missing_only: bool) -> dict[str, str]:
    """Return the tags by which a run knows its partitions.

    Args:
        definition: The partitions.
        ends: First and last of them.
        missing_only: Whether those that the branch holds are left alone.
    """
    tags, (first, last) = {MISSING_ONLY_TAG: "true"} if missing_only else {}, ends
    if first == last:
        return {**tags, **definition.get_tags_for_partition_key(first)}
    return {**tags, RANGE_START_TAG: first, RANGE_END_TAG: last}


def range_of(definition: Definition, text: str) -> list[str]:
    """Return the partitions that a person means by a key, a time, or a range `first..last`, in their order.

    A time covers the partitions in it: a date its hours, `2024-01` its days. It begins and ends where partitions do: a
    date is no month, nor the end of one unless it is the last day.

    Of two dimensions `a|b` is one partition, in whichever order the two are said; one key alone means all partitions
    that have it. In a range each dimension goes from the one to the other.

    Raises:
        UnknownKeyError: There is none of that name, or two dimensions have it.
        UsageError: A range ends before it starts.
    """
    dimensions = dimensions_of(definition)
    keys = [list(each.get_partition_keys()) for each in dimensions]
    first, dots, last = ("", "", "") if len(keys) == 1 and text in keys[0] else text.partition("..")
    if not dots:
        first = last = text
    placed = {each: _placed(each, dimensions, keys) for each in (first, last)}
    if unknown := [each for each, found in placed.items() if not found]:
        raise UnknownKeyError(*unknown)
    begin, end = placed[first], placed[last]
    ranges = []
    for i, some in enumerate(keys):
        if i not in begin and i not in end:
            ranges.append(some)
            continue
        low, high = (begin.get(i) or end[i])[0], (end.get(i) or begin[i])[1]
        if low is None or high is None:
            raise UnknownKeyError(first if low is None else last)
        if some.index(low) > some.index(high):
            raise UsageError(f"The range {text} ends before it starts.", fix=f"try {last}..{first}.")
        ranges.append(some[some.index(low) : some.index(high) + 1])
    wanted = {"|".join((a, b)) for a in ranges[0] for b in ranges[1]} if len(ranges) > 1 else set(ranges[0])
    return [key for key in definition.get_partition_keys() if key in wanted]


def _placed(
    text: str, dimensions: Sequence[Definition], keys: Sequence[Collection[str]]
) -> dict[int, tuple[str | None, str | None]]:
    """Return where a text begins and ends by the number of the dimension that it is of; empty when it is of none."""
    parts = text.split("|") if len(keys) > 1 else [text]
    for order in (parts, parts[::-1]):
        if len(order) == len(keys):
            found = [_ends(*each) for each in zip(dimensions, keys, order, strict=True)]
            if all(any(ends) for ends in found):
                return dict(enumerate(found))
    of = [i for i, some in enumerate(keys) if text in some]
    if len(of) > 1:
        raise UsageError(f"{text!r} is a key of both dimensions.", fix=f"say both: --partition '{text}|…'.")
    places = {i: _ends(dimensions[i], keys[i], text) for i in of or range(len(keys))}
    return {i: ends for i, ends in places.items() if any(ends)}


def _ends(definition: Definition, keys: Collection[str], text: str) -> tuple[str | None, str | None]:
    return (text, text) if text in keys else ends_in(definition, list(keys), text)


def newest(definition: Definition, keys: Sequence[str]) -> list[str]:
    """Return those of all keys that may have grown since they were loaded: of the latest time, or all without one."""
    dimensions = enumerate(dimensions_of(definition))
    times = [i for i, each in dimensions if isinstance(each, dg.TimeWindowPartitionsDefinition)]
    latest = parts_of(definition, keys[-1]) if keys else []
    return [key for key in keys if all(parts_of(definition, key)[i] == latest[i] for i in times)]


def may_have(definition: Definition, key: str) -> bool:
    """Say whether a key is one of the partitions; any text may be, or have been, a dynamic one."""
    dimensions, parts = dimensions_of(definition), parts_of(definition, key)
    return len(dimensions) == len(parts) and all(
        isinstance(one, dg.DynamicPartitionsDefinition) or part in one.get_partition_keys()
        for one, part in zip(dimensions, parts, strict=True)
    )


def is_dynamic(definition: Definition) -> bool:
    """Say whether Dagster's storage knows the keys, or those of a dimension."""
    return any(isinstance(each, dg.DynamicPartitionsDefinition) for each in dimensions_of(definition))


def learn_keys(instance: dg.DagsterInstance, definition: Definition, held: Iterable[str]) -> None:
    """Tell Dagster's storage the dynamic keys of loaded partitions: a new one, of another machine, has none.

    Args:
        instance: Where Dagster keeps the keys.
        definition: The partitions.
        held: Those that tables hold.
    """
    for i, dimension in enumerate(dimensions_of(definition)):
        if isinstance(dimension, dg.DynamicPartitionsDefinition) and dimension.name:
            loaded = {parts_of(definition, key)[i] for key in held}
            if new := sorted(loaded.difference(instance.get_dynamic_partitions(dimension.name))):
                instance.add_dynamic_partitions(dimension.name, new)


def held_partitions(asset: Any, instance: dg.DagsterInstance, lakehouse: Lakehouse) -> set[str]:
    """Return the partitions that are there: the table of an ingestion asset says it, else Dagster."""
    from cascade.ingestion.load import loaded_partitions

    if TABLE_METADATA not in asset.metadata:
        return set(instance.get_materialized_partitions(asset.key))
    return loaded_partitions(lakehouse.catalog, lakehouse.ref, asset.metadata[TABLE_METADATA], asset.partitions_def)


def list_partitions(settings: Settings, asset: str) -> tuple[PartitionRow, ...]:
    """Return the partitions of an asset, and whether `main` holds each.

    Args:
        settings: The project's settings.
        asset: Its name, as for `run_pipeline`.

    Raises:
        UsageError: There is no such asset, or it has no partitions.
    """
    return _change(settings, asset, (), add=None)


def add_partitions(settings: Settings, asset: str, keys: Sequence[str]) -> tuple[PartitionRow, ...]:
    """Add keys to the dynamic partitions of an asset, in Dagster's storage; `cascade run` loads what is new.

    Args:
        settings: The project's settings.
        asset: Its name, as for `run_pipeline`.
        keys: Keys of the dynamic partitions, or of the dimension that has them. Those that are there stay.

    Returns:
        All partitions, as they are now.

    Raises:
        UsageError: There is no such asset, its partitions are not dynamic, or a key cannot be one.
    """
    return _change(settings, asset, keys, add=True)


def remove_partitions(settings: Settings, asset: str, keys: Sequence[str]) -> tuple[PartitionRow, ...]:
    """Remove keys from the dynamic partitions of an asset, in Dagster's storage.

    Args:
        settings: The project's settings.
        asset: Its name, as for `run_pipeline`.
        keys: Keys that no table of `main` holds: those would come back.

    Returns:
        All partitions, as they are now.

    Raises:
        UsageError: As for `add_partitions`; or a key is unknown, or held by `main`. Nothing is changed.
    """
    return _change(settings, asset, keys, add=False)


def _change(settings: Settings, asset: str, keys: Sequence[str], *, add: bool | None) -> tuple[PartitionRow, ...]:
    from cascade.framework.definitions import build_definitions
    from cascade.framework.instance import open_instance
    from cascade.lakehouse import Lakehouse
    from cascade_operations.selection import select_assets

    definitions = build_definitions(settings)
    graph: Any = definitions.resolve_asset_graph()
    key, *others = sorted(select_assets(definitions, [asset]))
    if others:
        raise UsageError(f"{asset!r} means several assets.", fix="name one, as `namespace/table`.")
    node, name = graph.get(key), key.to_user_string()
    definition = node.partitions_def
    if definition is None:
        raise UsageError(f"{name} has no partitions.", fix="give the asset some: `partitions=`.")
    lakehouse = Lakehouse(settings, MAIN)
    with open_instance(settings) as instance, dg.partition_loading_context(dynamic_partitions_store=instance):
        held = held_partitions(node, instance, lakehouse)
        learn_keys(instance, definition, held)
        if add is not None:
            number, store = _dynamic(definition, name)
            loaded = {parts_of(definition, one)[number] for one in held}
            _require_keys(instance, store, definition, keys, loaded, add=add)
            if add:
                instance.add_dynamic_partitions(store, list(keys))
            for one in () if add else keys:
                instance.delete_dynamic_partition(store, one)
        return tuple(PartitionRow(str(one), one in held) for one in definition.get_partition_keys())


def _dynamic(definition: Definition, asset: str) -> tuple[int, str]:
    """Return which dimension is dynamic, and its name."""
    dimensions = enumerate(dimensions_of(definition))
    found = [(i, one.name) for i, one in dimensions if isinstance(one, dg.DynamicPartitionsDefinition) and one.name]
    if len(found) == 1:
        return found[0]
    raise UsageError(
        f"{asset} has {'two dimensions of' if found else 'no'} dynamic partitions.",
        fix="add keys where they come from: `instance.add_dynamic_partitions` in a sensor or an asset."
        if found
        else "its partitions are those that its definition names: change them there.",
    )


def _require_keys(
    instance: dg.DagsterInstance, store: str, definition: Definition, keys: Sequence[str], held: set[str], *, add: bool
) -> None:
    known = instance.get_dynamic_partitions(store)
    several = isinstance(definition, dg.MultiPartitionsDefinition)
    problems = [f"{key!r} cannot be a key" for key in keys if not key or (several and {*key} & {*"|,[]"})]
    if not add:
        problems += [f"there is no key {key!r}" for key in keys if key not in known]
        problems += [f"`main` holds {key!r}, so it would come back" for key in keys if key in held]
    if problems:
        raise UsageError(
            f"{'; '.join(problems)}. Nothing was changed.",
            where=f"dynamic partitions {store}",
            fix="`cascade partitions list` shows what there is"
            + ("; a key of one of two dimensions has none of | , [ ]." if several else "."),
        )
