"""Find SQL that one of the engines refuses or understands differently: what is found, and who looks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from cascade.config import Settings
from cascade.extensions import find_extension
from cascade.transform.parse import macros_folder

__all__ = ["Columns", "Engine", "Finding", "Report", "check_sql"]

#: The columns of tables: schema to table to column to type, in DuckDB's words.
Columns = dict[str, dict[str, dict[str, str]]]

Engine = Literal["embedded", "lakehouse"]


@dataclasses.dataclass(frozen=True, order=True)
class Finding:
    """A place in a project's SQL that is not the same to both engines.

    Attributes:
        file: Relative to the dbt project.
        line: From 1; `None` when it is not known: dbt does not keep the lines of YAML files.
        column: From 1; `None` when it is not known.
        model: Name of the model, test or check.
        engine: Where it breaks; for what means something else, the engine that is not set.
        kind: `breaks`, or `differs`: both run it and give other values.
        finding: What is wrong.
        remedy: What to do.
    """

    file: str
    line: int | None
    column: int | None
    model: str
    engine: Engine
    kind: Literal["breaks", "differs"]
    finding: str
    remedy: str


@dataclasses.dataclass
class Report:
    """What was found in a project.

    Attributes:
        findings: In the order of files and lines.
        problems: What is wrong whatever the engine: a model for the other engine, a wrong word in its `meta`.
        skipped: What could not be looked at, and why.
    """

    findings: list[Finding] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    skipped: list[str] = dataclasses.field(default_factory=list)


def check_sql(settings: Settings, manifest: Path | None, statements: Mapping[str, str], columns: Columns) -> Report:
    """Look at every model and test of the dbt project, and at other statements, with the eyes of both engines.

    Args:
        settings: The project's settings.
        manifest: What dbt's parser wrote; `None` when there is no dbt project.
        statements: SQL without Jinja, by what it belongs to.
        columns: The columns of tables that dbt does not make; those of models are added.
    """
    if manifest is None and not statements:
        return Report()
    looks = find_extension("cascade.portability", "lakehouse")
    if looks is None:
        return Report(skipped=["all SQL: cascade-lakehouse, which knows what Trino takes, is not installed"])
    report: Report = Report()
    if manifest is not None:
        report = looks.check_project(
            manifest, settings.dbt_path, macros_folder(settings), engine=settings.engine, columns=columns
        )
    for name, sql in statements.items():
        report.findings += looks.check_statement(sql, name=name, file=name, engine=settings.engine, columns=columns)
    return report
