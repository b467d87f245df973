"""Look at a project without running it: what it defines, and everything that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass

from cascade.config import Settings
from cascade.errors import CascadeError, TransformError
from cascade.framework.definitions import build_definitions, problems_of
from cascade.iceberg.types import duckdb_type
from cascade.ingestion import load_plan
from cascade.names import SQL_METADATA, TABLE_METADATA
from cascade.publish import PROMOTE_KEY
from cascade_dbt.project import parse_project
from cascade_operations.events import Listener, Loading, ignore
from cascade_operations.plugins import inspect_plugins
from cascade_project.portability import Columns, Finding, Report, check_sql

__all__ = ["DefinedCheck", "Inspection", "inspect_project", "problem_text"]


@dataclass(frozen=True)
class DefinedCheck:
    """An asset check of a project.

    Attributes:
        name: Its name.
        asset: Key of the asset that it checks.
        blocking: Whether its failure keeps a branch from being promoted.
    """

    name: str
    asset: str
    blocking: bool


@dataclass(frozen=True)
class Inspection:
    """What a project defines.

    Attributes:
        problems: Everything that is wrong, in words.
        assets: Keys of all assets.
        checks: All checks.
        sql: Places in models, tests and checks that are not the same on both engines.
        skipped: What could not be looked at, and why.
        warnings: What works, and may not do what its author expects.
    """

    problems: tuple[str, ...]
    assets: tuple[str, ...]
    checks: tuple[DefinedCheck, ...]
    sql: tuple[Finding, ...]
    skipped: tuple[str, ...]
    warnings: tuple[str, ...]


def inspect_project(settings: Settings, *, tell: Listener = ignore) -> Inspection:
    """Load a project's definitions and all plugins, derive the tables' schemas, and read all SQL for both engines.

    Args:
        settings: The project's settings.
        tell: Told of progress.
    """
    tell(Loading("workflows and models"))
    definitions = build_definitions(settings)
    known = problems_of(definitions)
    problems = list(known.all)
    plugins = [str(record) for record in inspect_plugins() if record.cause]
    problems += [problem for problem in plugins if problem not in problems]
    graph = definitions.resolve_asset_graph()
    checks: list[DefinedCheck] = []
    statements: dict[str, str] = {}
    for check in sorted(key for key in graph.asset_check_keys if key.asset_key != PROMOTE_KEY):  # that is ours
        spec, asset = graph.get_check_spec(check), check.asset_key.to_user_string()
        checks.append(DefinedCheck(check.name, asset, spec.blocking))
        if check.asset_key not in graph.get_all_asset_keys():
            problems.append(f"check `{check.name}`: there is no asset {asset}")
        if SQL_METADATA in spec.metadata:
            statements[f"check {check.name} of {asset}"] = str(spec.metadata[SQL_METADATA])
    columns: Columns = {}
    for key in graph.executable_asset_keys:
        if TABLE_METADATA in graph.get(key).metadata:
            try:
                plan = load_plan(graph.get(key).assets_def)
            except CascadeError as error:
                problems.append(f"{key.to_user_string()}: {error}")
                continue
            if plan.schema is not None:
                namespace, table = plan.table.split(".")
                columns.setdefault(namespace, {})[table] = {
                    field.name.lower(): duckdb_type(field.field_type) for field in plan.schema.fields
                }
    sql = _read_sql(settings, statements, columns)
    breaking = [problem_text(finding) for finding in sql.findings if finding.engine == settings.engine]
    return Inspection(
        problems=(*problems, *sql.problems, *breaking),
        assets=tuple(sorted(key.to_user_string() for key in graph.executable_asset_keys)),
        checks=tuple(checks),
        sql=tuple(sql.findings),
        skipped=tuple(sql.skipped),
        warnings=tuple(known.warnings),
    )


def _read_sql(settings: Settings, statements: dict[str, str], columns: Columns) -> Report:
    """Look at the SQL of models, tests and checks."""
    try:
        manifest = parse_project(settings)
    except TransformError:
        manifest = None  # it is among the problems already
    return check_sql(settings, manifest, statements, columns)


def problem_text(finding: Finding) -> str:
    """Return a finding as one line: where, what, remedy."""
    place = ":".join(str(part) for part in (finding.file, finding.line, finding.column) if part is not None)
    return f"{place}: {finding.finding}; {finding.remedy}"
