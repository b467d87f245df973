"""The tables of the embedded catalog, and the database that they are in."""

from __future__ import annotations

import abc
import errno
import os
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from pydantic import SecretStr

from cascade.catalog.locks import Locks
from cascade.errors import CatalogError
from cascade.names import BASES_TABLE, BRANCHES_TABLE, LOG_TABLE, PROPERTIES_TABLE
from cascade_embedded.locks import FileLocks

__all__ = [
    "BASES",
    "BRANCHES",
    "CATALOG_FILE",
    "LOG",
    "PROPERTIES",
    "SCHEMA",
    "TABLES",
    "Database",
    "DatabaseFactory",
    "SqliteDatabase",
]

#: The SQLite file of a catalog.
CATALOG_FILE = "catalog.db"

_BUSY_SECONDS = 60
_ATTEMPTS = 5
# What the operating system says of a folder that cannot be written, and can be read all the same.
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)

T = TypeVar("T")

SCHEMA = sa.MetaData()
BRANCHES = sa.Table(
    BRANCHES_TABLE,
    SCHEMA,
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("kind", sa.String(10), nullable=False),
    sa.Column("source", sa.String(100), nullable=False),
    sa.Column("created_at", sa.String(40), nullable=False),
)
# The metadata location of each table when the branch was created, or last promoted.
BASES = sa.Table(
    BASES_TABLE,
    SCHEMA,
    sa.Column("branch", sa.String(100), primary_key=True),
    sa.Column("table_namespace", sa.String(255), primary_key=True),
    sa.Column("table_name", sa.String(255), primary_key=True),
    sa.Column("metadata_location", sa.String(1000), nullable=False),
)
LOG = sa.Table(
    LOG_TABLE,
    SCHEMA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.String(40), nullable=False),
    sa.Column("kind", sa.String(10), nullable=False),
    sa.Column("source", sa.String(100), nullable=False),
    sa.Column("target", sa.String(100), nullable=False),
    sa.Column("changes", sa.Text, nullable=False),  # JSON: {"by": user, "tables": [[table, before, after], ...]}
)
PROPERTIES = sa.Table(
    PROPERTIES_TABLE,
    SCHEMA,
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("value", sa.String(1000), nullable=False),
)
# PyIceberg's own two tables. Its declaration of them takes SQLAlchemy's ORM; a test compares.
TABLES = sa.Table(
    "iceberg_tables",
    SCHEMA,
    sa.Column("catalog_name", sa.String(255), primary_key=True),
    sa.Column("table_namespace", sa.String(255), primary_key=True),
    sa.Column("table_name", sa.String(255), primary_key=True),
    sa.Column("metadata_location", sa.String(1000)),
    sa.Column("previous_metadata_location", sa.String(1000)),
    sa.Column("iceberg_type", sa.String(5)),
)
sa.Table(
    "iceberg_namespace_properties",
    SCHEMA,
    sa.Column("catalog_name", sa.String(255), primary_key=True),
    sa.Column("namespace", sa.String(255), primary_key=True),
    sa.Column("property_key", sa.String(255), primary_key=True),
    sa.Column("property_value", sa.String(1000), nullable=False),
)


class Database(abc.ABC):
    """What keeps the pointers of an embedded catalog, and lets one writer work at a time."""

    engine: sa.Engine
    locks: Locks
    #: Why nothing can be written; `None` when it can.
    refused: OSError | None = None

    @abc.abstractmethod
    def transaction(self, work: Callable[[sa.Connection], T], *, write: bool) -> T:
        """Run inside one transaction, again while that is worth another try.

        All statements of a reading one see one state; a writing one keeps other writers out from its first statement
        on.

        Raises:
            ServiceError: The database is a server that cannot be used.
        """


class DatabaseFactory(Protocol):
    """Group `cascade.databases`, by the scheme of a URL: opens the database of a catalog that machines share."""

    def __call__(self, url: SecretStr) -> Database:
        """Open the database.

        Args:
            url: The setting `catalog_url`.
        """


class SqliteDatabase(Database):
    """A SQLite file whose writers wait for each other, and locks beside it; read only where nothing can be written.

    Args:
        folder: Where they are; it is made when it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / CATALOG_FILE
        self.refused = _refusal(folder, self._file)
        self.locks = FileLocks(folder / "locks")
        url = sa.URL.create("sqlite", database=str(self._file))  # in a text, %20 would be a space
        if self.refused is None:
            self.engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
            sa.event.listen(self.engine, "connect", _configure_connection)
        else:
            self.engine = sa.create_engine(url, creator=self._connect_to_read, poolclass=sa.pool.NullPool)
        sa.event.listen(self.engine, "begin", _begin)
        sa.event.listen(self.engine, "handle_error", _refuse_damage)

    def transaction(self, work: Callable[[sa.Connection], T], *, write: bool) -> T:
        """Run inside one transaction, again after SQLite has lost a lock."""
        if write and self.refused is not None:
            raise CatalogError(
                f"The lakehouse can be read here, and not be written: {self.refused.strerror}.",
                where=str(self._file.parent),
                fix="let this user write into that folder; `cascade doctor` says whether its disk is full.",
            )
        for attempt in range(_ATTEMPTS):
            try:
                options, before = {"cascade_write": write}, self._state()
                with self.engine.connect().execution_options(**options) as connection, connection.begin():
                    done = work(connection)
                if self._state() == before:
                    return done  # else another user has written while this one read without a lock
            except sa.exc.OperationalError as error:
                if "database is locked" not in str(error) or attempt == _ATTEMPTS - 1:
                    raise
        raise CatalogError(
            "catalog.db was written while it was read, each time.", where=str(self._file), fix="try again."
        )

    def _connect_to_read(self) -> sqlite3.Connection:
        """Open the file where SQLite cannot make the files that it keeps beside it."""
        for mode in ("mode=ro", "immutable=1"):  # the second when nobody has it open: nothing tells what is locked
            connection = sqlite3.connect(
                f"{self._file.as_uri()}?{mode}", timeout=_BUSY_SECONDS, isolation_level=None, uri=True
            )
            try:
                connection.execute("SELECT 1 FROM sqlite_master")
                break
            except sqlite3.OperationalError:
                connection.close()
                if mode == "immutable=1":
                    raise
        return connection

    def _state(self) -> list[tuple[int, int, int]]:
        """Return what changes when a process writes the database; nothing where locks keep it from doing so."""
        if self.refused is None:
            return []
        files = [file for name in ("", "-wal") if (file := Path(f"{self._file}{name}")).exists()]
        return [(s.st_ino, s.st_size, s.st_mtime_ns) for s in map(os.stat, files)]


def _refusal(folder: Path, file: Path) -> OSError | None:
    """Try to write into a folder and a file, and return what the operating system says against it."""
    try:
        (folder / "locks").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        # Not by opening it: closing a file drops every lock that this process has on it, also those of SQLite
        # (https://www.sqlite.org/howtocorrupt.html, 2.2), and other processes then write over what it reads.
        if file.is_file() and not os.access(file, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
    except OSError as error:
        if error.errno not in _REFUSALS or not file.exists():
            raise
        return error
    return None


def _configure_connection(connection: Any, _record: object) -> None:
    # SQLAlchemy begins transactions itself (`_begin`), not the driver.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    # A transaction that reads before it writes must lock first, or a writer in between makes it fail.
    write = connection.get_execution_options().get("cascade_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _refuse_damage(context: sa.ExceptionContext) -> None:
    """Say so when SQLite finds that its file is no database, or that its pages contradict each other."""
    code = getattr(context.original_exception, "sqlite_errorcode", 0) & 0xFF  # without what it says more exactly
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        raise CatalogError(
            f"catalog.db is damaged ({context.original_exception}): what is on `main` cannot be read.",
            where=str(context.engine.url.database if context.engine else "catalog.db"),
            fix="put catalog.db and all files `catalog.db-*` back from one backup (`cascade doctor` looks at all else, "
            "too); without one, move the folder away and run the pipeline again, which loads everything once more.",
        )
