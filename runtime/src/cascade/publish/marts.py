"""Copy the marts from `main` to the serving database: PostgreSQL, or a DuckDB file that any tool can open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from cascade.catalog import MAIN, BranchingCatalog, rows_of
from cascade.config import Settings
from cascade.duck.session import connect
from cascade.iceberg.read import view_sql
from cascade.names import MARTS
from cascade.plugins import load

if TYPE_CHECKING:
    import pyarrow as pa
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
    """Group `cascade.marts`, by the kind of database, such as `duckdb` or `postgresql`: publishes the marts to it."""

    def __call__(self, read: ReadMarts, settings: Settings) -> dict[str, int]:
        """Publish all marts at one moment; see `publish_marts`.

        Args:
            read: Returns the marts of `main`, by name; call it when no other publisher is running.
            settings: The project's settings: `marts_url`, or `marts_path`.

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

    scheme = "postgresql" if settings.marts_url else "duckdb"
    return load("cascade.marts", scheme, PublishMarts, where="setting `marts_url`")(read, settings)


def marts_location(settings: Settings) -> str:
    """Say where marts are published, without a password."""
    if settings.marts_url is None:
        return str(settings.marts_path)
    url = urlsplit(settings.marts_url.get_secret_value())
    return f"postgresql://{url.hostname or ''}:{url.port or 5432}{url.path}"
