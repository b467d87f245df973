"""Publish the marts to a DuckDB file that any tool can open."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from cascade.config import Settings
from cascade.duck.session import reach, use_utc
from cascade.duck.sql import identifier, qualified
from cascade.iceberg.read import view_sql
from cascade.iceberg.types import duckdb_type
from cascade.names import MARTS, PUBLISHED, SCHEMA
from cascade.publish.marts import Mart, ReadMarts, Version

if TYPE_CHECKING:
    import duckdb

__all__ = ["publish_to_file"]


def publish_to_file(read: ReadMarts, settings: Settings) -> dict[str, int]:
    """Write a new file beside the old one, and replace the old one in one step; see `publish_marts`.

    Args:
        read: Reads the marts of `main`; called when it is this publisher's turn.
        settings: `marts_path` is the file.
    """
    import duckdb

    target = settings.marts_path
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        marts = read()
        versions = {name: mart.version for name, mart in marts.items()}
        if _published(target) == versions:
            return {}
        fresh = target.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        rows: dict[str, int] = {}
        with duckdb.connect(str(fresh)) as connection:
            use_utc(connection)
            connection.execute(f"CREATE SCHEMA {identifier(MARTS)}")
            connection.execute(f"CREATE SCHEMA {SCHEMA}")
            connection.execute(
                f"CREATE TABLE {SCHEMA}.{PUBLISHED}"
                " (table_name VARCHAR, snapshot_id BIGINT, schema_id INTEGER, published_at TIMESTAMPTZ)"
            )
            for name, mart in marts.items():
                rows[name] = _copy_to_file(connection, name, mart)
                connection.execute(
                    f"INSERT INTO {SCHEMA}.{PUBLISHED} VALUES (?, ?, ?, ?)",
                    [name, versions[name].snapshot_id, versions[name].schema_id, dt.datetime.now(dt.UTC)],
                )
            connection.execute("CHECKPOINT")  # what closing cannot write it leaves beside the file, without a word
        _sync(fresh)
        fresh.replace(target)
        _sync(target.parent)  # else a power cut brings the old marts back
    return rows


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _copy_to_file(connection: duckdb.DuckDBPyConnection, name: str, mart: Mart) -> int:
    where = qualified(name)
    fields = mart.table.schema().fields
    columns = ", ".join(f"{identifier(field.name)} {duckdb_type(field.field_type)}" for field in fields)
    connection.execute(f"CREATE TABLE {where} ({columns})")
    reach(connection, mart.table.io)
    ((rows,),) = connection.execute(f"INSERT INTO {where} {view_sql(mart.table)}").fetchall()
    return int(rows)


def _published(target: Path) -> dict[str, Version] | None:
    import duckdb

    if not target.is_file():
        return None
    try:
        with duckdb.connect(str(target), read_only=True) as connection:
            found = connection.execute(
                f"SELECT table_name, snapshot_id, schema_id FROM {SCHEMA}.{PUBLISHED}"
            ).fetchall()
    except duckdb.Error:
        return None  # not written by Cascade, damaged, or by another release: it is written again
    return {name: Version(*version) for name, *version in found}
