"""Find SQL that one of the engines refuses or understands differently: sqlglot takes a third of a second to import."""

from cascade_project.portability.check import check_project, check_sql, check_statement
from cascade_project.portability.findings import Columns, Finding, Report, label_of

__all__ = ["Columns", "Finding", "Report", "check_project", "check_sql", "check_statement", "label_of"]
