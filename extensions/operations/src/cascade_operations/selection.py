"""Which assets and which partitions a command means."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatch
from itertools import groupby
from typing import Any

import dagster as dg

from cascade._dagster import CheckError, disable_dagster_warnings
from cascade.errors import UsageError
from cascade.ingestion.partitions import parts_of
from cascade.lakehouse import Lakehouse
from cascade.names import TABLE_METADATA
from cascade_operations.partitions import (
    UnknownKeyError,
    ends_of,
    held_partitions,
    is_dynamic,
    learn_keys,
    range_of,
    range_tags,
)
from cascade_operations.times import holder_of

__all__ = ["PartitionGroup", "group_by_partitions", "select_assets"]

# The parts of a selection: what is copied, depths of `+`, and words, which name assets.
_PARTS = re.compile(
    r"""(?P<space>\s+) | (?P<sign>[()]|\*(?=[\s()+]|$)) | (?P<depth>\d*\+(?:\d+(?=[\s)]|$))?)
    | (?P<attribute>[a-z_]+:(?:"[^"]*"|[^\s()+"])+) | (?P<word>"[^"]*"|[^\s()+"]+)""",
    re.VERBOSE,
)
_OPERATORS = ("and", "or", "not", "sinks", "roots")
_FIX = "name assets, which `cascade validate` lists; or write group:, kind:, tag:, owner:, path:, +, *, and, or, not."


def select_assets(definitions: dg.Definitions, texts: Sequence[str], *, connected: bool = True) -> set[dg.AssetKey]:
    """Return the assets that selections mean, all of them together.

    A selection is written in Dagster's language: `group:`, `kind:`, `tag:`, `owner:`, `key:"gold/*"`, `+`, `and`, `or`,
    `not`, parentheses. Beyond it, a word is an asset: `namespace/table`, `namespace.table`, with `*` for any text;
    `table` alone means the ingestion asset of that name if there is one, else it must be unique, or a namespace.
    `path:` means the assets that a file defines, or the files of a folder: `path:models/gold`.

    Args:
        definitions: The project's definitions.
        texts: The selections.
        connected: Whether what `+` adds belongs to it.

    Raises:
        UsageError: A name is unknown or ambiguous, or a selection cannot be read, or selects nothing; all are named.
    """
    graph = definitions.resolve_asset_graph()
    keys = set(graph.executable_asset_keys)
    chosen: set[dg.AssetKey] = set()
    problems: list[str] = []
    for text in texts:
        known = len(problems)
        said = _in_dagsters_words(text, keys, graph, problems, connected=connected)
        if len(problems) > known:
            continue
        try:
            with disable_dagster_warnings():  # its own parser uses what it calls deprecated
                found = dg.AssetSelection.from_string(said).resolve(graph) & keys
        except (CheckError, dg.DagsterError, NotImplementedError):
            problems.append(f"{text!r} cannot be read as a selection.")
            continue
        if not found:
            problems.append(f"{text!r} selects no asset; {_to_choose_from(keys, graph)}.")
        chosen |= found
    if problems:
        raise UsageError(" ".join(problems), fix=_FIX)
    return chosen


def _in_dagsters_words(text: str, keys: set[dg.AssetKey], graph: Any, problems: list[str], *, connected: bool) -> str:
    """Return a selection in which each word is a key of Dagster's language."""
    parts, end = [], 0
    for match in _PARTS.finditer(text):
        kind, part = match.lastgroup, match.group()
        if match.start() != end:
            break
        end = match.end()
        if kind == "depth" and not connected:
            continue
        found: Iterable[dg.AssetKey] | None = None
        if kind == "word" and part.lower() not in _OPERATORS:
            name = part.strip('"')
            found = _named(name, keys, graph)
            several = "*" in name or all(key.path[0] == name != key.path[-1] for key in found)
            if not found or (len(found) > 1 and not several):
                problems.append(_no_single_asset(name, found, keys, graph))
        elif part.startswith("path:"):
            found = _defined_in(part.removeprefix("path:").strip('"'), keys, graph)
            if not found:
                problems.append(f"{part!r}: no file or folder of that name defines an asset.")
        names = [f'key:"{key.to_user_string()}"' for key in sorted(found or ())]
        parts.append(part if found is None else f"({' or '.join(names)})")
    if end != len(text) or not text.strip():
        problems.append(f"{text!r} cannot be read as a selection.")
    return "".join(parts)


def _named(name: str, keys: set[dg.AssetKey], graph: Any) -> list[dg.AssetKey]:
    parts = re.split(r"[/.]", name)
    if len(parts) > 1 or "*" in name:
        pattern = re.compile(".*".join(map(re.escape, "/".join(parts).split("*"))))
        return [key for key in keys if pattern.fullmatch(key.to_user_string())]
    same = sorted(key for key in keys if key.path[-1] == name)
    ingested = [key for key in same if TABLE_METADATA in graph.get(key).metadata]
    return ingested if len(ingested) == 1 else same or [key for key in keys if key.path[0] == name]


def _defined_in(path: str, keys: set[dg.AssetKey], graph: Any) -> list[dg.AssetKey]:
    """Return the assets whose file is the path, or lies in that folder, as far as the path is given."""
    wanted = f"*/{path.strip('/').removeprefix('./')}"
    found = []
    for key in keys:
        code = graph.get(key).metadata.get("dagster/code_references")
        files = [one.file_path for one in code.code_references] if code else ()
        if any(fnmatch(file, wanted) or fnmatch(file, f"{wanted}/*") for file in files):
            found.append(key)
    return found


def _to_choose_from(keys: set[dg.AssetKey], graph: Any) -> str:
    assets = [graph.get(key) for key in keys]
    groups = sorted({asset.group_name for asset in assets})
    kinds = sorted({kind for asset in assets for kind in asset.kinds})
    return f"groups are {', '.join(groups)}; kinds are {', '.join(kinds)}"


def _no_single_asset(name: str, found: list[dg.AssetKey], keys: set[dg.AssetKey], graph: Any) -> str:
    if found:
        return f"{name!r} may mean {' or '.join(key.to_user_string() for key in found)}."
    known = {group: f"group:{group}" for group in (graph.get(key).group_name for key in keys)}
    known |= {word: key.to_user_string() for key in keys for word in (key.to_user_string(), key.path[-1])}
    near = sorted({known[word] for word in get_close_matches(name, known)})
    everything = ", ".join(sorted(key.to_user_string() for key in keys))
    return f"There is no asset {name!r}; " + (
        f"did you mean {' or '.join(near)}?" if near else f"there are {everything}."
    )


@dataclass(frozen=True)
class PartitionGroup:
    """Assets with the same partitions, and the range of them that one run covers.

    Attributes:
        assets: The assets.
        definition: Their partitions.
        ends: The first and the last partition of the range, which is a range of each dimension.
        missing_only: Whether each asset loads only those of the range that it lacks.
        lacking: The partitions that each asset loads, in spans of neighbours, and how many there are.
    """

    assets: list[dg.AssetKey]
    definition: dg.PartitionsDefinition[Any]
    ends: tuple[str, str]
    missing_only: bool
    lacking: Mapping[dg.AssetKey, tuple[int, tuple[str, ...]]]

    @property
    def span(self) -> str:
        """The range in words."""
        return "..".join(dict.fromkeys(self.ends))

    def tags(self) -> dict[str, str]:
        """Return the tags by which Dagster knows the range."""
        return range_tags(self.definition, self.ends, missing_only=self.missing_only)


def group_by_partitions(
    graph: Any,
    chosen: set[dg.AssetKey],
    partition: str | None,
    *,
    instance: dg.DagsterInstance,
    lakehouse: Lakehouse,
    emptied: Collection[str] = (),
) -> tuple[list[PartitionGroup], set[dg.AssetKey]]:
    """Sort the partitioned assets by their partitions.

    Args:
        graph: Dagster's asset graph.
        chosen: The assets to run.
        partition: As `range_of` reads it: a partition, a time, or a range `first..last`; by default what is missing.
        instance: Where Dagster keeps what plain assets have materialized.
        lakehouse: The branch whose tables say what ingestion assets have loaded.
        emptied: Tables of it that the run empties first.

    Returns:
        The groups that have something to do, and the assets that have nothing.

    Raises:
        UsageError: There is no such partition.
    """
    groups: dict[dg.PartitionsDefinition[Any], list[dg.AssetKey]] = defaultdict(list)
    for key in sorted(chosen):
        if (definition := graph.get(key).partitions_def) is not None:
            groups[definition].append(key)
    if partition is not None and not groups:
        raise UsageError(
            f"None of the chosen assets has partitions, so there is no {partition}.", fix="leave out --partition."
        )
    busy: list[PartitionGroup] = []
    idle: set[dg.AssetKey] = set()
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        held = {key: held_partitions(graph.get(key), instance, lakehouse) for some in groups.values() for key in some}
        for definition, assets in groups.items():
            learn_keys(instance, definition, set().union(*(held[key] for key in assets)))
        for definition, assets in groups.items():
            if partition is not None:
                asked = _asked(partition, definition, assets, groups)
                ends, spans = ends_of(definition, asked), _spans(definition, definition.get_partition_keys(), {*asked})
                lacking = dict.fromkeys(assets, (len(asked), spans))
                busy.append(PartitionGroup(assets, definition, ends, missing_only=False, lacking=lacking))
                continue
            all_keys = definition.get_partition_keys()
            gone = {key for key in assets if graph.get(key).metadata.get(TABLE_METADATA) in emptied}
            missing = {key: set(all_keys) - (set() if key in gone else held[key]) for key in assets}
            idle.update(key for key in assets if not missing[key])
            everything = set().union(*missing.values())
            if wanted := [key for key in all_keys if key in everything]:
                late, ends = [key for key in assets if missing[key]], ends_of(definition, wanted)
                lacking = {key: (len(missing[key]), _spans(definition, all_keys, missing[key])) for key in late}
                busy.append(PartitionGroup(late, definition, ends, missing_only=True, lacking=lacking))
    return busy, idle


def _spans(definition: dg.PartitionsDefinition[Any], all_keys: Sequence[str], some: Set[str]) -> tuple[str, ...]:
    """Return partitions as spans of neighbours, `first..last`, in order; of two dimensions the last one runs."""
    spans = []
    for (inside, _), group in groupby(all_keys, lambda key: (key in some, parts_of(definition, key)[:-1])):
        if inside:
            first, *others = group
            spans.append(f"{first}..{others[-1]}" if others else str(first))
    return tuple(spans)


def _asked(
    text: str,
    definition: dg.PartitionsDefinition[Any],
    assets: Sequence[dg.AssetKey],
    groups: Mapping[dg.PartitionsDefinition[Any], Sequence[dg.AssetKey]],
) -> list[str]:
    """Return the partitions that a text means; the error names the assets that have them."""
    named = ", ".join(key.to_user_string() for key in assets)
    try:
        if not (found := range_of(definition, text)):
            raise UnknownKeyError(text)
    except UsageError as error:
        raise UsageError(error.what, where=named, fix=error.fix) from None
    except UnknownKeyError as error:
        alike: list[dg.AssetKey] = []
        for other, some in groups.items():
            with contextlib.suppress(UnknownKeyError, UsageError):
                alike += some if range_of(other, text) else ()
        keys = list(definition.get_partition_keys())
        first = assets[0].to_user_string()
        holders = {each: holder_of(definition, keys, each) for each in error.args}
        select = "".join(f" --select {key.to_user_string()}" for key in alike)
        raise UsageError(
            f"There is no partition {' and no partition '.join(map(repr, error.args))}.",
            where=f"{named}, whose partitions are {f'{keys[0]} .. {keys[-1]}' if keys else 'none yet'}",
            fix="".join(f"{each} lies in partition {holder}; " for each, holder in holders.items() if holder)
            + "give one of them, such as --partition "
            + (f"{keys[-1]}, or a range first..last" if keys else "…")
            + (f"; or add its key: `cascade partitions add {first} …`" if is_dynamic(definition) else "")
            + (f"; or run only those that have it:{select}." if alike else "."),
        ) from None
    return found
