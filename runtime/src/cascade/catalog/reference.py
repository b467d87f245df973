"""PyIceberg's catalog of one reference: refuses what would harm other references."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import Any, NamedTuple, cast

from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.io import InputStream
from pyiceberg.serializers import Compressor, FromByteStream
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.update import TableRequirement, TableUpdate
from pyiceberg.typedef import Identifier

from cascade.catalog import TableChange, check_table_name
from cascade.catalog.storage import storage_errors
from cascade.errors import CatalogError

__all__ = ["ReferenceCatalog", "StagedCommit", "TableCommit", "TableLock", "open_state"]

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

    def require_kept(self, state: str, changes: Iterable[TableChange]) -> None:
        """Refuse to go back to what garbage collection has removed.

        Args:
            state: What it is, for the message: an entry of the log, or a time.
            changes: What would move.

        Raises:
            CatalogError: Files of these states are gone; the tables are named.
        """
        wanted = [(change.table, change.after) for change in changes if change.after is not None]
        io = self._load_file_io(location=self.properties["warehouse"])
        with ThreadPoolExecutor(16) as threads:
            kept = list(threads.map(lambda location: io.new_input(location).exists(), [at for _, at in wanted]))
        if gone := [table for (table, _), there in zip(wanted, kept, strict=True) if not there]:
            raise CatalogError(
                f"{state} is too old: its files were removed.",
                where=f"tables {', '.join(gone)}",
                fix=f"take a later one. {_FORGOTTEN}",
            )

    def _resolve_table_location(self, location: str | None, namespace: str, table_name: str) -> str:
        name = check_table_name(f"{namespace}.{table_name}")
        alike = [".".join(n) for n in self.list_namespaces() if ".".join(n).lower() == namespace.lower()]
        existing = {".".join(other) for space in alike for other in self.list_tables(space)}
        if same := [other for other in existing if other.lower() == name.lower() and other != name]:
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


def open_state(table: str, location: str, catalog: Callable[[], ReferenceCatalog]) -> Table:
    """Open a table in the state that a metadata location names.

    Args:
        table: `namespace.table`.
        location: Of the metadata file.
        catalog: Opens what the table belongs to, once that is needed.

    Raises:
        CatalogError: The file is not there any more.
        ServiceError: S3 cannot be used.
    """
    try:
        with storage_errors(location, missing=False):
            is_local, compression = location.startswith("/"), Compressor.get_compressor(location)
            with open(location, "rb") if is_local else catalog()._load_file_io().new_input(location).open() as file:
                metadata = FromByteStream.table_metadata(cast(InputStream, file), compression=compression)
    except FileNotFoundError:
        raise CatalogError(
            f"The files of this state of {table} are not there any more.",
            where=location,
            fix="if `main` holds it, go back to an entry of the log with `cascade branch restore`, and run again; "
            f"if it is one of the past: {_FORGOTTEN}",
        ) from None
    late: Any = None
    state = _State(tuple(table.split(".")), metadata, location, late, late)
    del state.catalog, state.io
    state.open_catalog = catalog
    return state


class _State(Table):
    """A table whose metadata is read; catalog and file access, which take SQLAlchemy and Arrow, are made when used."""

    open_catalog: Callable[[], ReferenceCatalog]

    def __getattr__(self, name: str) -> Any:
        if name not in ("catalog", "io"):
            raise AttributeError(f"a table has no attribute {name!r}")
        made = self.open_catalog() if name == "catalog" else self.catalog._load_file_io(location=self.metadata_location)
        setattr(self, name, made)
        return made
