"""What the check of SQL for both engines finds."""

from __future__ import annotations

import dataclasses
from typing import Literal

__all__ = ["DIALECTS", "Columns", "Dialect", "Finding", "Report", "label_of"]

#: The columns of tables: schema to table to column to type, in DuckDB's words.
Columns = dict[str, dict[str, dict[str, str]]]


@dataclasses.dataclass(frozen=True)
class Dialect:
    """SQL that this check knows.

    Attributes:
        engine: The engine that runs it.
        label: What people call it.
    """

    engine: str
    label: str


#: By sqlglot's name: the two dialects that are compared.
DIALECTS = {"duckdb": Dialect("embedded", "DuckDB"), "trino": Dialect("trino", "Trino")}


def label_of(engine: str) -> str:
    """Return what people call an engine."""
    return next((dialect.label for dialect in DIALECTS.values() if dialect.engine == engine), engine)


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
    engine: str
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
