"""A load by PyIceberg on its own catalog, without Cascade: what the tests of faults are measured against."""

from pathlib import Path

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog

from support.works import Seen, Work

__all__ = ["BARE"]

_TABLES = ("raw.a", "raw.b")


def _catalog() -> SqlCatalog:
    folder = Path.cwd() / ".cascade"
    return SqlCatalog("bare", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")


def _prepare() -> None:
    Path(".cascade").mkdir()
    catalog = _catalog()
    catalog.create_namespace("raw")
    for table in _TABLES:
        catalog.create_table(table, _rows(1).schema).append(_rows(1))
    catalog.close()


def _load() -> None:
    """Append what came since the last time, to one table after the other."""
    catalog = _catalog()
    first = catalog.load_table(_TABLES[0])
    upto = max(first.scan().to_arrow()["id"].to_pylist())
    if upto < 20:
        for table in _TABLES:
            catalog.load_table(table).append(_rows(11))
    catalog.close()


def _rows(first: int) -> pa.Table:
    return pa.table({"id": range(first, first + 10)})


def _seen() -> Seen:
    catalog = _catalog()
    seen = {table: sorted(catalog.load_table(table).scan().to_arrow()["id"].to_pylist()) for table in _TABLES}
    catalog.close()
    return seen


BARE = Work(_prepare, _load, _seen)
