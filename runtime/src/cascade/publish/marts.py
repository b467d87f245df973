"""Copy the marts from `main` to the serving database: a DuckDB file that any tool can open."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING

from filelock import FileLock

from cascade.catalog import MAIN, BranchingCatalog
from cascade.config import Settings
from cascade.iceberg.read import quote, view_sql

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MARTS", "publish_marts"]

#: The namespace that is published.
MARTS = "marts"


def publish_marts(lake: BranchingCatalog, settings: Settings) -> dict[str, int]:
    """Write the marts of `main` to the DuckDB file, all of them at one moment.

    The file is made anew beside the old one and takes its place in one step: readers see all of the old
    or all of the new. Table `cascade.published` says which snapshot each mart came from.

    Args:
        lake: The catalog.
        settings: Where the file is.

    Returns:
        Published table to rows; empty when the file holds the same snapshots already.
    """
    import duckdb

    pointers = {t: at for t, at in lake.pointers(MAIN).items() if t.startswith(f"{MARTS}.")}
    tables = {name: lake.load(name, at) for name, at in sorted(pointers.items())}
    heads = {name: snapshot.snapshot_id if (snapshot := t.current_snapshot()) else 0 for name, t in tables.items()}
    target = settings.marts_path
    with FileLock(f"{target}.lock"):
        if _published(target) == heads:
            return {}
        fresh = target.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        rows: dict[str, int] = {}
        with duckdb.connect(str(fresh)) as connection:
            connection.execute("SET TimeZone='UTC'")
            connection.execute(f"CREATE SCHEMA {quote(MARTS)}")
            connection.execute("CREATE SCHEMA cascade")
            connection.execute(
                "CREATE TABLE cascade.published (table_name VARCHAR, snapshot_id BIGINT, published_at TIMESTAMPTZ)"
            )
            for name, table in tables.items():
                where = ".".join(quote(part) for part in name.split("."))
                connection.execute(f"CREATE TABLE {where} AS {view_sql(table)}")
                rows[name] = connection.execute(f"SELECT count(*) FROM {where}").fetchall()[0][0]
                connection.execute(
                    "INSERT INTO cascade.published VALUES (?, ?, ?)", [name, heads[name], dt.datetime.now(dt.UTC)]
                )
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(target)
    return rows


def _published(target: Path) -> dict[str, int] | None:
    import duckdb

    if not target.is_file():
        return None
    try:
        with duckdb.connect(str(target), read_only=True) as connection:
            return dict(connection.execute("SELECT table_name, snapshot_id FROM cascade.published").fetchall())
    except duckdb.Error:
        return None  # not a file of ours, or a torn one: it is made anew
