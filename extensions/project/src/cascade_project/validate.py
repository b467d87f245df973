"""Look at a project without running it: what it defines, and everything that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cascade.config import Settings
from cascade.errors import CascadeError, TransformError
from cascade.framework.definitions import build_definitions, problems_of
from cascade.ingestion import load_plan
from cascade.names import SQL_METADATA, TABLE_METADATA
from cascade.operations.plugins import inspect_plugins
from cascade_dbt.project import parse_project
from cascade_project.portability import Columns, Finding, check_sql

if TYPE_CHECKING:
    from pyiceberg.schema import Schema

__all__ = ["Inspection", "inspect_project", "problem_text"]


@dataclass
class Inspection:
    """What a project defines.

    Attributes:
        problems: Everything that is wrong, in words.
        assets: Keys of all assets.
        checks: Name, asset and whether it blocks, of all checks.
        sql: Places in models, tests and checks that are not the same to both engines.
        skipped: What could not be looked at, and why.
        warnings: What works, and may not do what its author expects.
    """

    problems: list[str] = field(default_factory=list)
    assets: list[str] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    sql: list[Finding] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def breaking(self, engine: str) -> list[Finding]:
        """Return the places that break on an engine, or mean something else there."""
        return [finding for finding in self.sql if finding.engine == engine]


def inspect_project(settings: Settings) -> Inspection:
    """Load a project's definitions and all plugins, derive the tables' schemas, and read all SQL for both engines.

    Args:
        settings: The project's settings.
    """
    definitions = build_definitions(settings)
    known = problems_of(definitions)
    found = Inspection(problems=known.all, warnings=known.warnings)
    plugins = [str(record) for record in inspect_plugins() if record.cause]
    found.problems += [problem for problem in plugins if problem not in found.problems]
    graph = definitions.resolve_asset_graph()
    found.assets = sorted(key.to_user_string() for key in graph.executable_asset_keys)
    statements: dict[str, str] = {}
    for check in sorted(graph.asset_check_keys):
        spec, asset = graph.get_check_spec(check), check.asset_key.to_user_string()
        found.checks.append({"name": check.name, "asset": asset, "blocking": spec.blocking})
        if check.asset_key not in graph.get_all_asset_keys():
            found.problems.append(f"check `{check.name}`: there is no asset {asset}")
        if SQL_METADATA in spec.metadata:
            statements[f"check {check.name} of {asset}"] = str(spec.metadata[SQL_METADATA])
    columns: Columns = {}
    for key in graph.executable_asset_keys:
        if TABLE_METADATA in graph.get(key).metadata:
            try:
                plan = load_plan(graph.get(key).assets_def)
            except CascadeError as error:
                found.problems.append(f"{key.to_user_string()}: {error}")
                continue
            if plan.schema is not None:
                namespace, table = plan.table.split(".")
                columns.setdefault(namespace, {})[table] = _sql_types(plan.schema)
    _read_sql(settings, found, statements, columns)
    return found


def _read_sql(settings: Settings, found: Inspection, statements: dict[str, str], columns: Columns) -> None:
    """Look at the SQL of models, tests and checks."""
    try:
        manifest = parse_project(settings)
    except TransformError:
        manifest = None  # it is among the problems already
    report = check_sql(settings, manifest, statements, columns)
    found.sql, found.skipped = report.findings, report.skipped
    found.problems += [*report.problems, *map(problem_text, found.breaking(settings.engine))]


def problem_text(finding: Finding) -> str:
    """Return a finding as one line: where, what, remedy."""
    place = ":".join(str(part) for part in (finding.file, finding.line, finding.column) if part is not None)
    return f"{place}: {finding.finding}; {finding.remedy}"


def _sql_types(schema: Schema) -> dict[str, str]:
    """Return a table's columns with DuckDB's words for their types."""
    words = {"long": "bigint", "int": "integer", "string": "varchar", "timestamptz": "timestamp with time zone"}
    types = {field.name.lower(): str(field.field_type) for field in schema.fields}
    return {name: words.get(kind, kind if "<" not in kind else "unknown") for name, kind in types.items()}
