"""Find SQL that one of the engines refuses or understands differently: sqlglot takes a third of a second to import."""

from cascade_project.portability.check import check_project, check_sql, check_statement
from cascade_project.portability.findings import Columns, Engine, Finding, Report

__all__ = ["Columns", "Engine", "Finding", "Report", "check_project", "check_sql", "check_statement"]
