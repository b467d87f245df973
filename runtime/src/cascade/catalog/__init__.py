"""Open the catalog; create, merge and drop branches. One interface, PyIceberg at the edges."""

from cascade.catalog.base import (
    MAIN,
    Branch,
    BranchingCatalog,
    CatalogOpener,
    Locations,
    LogEntry,
    TableChange,
    check_reference_name,
    check_table_name,
    compare,
    open_catalog,
    rows_of,
)

__all__ = [
    "MAIN",
    "Branch",
    "BranchingCatalog",
    "CatalogOpener",
    "Locations",
    "LogEntry",
    "TableChange",
    "check_reference_name",
    "check_table_name",
    "compare",
    "open_catalog",
    "rows_of",
]
