"""Which tables of models need not be computed: what they are made from is recorded beside their newest snapshot.

The record is a property of the table that names the snapshot it speaks of, so that it is promoted and restored with the
table, and means nothing once another writer has written. It holds digests of what dbt was given, one for each part, so
that a plan can say what has changed: the model's SQL and that of its ephemeral models, the macros that it may use, its
configuration, variables, versions; and the states of the tables that it reads. A model that may depend on more is
always computed. Imports neither Dagster nor dbt.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from pyiceberg.table import Table
from pyiceberg.table.update import AssertRefSnapshotId, AssertTableUUID, SetPropertiesUpdate

from cascade.catalog import MAIN, BranchingCatalog, rows_of
from cascade.config import Settings
from cascade.names import MADE_FROM_PROPERTY
from cascade_dbt.project import macros_folder
from cascade_dbt.targets import TABLES, target_of

__all__ = ["Judgement", "Recipe", "judge", "now", "read_recipes", "record"]

# What a model's SQL and macros call when their rows depend on more than the tables that they read.
_MORE = re.compile(
    r"""
    \b(?:current_date | current_time(?:stamp)? | localtime(?:stamp)? | information_schema | tablesample | using\s+sample
      | run_started_at | invocation_id | invocation_args_dict)\b
    | \b(?:now | today | getdate | sysdate | age | get_current_\w+ | \w+_timestamp(?=\s*\(\s*\))
      | rand | random | setseed | shuffle | uuid\w* | gen_random_uuid | nextval | currval | getenv | current_setting
      | glob | sniff_csv | query | query_table | read_\w+ | \w+_scan | parquet_\w+ | duckdb_\w+ | pragma_\w+
      | env_var | run_query | statement | load_result | load_relation | load_cached_relation)\s*\(
    | \bcall\s+statement\b | \b(?:graph | flags | context | builtins | selected_resources)\s*[.\[]
    | \bmodules\s*\.\s*(?:datetime | pytz)\b
    | \badapter\s*\.\s*(?!quote\b|dispatch\b|get_columns_in_relation\b)\w+
    | \b(?:from | join)\s+(?:'[^']* | (?:"?\w+"?\s*\.\s*){2}"?\w+"?)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_OWN_TABLE = re.compile(r"\{\{[^}]*\bthis\b|\{%[^%]*\bthis\b")
_SOURCE = re.compile(r"""\bsource\s*\(\s*(?:(['"])([^'"]+)\1\s*,\s*(['"])([^'"]+)\3\s*\))?""")
_PAIR = re.compile(r'(?=\b(\w+)"?\s*\.\s*"?(\w+))')
# Files outside of the lakehouse, by what dbt-duckdb reads of a source.
_EXTERNAL = {"external_location", "plugin"}
_FLAGS = ("DBT_EMPTY", "DBT_EVENT_TIME", "DBT_FULL_REFRESH", "DBT_SAMPLE", "DBT_TARGET", "DBT_PROFILE")
# Parts of the code that change rows at most, and no columns.
_ROWS = {"macros of dbt and Cascade", "description", "batch of time", "version of dbt or Cascade", "flags of dbt"}
# Of the project's file: models carry their configuration themselves.
_PROJECT_KEYS = ("dispatch", "flags", "quoting", "query-comment")


@dataclass(frozen=True)
class Recipe:
    """What the table of a model or seed is made from.

    Attributes:
        table: `namespace.table`.
        code: Digest of each part that is no table, by what people call the part, such as `SQL`.
        inputs: The tables of its `ref`s and `source`s, through ephemeral models too.
        mentioned: What may be further tables in its SQL: pairs of words with a dot between, in lower case.
        always: Why it is computed in every run; empty when it need not be.
    """

    table: str
    code: Mapping[str, str]
    inputs: frozenset[str]
    mentioned: frozenset[str]
    always: str

    def reads(self, tables: Iterable[str]) -> list[str]:
        """Return the tables that it reads, of all that there are those included that it only mentions."""
        also = {table for table in tables if table.lower() in self.mentioned}
        return sorted((self.inputs | also) - {self.table})


@dataclass(frozen=True)
class Judgement:
    """Which tables a run makes.

    Attributes:
        same: Those that can be left out, and when each was made.
        changed: The others, and what has changed since each was made: one or several reasons.
        rewritten: Those of them whose columns may be others: their code has changed, or they were not made yet.
    """

    same: dict[str, dt.datetime] = field(default_factory=dict)
    changed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rewritten: set[str] = field(default_factory=set)


def judge(
    recipes: Mapping[str, Recipe],
    catalog: BranchingCatalog,
    asked: Collection[str],
    computed: Collection[str],
    *,
    ref: str = MAIN,
) -> Judgement:
    """Find the tables that are as a run would make them.

    Args:
        recipes: By table; what `read_recipes` returns, in its order.
        catalog: The catalog.
        asked: The tables of models that a run shall make.
        computed: Tables that the run makes in any case.
        ref: What the run begins with.

    Returns:
        Those of `asked`, without those that the run makes in any case.
    """
    pointers, states = catalog.pointers(ref), _States(catalog)
    fresh, found = {*computed}, Judgement()
    for table, recipe in recipes.items():
        if table not in asked or table in fresh:
            continue
        made = catalog.load(table, pointers[table]) if table in pointers else None
        reads = recipe.reads({*pointers, *fresh})
        now = _record(made, recipe, {name: states.of(name, pointers) for name in reads}) if made else {}
        before = _told(made.properties.get(MADE_FROM_PROPERTY)) if made else None
        reasons = tuple(_reasons(recipe, before, now, [name for name in reads if name in fresh]))
        if not before or any(
            before["code"].get(p) != now["code"].get(p) for p in {*before["code"], *now["code"]} - _ROWS
        ):
            found.rewritten.add(table)
        if made and not reasons and (head := made.current_snapshot()):
            found.same[table] = dt.datetime.fromtimestamp(head.timestamp_ms / 1000, dt.UTC)
        else:
            found.changed[table] = reasons
            fresh.add(table)
    return found


def _reasons(
    recipe: Recipe, before: Mapping[str, Any] | None, now: Mapping[str, Any], fresh: Collection[str]
) -> Iterator[str]:
    """Say why a table is made, given what is recorded of it; nothing when it is as a run would make it."""
    if not now:
        yield "main does not have its table"
        return
    if recipe.always:
        yield f"every run computes it, since {recipe.always}"
    if not before or before["state"] != now["state"]:
        yield "it is not known what its table was made from"
    else:
        parts = {**before["code"], **now["code"]}
        yield from (f"its {part} changed" for part in parts if before["code"].get(part) != now["code"].get(part))
        reads = {**before["reads"], **now["reads"]}
        other = {name for name in reads if before["reads"].get(name) != now["reads"].get(name)}
        yield from (f"{name} changed" for name in sorted(other - {*fresh}))
    yield from (f"the run makes {name}, which it reads" for name in fresh)


def _told(text: str | None) -> dict[str, Any] | None:
    """Return what is recorded of a table; `None` for nothing, or for what another version wrote."""
    with contextlib.suppress(ValueError):
        found = json.loads(text or "null")
        if isinstance(found, dict) and found.keys() == {"state", "code", "reads"}:
            return found
    return None


def record(
    recipes: Mapping[str, Recipe],
    catalog: BranchingCatalog,
    branch: str,
    made: Mapping[str, int | None],
    before: Mapping[str, str],
) -> None:
    """Record beside tables that dbt has just made what they were made from.

    A table is passed over when another process may have written it, or what it reads, while dbt worked.

    Args:
        recipes: By table.
        catalog: The catalog.
        branch: The branch that dbt wrote.
        made: The tables, and the snapshot that each had when dbt was done with it.
        before: The metadata locations of the branch's tables before dbt began.

    Raises:
        CommitFailedException: A table was written at this very moment; nothing is recorded.
    """
    pointers, states = catalog.pointers(branch), _States(catalog)
    commits = []
    for name in sorted(made.keys() & recipes.keys() & pointers.keys()):
        recipe = recipes[name]
        reads = recipe.reads(pointers)
        table = catalog.load(name, pointers[name])
        known = all(_is_known(read, made, before, pointers, states) for read in reads)
        if recipe.always or not known or _snapshot_id(table) != made[name]:
            continue
        text = json.dumps(_record(table, recipe, {read: states.of(read, pointers) for read in reads}))
        same = (
            AssertTableUUID(uuid=table.metadata.table_uuid),
            AssertRefSnapshotId(ref="main", snapshot_id=_snapshot_id(table)),  # type: ignore[call-arg]  # an alias
        )
        commits.append((table, same, (SetPropertiesUpdate(updates={MADE_FROM_PROPERTY: text}),)))
    if commits:
        reference: Any = catalog.open(branch)
        reference.commit_tables(commits)


def _is_known(
    read: str, made: Mapping[str, int | None], before: Mapping[str, str], now: Mapping[str, str], states: _States
) -> bool:
    """Say whether it is known in which state dbt has read a table."""
    if read in made:
        return read in now and states.snapshot_of(read, now) == made[read]
    return states.of(read, before) == states.of(read, now)


class _States:
    """States of tables, each metadata file read once."""

    def __init__(self, catalog: BranchingCatalog) -> None:
        self._catalog = catalog
        self._found: dict[str, Table] = {}

    def of(self, table: str, pointers: Mapping[str, str]) -> str:
        found = self._table(table, pointers)
        return _state(found) if found else "none"

    def snapshot_of(self, table: str, pointers: Mapping[str, str]) -> int | None:
        found = self._table(table, pointers)
        return _snapshot_id(found) if found else None

    def _table(self, table: str, pointers: Mapping[str, str]) -> Table | None:
        location = pointers.get(table)
        if location is not None and location not in self._found:
            self._found[location] = self._catalog.load(table, location)
        return self._found[location] if location is not None else None


def _snapshot_id(table: Table) -> int | None:
    head = table.current_snapshot()
    return head.snapshot_id if head else None


def _state(table: Table) -> str:
    """Name what a reader sees: a column that comes or goes makes no snapshot, compaction makes one for nothing."""
    return f"{rows_of(table)}/{table.schema().schema_id}"


def _record(table: Table, recipe: Recipe, reads: Mapping[str, str]) -> dict[str, Any]:
    return {"state": _state(table), "code": dict(recipe.code), "reads": dict(reads)}


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def read_recipes(settings: Settings, manifest: Mapping[str, Any]) -> dict[str, Recipe]:
    """Return the recipes of all models, seeds and snapshots that are tables, what others read first.

    Args:
        settings: The project's settings.
        manifest: dbt's manifest.
    """
    return {recipe.table: recipe for recipe in _Manifest(settings, manifest).recipes()}


class _Manifest:
    """dbt's manifest, asked for all that can change the rows of a model."""

    def __init__(self, settings: Settings, manifest: Mapping[str, Any]) -> None:
        self._settings = settings
        self._nodes: Mapping[str, dict[str, Any]] = manifest["nodes"]
        self._sources: Mapping[str, dict[str, Any]] = manifest["sources"]
        self._macros: Mapping[str, dict[str, Any]] = manifest["macros"]
        self._adapter = manifest["metadata"]["adapter_type"]
        self._database, ours = target_of(settings).target(settings)[0]["database"], macros_folder(settings)
        # The texts of dbt and of ours are trusted to read nothing but what a model says.
        self._trusted = {
            key
            for key, macro in self._macros.items()
            if macro["package_name"] in ("dbt", f"dbt_{self._adapter}")
            or (settings.dbt_path / macro["original_file_path"]).is_relative_to(ours)
        }
        self._closures: dict[frozenset[str], frozenset[str]] = {}
        self._tables = {
            key: f"{node['schema']}.{node.get('identifier') or node.get('alias') or node['name']}"
            for key, node in [*self._nodes.items(), *self._sources.items()]
            if node["resource_type"] in (*TABLES, "source") and not _is_ephemeral(node)
        }

    def recipes(self) -> Iterator[Recipe]:
        models = {key for key, node in self._nodes.items() if node["resource_type"] in TABLES}
        graph = {key: self._parents(key) & models for key in sorted(models)}
        for key in TopologicalSorter(graph).static_order():
            if key in self._tables:
                yield self._recipe(key)

    def _recipe(self, key: str) -> Recipe:
        node = self._nodes[key]
        parts = [key, *self._ephemerals(key)]
        codes = [self._nodes[part].get("raw_code", "") for part in parts]
        # dbt calls the materialization without being told so.
        entered = {f"materialization_{node['config']['materialized']}_"}
        macros = self._closure(codes, entered)
        own = [*codes, *(self._macros[m]["macro_sql"] for m in sorted(macros - self._trusted))]
        text = "\n".join(own)
        sources, unclear = self._named_sources(text)
        upstream = {parent for part in parts for parent in self._parents(part)} | sources
        inputs = {self._tables[parent] for parent in upstream if parent in self._tables}
        mentioned = frozenset(f"{a}.{b}".lower() for a, b in _PAIR.findall(text)) | {
            f"main.{word}" for word in re.findall(r"\w+", text.lower())
        }
        code = {
            "SQL": [*codes, self._columns(node, text)],
            **{f"macro {m.rpartition('.')[2]}": self._macros[m]["macro_sql"] for m in sorted(macros - self._trusted)},
            "macros of dbt and Cascade": [self._macros[m]["macro_sql"] for m in sorted(macros & self._trusted)],
            "configuration": [(self._nodes[p]["config"], self._nodes[p].get("unrendered_config")) for p in parts],
            "description": node.get("description"),
            "file": self._file(node),
            "batch of time": _batch(node["config"]),
            "part of dbt_project.yml": self._project(text),
            "version of dbt or Cascade": self._versions,
            "flags of dbt": {name: value for name, value in os.environ.items() if name.startswith(_FLAGS)},
        }
        reasons = self._reasons(node, parts, upstream, text)
        always = unclear or next(reasons, "") or self._hard_coded(mentioned, inputs, key)
        digests = {part: _hash(value) for part, value in code.items() if value}
        return Recipe(self._tables[key], digests, frozenset(inputs), mentioned, always)

    def _parents(self, key: str) -> set[str]:
        return set(self._nodes[key]["depends_on"].get("nodes", ())) if key in self._nodes else set()

    def _ephemerals(self, key: str) -> list[str]:
        """Return the ephemeral models that are part of a model's SQL."""
        found: list[str] = []
        waiting = sorted(self._parents(key))
        for parent in waiting:
            if parent in self._nodes and _is_ephemeral(self._nodes[parent]) and parent not in found:
                found.append(parent)
                waiting.extend(sorted(self._parents(parent)))
        return found

    @cached_property
    def _by_word(self) -> dict[str, set[str]]:
        """The macros that a word may call: of that name, or what `adapter.dispatch` makes of it."""
        found: dict[str, set[str]] = {}
        for key, macro in self._macros.items():
            for word in {macro["name"], macro["name"].partition("__")[2]} - {""}:
                found.setdefault(word, set()).add(key)
        return found

    @cached_property
    def _calls(self) -> dict[str, frozenset[str]]:
        return {key: self._called(macro["macro_sql"]) for key, macro in self._macros.items()}

    def _called(self, text: str) -> frozenset[str]:
        words = self._by_word.keys() & set(re.findall(r"\w+", text))
        return frozenset(key for word in words for key in self._by_word[word])

    def _closure(self, codes: Iterable[str], entered: Collection[str]) -> frozenset[str]:
        """Return the macros that may be called, by their names in the text: more than are, never fewer."""
        roots = frozenset().union(*(self._called(code) for code in codes)) | {
            key for key, macro in self._macros.items() if macro["name"].startswith(tuple(entered))
        }
        if roots not in self._closures:
            found, waiting = set(roots), list(roots)
            while waiting:
                more = self._calls[waiting.pop()] - found
                found |= more
                waiting.extend(more)
            self._closures[roots] = frozenset(found)
        return self._closures[roots]

    def _named_sources(self, text: str) -> tuple[set[str], str]:
        """Return the sources that a text names, and why they are not clear; dbt lists those only that it has met."""
        known = {(s["source_name"], s["name"]): key for key, s in self._sources.items()}
        found: set[str] = set()
        for match in _SOURCE.finditer(text):
            if (key := known.get((match[2], match[4]))) is None:
                return found, "it names a source in a way that only dbt understands"
            found.add(key)
        return found, ""

    def _reasons(
        self, node: Mapping[str, Any], parts: Iterable[str], upstream: Iterable[str], text: str
    ) -> Iterator[str]:
        """Say why a model may depend on more than what it reads."""
        config, raw = node["config"], node.get("raw_code", "")
        if (config.get("meta") or {}).get("cascade", {}).get("always"):
            yield "its meta says so"
        if node.get("language", "sql") != "sql":
            yield f"it is written in {node['language']}"
        if config.get("pre-hook") or config.get("post-hook"):
            yield "it has a hook"
        if any(n["resource_type"] == "operation" for n in self._nodes.values()):
            yield "dbt_project.yml has a hook"
        told = [self._nodes[part].get("unrendered_config") for part in parts]
        told += [self._sources[s].get(f"unrendered_{what}") for s in self._sources for what in ("database", "schema")]
        if "env_var" in json.dumps(told):
            yield "its configuration depends on env_var"
        for key in sorted(upstream):
            if key not in self._nodes and key not in self._sources:
                yield f"it depends on {key}"
            elif key in self._sources and self._is_elsewhere(self._sources[key]):
                yield f"it reads {self._tables[key]}, which is no table of the lakehouse"
        if more := _MORE.search(text):
            yield f"it depends on {' '.join(more[0].split()).rstrip('( ')}"
        if config["materialized"] != "incremental" and _OWN_TABLE.search(raw):
            yield "it reads its own table"
        if _appends(config) and "is_incremental" not in raw:
            yield "each run appends its rows"

    def _is_elsewhere(self, source: Mapping[str, Any]) -> bool:
        metas = [source.get("meta"), source.get("source_meta"), source.get("config", {}).get("meta")]
        external = any(_EXTERNAL & (meta or {}).keys() for meta in metas)
        return bool(external or source.get("external") or source["database"] != self._database)

    def _hard_coded(self, mentioned: Collection[str], inputs: Collection[str], key: str) -> str:
        """Return a model that is named without `ref`: dbt does not know in which order both are made."""
        for other, table in self._tables.items():
            if other in self._nodes and other != key and table not in inputs and table.lower() in mentioned:
                return f"it names {table} without ref()"
        return ""

    def _file(self, node: Mapping[str, Any]) -> str:
        """Return a digest of a seed's file."""
        if node["resource_type"] != "seed":
            return ""
        path = Path(node.get("root_path") or self._settings.dbt_path) / node["original_file_path"]
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "none"

    def _columns(self, node: Mapping[str, Any], text: str) -> object:
        """Return what is said of columns, where it can change rows."""
        matters = node["config"].get("contract", {}).get("enforced") or re.search(r"\bmodel\s*[.\[]", text)
        return (node.get("columns"), node.get("constraints")) if matters else None

    def _project(self, text: str) -> object:
        """Return what the project's own files say to all models; variables only to those that may read them."""
        keys = (*_PROJECT_KEYS, "vars") if re.search(r"\bvar\b", text) else _PROJECT_KEYS
        target = target_of(self._settings).target(self._settings)[0] if re.search(r"\btarget\b", text) else None
        return [{key: file[key] for key in keys if key in file} for file in self._project_files], target

    @cached_property
    def _project_files(self) -> list[dict[str, Any]]:
        root = self._settings.dbt_path
        files = [root / "dbt_project.yml", *sorted(root.glob("dbt_packages/*/dbt_project.yml")), root / "vars.yml"]
        return [yaml.safe_load(file.read_text("utf-8")) or {} for file in files if file.is_file()]

    @cached_property
    def _versions(self) -> dict[str, str]:
        names = ("cascade-runtime", "cascade-dbt", "dbt-core", f"dbt-{self._adapter}", "duckdb")
        return {"engine": self._settings.engine, **{name: metadata.version(name) for name in names}}


def _is_ephemeral(node: Mapping[str, Any]) -> bool:
    return bool(node.get("config", {}).get("materialized") == "ephemeral")


def _appends(config: Mapping[str, Any]) -> bool:
    if config["materialized"] != "incremental":
        return False
    strategy = config.get("incremental_strategy")
    return strategy == "append" or (not strategy and not config.get("unique_key"))


def _batch(config: Mapping[str, Any]) -> str:
    """Return the newest batch of a microbatch, which ends with the present: in time it reads more of the same rows."""
    if config.get("incremental_strategy") != "microbatch":
        return ""
    size = config.get("batch_size") or "hour"
    length = {"year": 4, "month": 7, "day": 10}.get(size, 13)
    return now()[:length]


def now() -> str:
    """Return the present time, which a microbatch ends with: ISO, UTC."""
    return dt.datetime.now(dt.UTC).isoformat()
