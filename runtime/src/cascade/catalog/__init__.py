"""Open the catalog; create, merge and drop branches. One interface, PyIceberg at the edges."""

from cascade.catalog.base import (
    MAIN,
    BranchingCatalog,
    CatalogOpener,
    check_reference_name,
    check_table_name,
    open_catalog,
)
from cascade.catalog.changes import Branch, LogEntry, TableChange, compare, rows_of, user_name

__all__ = [
    "MAIN",
    "Branch",
    "BranchingCatalog",
    "CatalogOpener",
    "LogEntry",
    "TableChange",
    "check_reference_name",
    "check_table_name",
    "compare",
    "open_catalog",
    "rows_of",
    "user_name",
]
