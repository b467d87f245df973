"""PyIceberg's catalog of one reference: refuses what would harm other references. The SQL kind lives here too."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import Any, NamedTuple

import sqlalchemy as sa
from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.update import TableRequirement, TableUpdate
from pyiceberg.typedef import Identifier

from cascade.catalog import TableChange, check_table_name
from cascade.catalog.database import TABLES, Database
from cascade.catalog.storage import storage_errors
from cascade.errors import CatalogError

__all__ = ["ReferenceCatalog", "SqlReference", "StagedCommit", "TableCommit", "TableLock"]

_FORGOTTEN = "`cascade maintain files` keeps what the log needs for 30 days, or for `--keep-history`."

TableLock = Callable[[str], AbstractContextManager[object]]
# A table, and what a commit requires of it and changes in it: the arguments of PyIceberg's `commit_table`.
TableCommit = tuple[Table, tuple[TableRequirement, ...], tuple[TableUpdate, ...]]


class StagedCommit(NamedTuple):
    """The next state of a table, whose metadata file is written.

    Attributes:
        name: `namespace.table`.
        before: Metadata location that the state was planned on; `None` for a new table.
        after: The table in its next state.
    """

    name: str
    before: str | None
    after: Table


class ReferenceCatalog(MetastoreCatalog, abc.ABC):
    """What the catalogs of one reference share, whatever keeps them."""

    _writable: bool
    _table_lock: TableLock

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Commit to one table; see `commit_tables`."""
        (committed,) = self.commit_tables([(table, requirements, updates)])
        return CommitTableResponse(metadata=committed.metadata, metadata_location=committed.metadata_location)  # type: ignore[call-arg]

    def commit_tables(self, commits: Sequence[TableCommit]) -> list[Table]:
        """Commit to several tables at once: all of them move, or none.

        Writers of one table take turns: the locks of all tables are held.

        Returns:
            The tables as they are then, in the order of the commits.

        Raises:
            CommitFailedException: A table was written since the commit was planned.
            TableAlreadyExistsError: A table that was to be created exists.
        """
        names = [self._require_writable(table.name()) for table, _, _ in commits]
        with ExitStack() as locks:
            for name in sorted(names):
                locks.enter_context(self._table_lock(name))
            staged = [self._staged(name, commit) for name, commit in zip(names, commits, strict=True)]
            self._move([commit for commit in staged if commit.after.metadata_location != commit.before])
        return [commit.after for commit in staged]

    @abc.abstractmethod
    def _move(self, staged: Sequence[StagedCommit]) -> None:
        """Move the pointers of all tables, or of none; raises as `commit_tables` does."""

    def _staged(self, name: str, commit: TableCommit) -> StagedCommit:
        table, requirements, updates = commit
        try:
            current = self.load_table(name)
        except NoSuchTableError:
            current = None
        after = self._update_and_stage_table(current, table.name(), requirements, updates)
        if current is not None and after.metadata == current.metadata:
            return StagedCommit(name, current.metadata_location, current)
        self._write_metadata(after.metadata, after.io, after.metadata_location)
        return StagedCommit(name, current.metadata_location if current else None, after)

    def at(self, table: str, location: str) -> Table:
        """Open a table in the state that a metadata location names."""
        io = self._load_file_io(location=location)
        try:
            with storage_errors(location, missing=False):
                metadata = FromInputFile.table_metadata(io.new_input(location))
        except FileNotFoundError:
            raise CatalogError(
                f"The files of this state of {table} are not there any more.",
                where=location,
                fix="if `main` holds it, go back to an entry of the log with `cascade branch restore`, and run again; "
                f"if it is one of the past: {_FORGOTTEN}",
            ) from None
        return Table(
            identifier=tuple(table.split(".")), metadata=metadata, metadata_location=location, io=io, catalog=self
        )

    def require_kept(self, entry: int, changes: Iterable[TableChange]) -> None:
        """Refuse to restore what garbage collection has removed.

        Args:
            entry: The entry of the log, for the message.
            changes: What the restore would move.

        Raises:
            CatalogError: Files of these states are gone; the tables are named.
        """
        wanted = [(change.table, change.after) for change in changes if change.after is not None]
        io = self._load_file_io(location=self.properties["warehouse"])
        with ThreadPoolExecutor(16) as threads:
            kept = list(threads.map(lambda location: io.new_input(location).exists(), [at for _, at in wanted]))
        if gone := [table for (table, _), there in zip(wanted, kept, strict=True) if not there]:
            raise CatalogError(
                f"Entry {entry} of the log is too old to be restored: its files were removed.",
                where=f"tables {', '.join(gone)}",
                fix=f"restore a later entry. {_FORGOTTEN}",
            )

    def _resolve_table_location(self, location: str | None, namespace: str, table_name: str) -> str:
        name = check_table_name(f"{namespace}.{table_name}")
        alike = [".".join(n) for n in self.list_namespaces() if ".".join(n).lower() == namespace.lower()]
        standing = {".".join(other) for space in alike for other in self.list_tables(space)}
        if same := [other for other in standing if other.lower() == name.lower() and other != name]:
            raise CatalogError(
                f"A table `{same[0]}` exists; SQL, which knows no capital letters, cannot tell `{name}` from it.",
                where=f"`{self.name}`",
                fix="give one of them another name.",
            )
        return super()._resolve_table_location(location, namespace, table_name)

    def _get_default_warehouse_location(self, database_name: str, table_name: str) -> str:
        return f"{self.properties['warehouse']}/{database_name}/{table_name}"

    def purge_table(self, identifier: str | Identifier) -> None:
        """Refuse: files belong to all references."""
        raise CatalogError(
            f"Purging {identifier} would destroy files that other branches, `main` included, still read.",
            fix="use drop_table; files that nothing refers to are collected later.",
        )

    def _require_writable(self, identifier: str | Identifier) -> str:
        name = check_table_name(".".join(self.identifier_to_tuple(identifier)))
        if not self._writable:
            raise CatalogError(
                f"`{self.name}` is never written directly.",
                where=f"table {name}",
                fix="write on a branch and promote it.",
            )
        return name


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
