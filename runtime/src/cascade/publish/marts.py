"""Copy the marts from `main` to the serving database: PostgreSQL, or a DuckDB file that any tool can open."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from filelock import FileLock

from cascade.catalog import MAIN, BranchingCatalog, rows_of
from cascade.config import Settings
from cascade.duck.session import connect, reach, use_utc
from cascade.duck.sql import identifier, qualified
from cascade.iceberg.read import view_sql
from cascade.iceberg.types import duckdb_type
from cascade.names import MARTS, PUBLISHED, SCHEMA
from cascade.plugins import load

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    from pydantic import SecretStr
    from pyiceberg.table import Table

__all__ = ["Mart", "PublishMarts", "ReadMarts", "Version", "marts_location", "publish_marts"]

_ROWS = 100_000


@dataclass(frozen=True)
class Version:
    """The state of a mart that was published. Adding or dropping a column creates no snapshot, only a schema."""

    snapshot_id: int
    schema_id: int


@dataclass(frozen=True)
class Mart:
    """A table of `main` to be published."""

    table: Table

    @property
    def version(self) -> Version:
        """The current state of the table."""
        return Version(rows_of(self.table) or 0, self.table.schema().schema_id)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Read all rows, batch by batch."""
        with connect(io=self.table.io) as connection:
            yield from connection.sql(view_sql(self.table)).to_arrow_reader(_ROWS)


ReadMarts = Callable[[], Mapping[str, Mart]]


class PublishMarts(Protocol):
    """Group `cascade.marts`, by the scheme of a URL: publishes the marts to a database."""

    def __call__(self, read: ReadMarts, url: SecretStr) -> dict[str, int]:
        """Publish all marts at one moment; see `publish_marts`.

        Args:
            read: Returns the marts of `main`, by name; call it when no other publisher is running.
            url: The setting `marts_url`.

        Returns:
            Rows by table, for the tables that were written.
        """


def publish_marts(catalog: BranchingCatalog, settings: Settings) -> dict[str, int]:
    """Copy the marts of `main` to the serving database, all of them at one moment.

    Readers see all old marts or all new ones. Table `cascade.published` says which snapshot each mart
    is a copy of. One publisher runs at a time, and reads `main` only then.

    Args:
        catalog: The catalog.
        settings: Where marts go: `marts_url`, or a DuckDB file below `data_dir`.

    Returns:
        Rows by table, for the tables that were written; empty when all were up to date.

    Raises:
        ServiceError: PostgreSQL cannot be reached or refuses, or readers keep their locks for too long.
        SchemaMismatchError: PostgreSQL cannot store a name, a type or a value, or a constraint on a mart is violated.
    """

    def read() -> Mapping[str, Mart]:
        pointers = catalog.pointers(MAIN)
        return {
            name: Mart(catalog.load(name, at)) for name, at in sorted(pointers.items()) if name.startswith(f"{MARTS}.")
        }

    if settings.marts_url is not None:
        publish = load("cascade.marts", "postgresql", PublishMarts, setting="marts_url")
        return publish(read, settings.marts_url)
    return _publish_to_file(read, settings.marts_path)


def marts_location(settings: Settings) -> str:
    """Say where marts are published, without a password."""
    if settings.marts_url is None:
        return str(settings.marts_path)
    url = urlsplit(settings.marts_url.get_secret_value())
    return f"postgresql://{url.hostname or ''}:{url.port or 5432}{url.path}"


def _publish_to_file(read: ReadMarts, target: Path) -> dict[str, int]:
    """Write a new file beside the old one, and replace the old one in one step."""
    import duckdb

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
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(target)
    return rows


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
