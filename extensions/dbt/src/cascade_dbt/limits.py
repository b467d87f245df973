"""What a dbt project asks and nothing behind dbt's parser can do: found before anything runs, all of it at once."""

from __future__ import annotations

import graphlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cascade.config import Settings
from cascade.errors import TransformError
from cascade_dbt.targets import TABLES, target_of

__all__ = ["Problem", "problems", "require_buildable"]

_MATERIALIZATIONS = ("table", "view", "incremental", "ephemeral")
_STRATEGIES = ("merge", "delete+insert", "append", "microbatch")
_ON_SCHEMA_CHANGE = ("ignore", "append_new_columns", "sync_all_columns", "fail")
# What adapters of dbt do for these options, and models of Cascade would pass over without a word.
_OPTIONS = re.compile(r"grants|indexes|partitioned_by|sorted_by|sql_header|(incremental_)?predicates|merge_\w+")
_WRITES = re.compile(
    r"(?:^|;|%\}|\}\})(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:insert|update|delete|merge|copy|drop|alter|truncate"
    r"|create(?!\s+(?:or\s+replace\s+)?(?:temp|temporary|macro|function)\b))\b",
    re.IGNORECASE | re.DOTALL,
)


class Problem(NamedTuple):
    """Something that cannot be done.

    Attributes:
        name: Of the model, test or hook.
        what: One sentence.
        file: Relative to the dbt project.
        fix: What its author can do.
    """

    name: str
    what: str
    file: str
    fix: str


def require_buildable(settings: Settings, manifest: Mapping[str, Any]) -> None:
    """Refuse what dbt's parser lets pass and nothing behind it can do.

    Args:
        settings: The project's settings.
        manifest: dbt's manifest.

    Raises:
        TransformError: All that was found.
    """
    found = list(problems(settings, manifest))
    if len(found) == 1:
        raise TransformError(found[0].what, where=str(settings.dbt_path / found[0].file), fix=f"{found[0].fix}.")
    if found:
        lines = "".join(f"\n  {problem.file}: {problem.what} Fix: {problem.fix}." for problem in found)
        raise TransformError(
            f"{len(found)} things that the dbt project asks cannot be done:{lines}",
            where=str(settings.dbt_path),
            fix="do what is said after each of them.",
        )


def problems(settings: Settings, manifest: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what cannot be done.

    Args:
        settings: The project's settings.
        manifest: dbt's manifest.
    """
    target = target_of(settings)
    nodes, database = manifest["nodes"], target.target(settings)[0]["database"]
    for node in [*nodes.values(), *manifest.get("functions", {}).values()]:
        found = [*_of_any(node), *_of_kind(node, database)]
        if not target.keeps_tables:
            found += _of_what_is_lost(node, manifest)
        for what, fix in found:
            yield Problem(node["name"], what, node["original_file_path"], fix)
    try:
        graph = {key: set(parents) & nodes.keys() for key, parents in manifest["parent_map"].items()}
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        files = [nodes[key]["original_file_path"] for key in error.args[1]]
        what = f"Models depend on each other in a circle: {' -> '.join(files)}."
        yield Problem(nodes[error.args[1][0]]["name"], what, files[0], "take one `ref` of the circle away")


def _of_any(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    asked = (node.get("config", {}).get("meta") or {}).get("cascade", {})
    # `engines` is read by `cascade validate`.
    known = isinstance(asked, dict) and not asked.keys() - {"always", "engines"}
    if not known or not isinstance(asked.get("always", False), bool):
        yield (
            f"`meta: {{cascade: {asked}}}` of {node['name']} means nothing.",
            "write `always: true` to have it computed in every run, `engines: [embedded]` for SQL of one engine, or "
            "take it away",
        )


def _of_kind(node: Mapping[str, Any], database: str) -> Iterator[tuple[str, str]]:
    name, kind, config = node["name"], node["resource_type"], node.get("config", {})
    if kind == "function":
        yield f"The function {name} would not be kept in the lakehouse.", "write a macro"
    if kind not in TABLES:
        return
    if node.get("language", "sql") != "sql":
        yield (
            f"The model {name} is written in {node['language']}, and models are SQL.",
            "write it as a SELECT, or as a function with `@cascade_transform` in `workflows`",
        )
    if kind == "model" and config.get("materialized", "table") not in _MATERIALIZATIONS:
        yield (
            f"{name}: materialized='{config['materialized']}' is not kept in the lakehouse.",
            f"let it be one of {', '.join(_MATERIALIZATIONS)}",
        )
    if node.get("database", database) != database:
        yield f"{name} is in another database, {node['database']}; there is one.", "take `database` away; use `schema`"
    for option in (option for option, value in config.items() if value and _OPTIONS.fullmatch(option)):
        yield (
            f"{name}: its option {option} is not supported.",
            "take it away; what it does to rows is written into the SELECT",
        )
    if config.get("materialized") == "incremental":
        yield from _of_incremental(node)
    yield from _of_contract(node)


def _of_incremental(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    name, config = node["name"], node["config"]
    strategy = config.get("incremental_strategy") or ("merge" if config.get("unique_key") else "append")
    if strategy not in _STRATEGIES:
        yield f"{name}: its incremental_strategy '{strategy}' is not known.", f"name one of {', '.join(_STRATEGIES)}"
    if strategy in ("merge", "delete+insert") and not config.get("unique_key"):
        yield f"{name}: its incremental_strategy '{strategy}' needs a unique_key.", "name its columns"
    policy = config.get("on_schema_change", "ignore")
    if policy not in _ON_SCHEMA_CHANGE:
        known = ", ".join(_ON_SCHEMA_CHANGE)
        yield f"{name}: its on_schema_change '{policy}' is none of {known}.", "name one of them"


def _of_contract(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not node.get("config", {}).get("contract", {}).get("enforced"):
        return
    constraints = [*(node.get("constraints") or [])]
    for column in node["columns"].values():
        constraints += column.get("constraints") or []
    for constraint in constraints:
        if constraint["type"] not in ("not_null", "check") and constraint.get("warn_unsupported", True):
            yield (
                f"{node['name']}: nothing enforces the constraint {constraint['type']} of its contract.",
                "use a data test, such as unique or relationships, or say `warn_unsupported: false` to keep it as a "
                "comment",
            )


def _of_what_is_lost(node: Mapping[str, Any], manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Find what dbt itself would write into memory, where it is gone with the process."""
    name, config = node["name"], node.get("config", {})
    hooks = [hook["sql"] for when in ("pre-hook", "post-hook") for hook in config.get(when) or []]
    if node["resource_type"] == "operation":
        hooks += [node["raw_code"], *_called(node, manifest)]
    for found in filter(None, map(_WRITES.search, hooks)):
        said = found.string[found.start() :].lstrip(";%} \n")[:80]
        yield f"A hook of {name} writes beside the lakehouse: {said}.", "write the rows with a model"


def _called(node: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[str]:
    """Return the texts of the macros that a hook calls, and that they call, without those of dbt."""
    waiting = list(node.get("depends_on", {}).get("macros", ()))
    for key in waiting:
        waiting += [more for more in manifest["macros"][key]["depends_on"]["macros"] if more not in waiting]
    macros = [manifest["macros"][key] for key in waiting]
    dbt = ("dbt", f"dbt_{manifest['metadata']['adapter_type']}") if macros else ()
    return [macro["macro_sql"] for macro in macros if macro["package_name"] not in dbt]
