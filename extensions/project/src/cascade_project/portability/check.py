"""Find SQL that one of the engines refuses or understands differently.

Only `cascade validate` imports it: sqlglot takes a third of a second.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cascade.config import Settings
from cascade_dbt.project import macros_folder
from cascade_project.portability.findings import DIALECTS, Columns, Finding, Report
from cascade_project.portability.render import PLACEHOLDER, Project, Rendered, RenderError
from cascade_project.portability.statement import parse, places
from cascade_project.portability.typed import annotate, output_columns

__all__ = ["check_project", "check_sql", "check_statement"]


def check_sql(settings: Settings, manifest: Path | None, statements: Mapping[str, str], columns: Columns) -> Report:
    """Look at every model and test of the dbt project, and at other statements, with the eyes of both engines.

    Args:
        settings: The project's settings.
        manifest: What dbt's parser wrote; `None` when there is no dbt project.
        statements: SQL without Jinja, by what it belongs to.
        columns: The columns of tables that dbt does not make; those of models are added.
    """
    report = Report()
    engine = settings.engine
    if engine not in [dialect.engine for dialect in DIALECTS.values()]:
        known = " and ".join(dialect.label for dialect in DIALECTS.values())
        return Report(skipped=[f"all SQL: it is compared for {known}, and the engine is {engine}"])
    if manifest is not None:
        report = check_project(manifest, settings.dbt_path, macros_folder(settings), engine=engine, columns=columns)
    for name, sql in statements.items():
        report.findings += check_statement(sql, name=name, file=name, engine=engine, columns=columns)
    return report


def check_project(manifest: Path, root: Path, macros: Path, *, engine: str, columns: Columns) -> Report:
    """Look at every model and test of a dbt project.

    Args:
        manifest: What dbt's parser wrote.
        root: Folder of the dbt project.
        macros: Folder of the macros that are not the project's: they are portable, whatever they hold.
        engine: The one that is set.
        columns: The columns of tables that dbt does not make: schema to table to column to type.
    """
    loaded = json.loads(manifest.read_text("utf-8"))
    project = Project(loaded, root, macros)
    report = Report()
    found: dict[tuple[str, int | None, str], Finding] = {}
    for node in _nodes(loaded):
        engines = _engines(node, report)
        if engine not in engines:
            report.problems.append(
                f"{node['original_file_path']}: model `{node['name']}` is for the engine {' and '.join(engines)} only,"
                f" and the engine that is set is {engine}"
            )
        try:
            statements = {dialect: list(project.texts(node, dialect)) for dialect in DIALECTS}
        except RenderError as error:
            report.skipped.append(f"{node['original_file_path']}: {node['name']}: {error}")
            continue
        statements = _with_where(project, node, statements)
        for finding in _findings(statements, node["name"], engine, columns):
            if finding.engine in engines:
                # What is in no template is in the file that dbt names for the node.
                placed = dataclasses.replace(finding, file=finding.file or node["original_file_path"])
                found.setdefault((placed.file, placed.line, placed.finding), placed)
        if node["resource_type"] in ("model", "snapshot"):
            _learn(columns, node, statements["duckdb"][0].sql)
    report.findings = sorted(found.values(), key=lambda f: (f.file, f.line or 0, f.column or 0, f.finding))
    return report


def check_statement(
    sql: str, *, name: str = "", file: str = "", engine: str = "embedded", columns: Columns | None = None
) -> list[Finding]:
    """Look at one statement.

    Args:
        sql: SQL without Jinja.
        name: What it belongs to.
        file: Where it is.
        engine: The one that is set.
        columns: What is known of its tables.
    """
    starts = [0, *(match.end() for match in re.finditer("\n", sql))]
    rendered = Rendered(sql, False, [(start, file or "-", line, 1) for line, start in enumerate(starts, 1)])
    return list(_findings({key: [rendered] for key in DIALECTS}, name, engine, columns or {}))


def _findings(statements: Mapping[str, list[Rendered]], name: str, engine: str, columns: Columns) -> Iterator[Finding]:
    """Compare what each engine is given with what it knows."""
    other = next(dialect for dialect, known in DIALECTS.items() if known.engine != engine)
    seen: dict[str, set[tuple[str, int | None, str]]] = defaultdict(set)
    late: list[tuple[str, tuple[str, int | None, str], Finding]] = []
    for dialect, texts in statements.items():
        for rendered in texts:
            for place in places(rendered.sql, dialect, columns, dynamic=rendered.dynamic):
                file, line, column = rendered.origin(place.offset)
                breaks = place.engine != "both"
                finding = Finding(
                    file,
                    line,
                    column,
                    name,
                    DIALECTS[dialect if breaks else other].engine,
                    "breaks" if breaks else "differs",
                    place.says,
                    place.remedy,
                )
                key = (file, line, place.says)
                if key in seen[dialect]:
                    continue
                seen[dialect].add(key)
                if breaks:
                    yield finding
                else:
                    late.append((dialect, key, finding))
    # What means something else is only wrong where both engines are given it.
    both = seen["duckdb"] & seen["trino"]
    yield from (finding for dialect, key, finding in late if dialect == other and key in both)


def _nodes(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return the project's models, then its tests, each after those that it reads."""
    mine = manifest["metadata"]["project_name"]
    nodes = {
        key: node
        for key, node in manifest["nodes"].items()
        if node["package_name"] == mine
        and node["resource_type"] in ("model", "snapshot", "test")
        and node.get("language", "sql") == "sql"
    }
    done: set[str] = set()

    def visit(key: str) -> Iterator[Mapping[str, Any]]:
        if key in done or key not in nodes:
            return
        done.add(key)
        for parent in nodes[key].get("depends_on", {}).get("nodes", ()):
            yield from visit(parent)
        yield nodes[key]

    for key in sorted(nodes, key=lambda key: (nodes[key]["resource_type"] == "test", key)):
        yield from visit(key)


def _engines(node: Mapping[str, Any], report: Report) -> Iterable[str]:
    """Return the engines that a model is for: both, or those of its `meta`."""
    meta = (node.get("config") or {}).get("meta") or {}
    cascade = meta.get("cascade") or {}
    engines = cascade.get("engines") if isinstance(cascade, dict) else None
    known = [dialect.engine for dialect in DIALECTS.values()]
    if engines is None:
        return known
    if not isinstance(engines, list) or not engines or set(engines) - set(known):
        report.problems.append(
            f"{node['original_file_path']}: `{node['name']}` has meta.cascade.engines {engines!r};"
            f" give a list of {', '.join(known)}"
        )
        return known
    return engines


def _with_where(
    project: Project, node: Mapping[str, Any], statements: dict[str, list[Rendered]]
) -> dict[str, list[Rendered]]:
    """Add the `where` of a test, which dbt puts around its model."""
    where = (node.get("config") or {}).get("where")
    if not isinstance(where, str) or "{" in where:
        return statements
    before = f"select 1 from {PLACEHOLDER}model where "
    extra = Rendered(before + where, False, [(len(before), *project.place_of(node, where))])
    return {dialect: [*texts, extra] for dialect, texts in statements.items()}


def _learn(columns: Columns, node: Mapping[str, Any], sql: str) -> None:
    """Remember the columns of a model for those that read it."""
    tree = parse(sql)
    if tree is None:
        return
    found = output_columns(annotate(tree, columns))
    if found and all(kind for kind in found.values()):
        columns.setdefault(node["schema"], {})[node.get("alias") or node["name"]] = found
