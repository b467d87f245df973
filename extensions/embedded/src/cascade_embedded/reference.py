"""PyIceberg's SQL catalog of one reference, which moves several tables in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, TableAlreadyExistsError
from pyiceberg.table import Table
from pyiceberg.typedef import Identifier

from cascade.catalog.reference import ReferenceCatalog, StagedCommit, TableLock
from cascade_embedded.database import TABLES, Database

__all__ = ["SqlReference"]


class SqlReference(ReferenceCatalog, SqlCatalog):
    """One reference of the embedded catalog; shares the connection pool of the whole."""

    def __init__(
        self, database: Database, properties: Mapping[str, str], table_lock: TableLock, ref: str, *, writable: bool
    ) -> None:
        MetastoreCatalog.__init__(self, ref, **properties)
        self.engine = database.engine
        self._database = database
        self._schema_version = "v1"
        self._table_lock = table_lock
        self._writable = writable

    def _move(self, staged: Sequence[StagedCommit]) -> None:
        def move(connection: sa.Connection) -> None:
            for commit in staged:
                self._move_one(connection, commit)

        self._database.transaction(move, write=True)

    def _move_one(self, connection: sa.Connection, staged: StagedCommit) -> None:
        namespace, table = staged.name.split(".")
        key = {"catalog_name": self.name, "table_namespace": namespace, "table_name": table}
        row = sa.and_(*(TABLES.c[column] == value for column, value in key.items()))
        current = connection.execute(sa.select(TABLES.c.metadata_location).where(row)).scalar()
        if current == staged.after.metadata_location:
            return  # it was committed, and only the answer was lost
        if current != staged.before:
            if staged.before is None:
                raise TableAlreadyExistsError(f"Table {staged.name} already exists")
            raise CommitFailedException(f"{staged.name} on branch {self.name} was written by another process")
        values = {"metadata_location": staged.after.metadata_location, "previous_metadata_location": staged.before}
        if staged.before is None:
            connection.execute(TABLES.insert().values(**key, **values, iceberg_type="TABLE"))
        else:
            connection.execute(TABLES.update().where(row).values(**values))

    def create_table(self, identifier: str | Identifier, *args: Any, **kwargs: Any) -> Table:
        """Create a table; its namespace comes with it."""
        self._require_writable(identifier)
        self.create_namespace_if_not_exists(self.namespace_from(identifier))
        return super().create_table(identifier, *args, **kwargs)

    def register_table(self, identifier: str | Identifier, metadata_location: str, overwrite: bool = False) -> Table:
        """Register a metadata file as a table."""
        self._require_writable(identifier)
        self.create_namespace_if_not_exists(self.namespace_from(identifier))
        return super().register_table(identifier, metadata_location, overwrite)

    def drop_table(self, identifier: str | Identifier) -> None:
        """Drop a table from this reference; files stay, other references read them."""
        self._require_writable(identifier)
        super().drop_table(identifier)

    def rename_table(self, from_identifier: str | Identifier, to_identifier: str | Identifier) -> Table:
        """Rename a table on this reference."""
        self._require_writable(from_identifier)
        self._require_writable(to_identifier)
        self.create_namespace_if_not_exists(self.namespace_from(to_identifier))
        return super().rename_table(from_identifier, to_identifier)
