"""The tables of the embedded catalog, and how its SQLite file is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from pyiceberg.catalog.sql import IcebergTables

__all__ = ["BASES", "BRANCHES", "LOG", "PROPERTIES", "SCHEMA", "TABLES", "open_sqlite"]

_BUSY_SECONDS = 60

SCHEMA = sa.MetaData()
BRANCHES = sa.Table(
    "cascade_branches",
    SCHEMA,
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("kind", sa.String(10), nullable=False),
    sa.Column("source", sa.String(100), nullable=False),
    sa.Column("created_at", sa.String(40), nullable=False),
)
# Where each table stood when the branch was made, or when it was last promoted.
BASES = sa.Table(
    "cascade_branch_bases",
    SCHEMA,
    sa.Column("branch", sa.String(100), primary_key=True),
    sa.Column("table_namespace", sa.String(255), primary_key=True),
    sa.Column("table_name", sa.String(255), primary_key=True),
    sa.Column("metadata_location", sa.String(1000), nullable=False),
)
LOG = sa.Table(
    "cascade_log",
    SCHEMA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.String(40), nullable=False),
    sa.Column("kind", sa.String(10), nullable=False),
    sa.Column("source", sa.String(100), nullable=False),
    sa.Column("target", sa.String(100), nullable=False),
    sa.Column("changes", sa.Text, nullable=False),  # JSON: [[table, before, after], ...]
)
PROPERTIES = sa.Table(
    "cascade_properties",
    SCHEMA,
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("value", sa.String(1000), nullable=False),
)
TABLES = cast(sa.Table, IcebergTables.__table__)


def open_sqlite(file: Path) -> sa.Engine:
    """Open a SQLite file whose writers wait for each other.

    Args:
        file: The file; it is made when it does not exist.
    """
    engine = sa.create_engine(f"sqlite:///{file}", connect_args={"timeout": _BUSY_SECONDS})
    sa.event.listen(engine, "connect", _configure_connection)
    sa.event.listen(engine, "begin", _begin)
    return engine


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
