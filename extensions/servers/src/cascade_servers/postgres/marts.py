"""Publish marts to PostgreSQL, in one transaction: shadow tables are filled, then take the place of the current ones.

Why a swap: a million rows with two indexes take 8 s that way, write 160 MB of log and leave no dead rows; `DELETE` and
`INSERT` take 20 s and 500 MB and double the table. Why frozen rows (`COPY … FREEZE`): without them a reader at
repeatable read, whose snapshot is older, would find the new table empty. A reader of a current table holds a lock
on it, so the swap waits; other readers see only new ones.

What makes a table more than its rows, columns, keys, checks, indexes, grants and comments (views on it, foreign keys,
triggers, policies, replication, another owner) cannot be given to a new table, least by a role with few rights. If
there is any of it, or a reader does not let go, the current tables stay and their rows are exchanged, by `DELETE` and
`INSERT`, which wait for nobody and are right for every reader. One way for all tables of a publication: mixed, a reader
with an older snapshot would see half.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import psycopg
import sqlalchemy as sa
from psycopg import errors, sql

from cascade.errors import CascadeError, SchemaMismatchError, ServiceError
from cascade.names import MARTS, PUBLISHED, SCHEMA
from cascade.publish.marts import Mart, ReadMarts, Version
from cascade_servers.names import PUBLISH_LOCK
from cascade_servers.postgres import tables as pg
from cascade_servers.postgres.rows import check_names, column_types, copy_text
from cascade_servers.postgres.server import explain_postgres, is_restarting, open_postgres

if TYPE_CHECKING:
    from pydantic import SecretStr

    from cascade.config import Settings

__all__ = ["publish_once", "publish_to_postgres"]

Connection = psycopg.Connection[tuple[Any, ...]]
_log = logging.getLogger(__name__)

# A server that restarts is back within seconds; nothing was published, so that all of it is safe to repeat.
_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
# Shorter than PostgreSQL's deadlock_timeout of a second: when we and a reader wait for each other, we give way.
_LOCK_TIMEOUT = "400ms"
_LOST = (psycopg.OperationalError, sa.exc.OperationalError)
#: How long a reader may keep a mart that is to be replaced.
READER_SECONDS = 10.0
_TIMEOUTS = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_timeout"]
_TURN = f"SELECT pg_advisory_xact_lock(hashtext('{PUBLISH_LOCK}'))"
# What is said when a column or a table cannot go or change, because of what people put around it.
_DEPENDS = (
    errors.DependentObjectsStillExist,
    errors.FeatureNotSupported,
    errors.ObjectNotInPrerequisiteState,
    errors.UndefinedFunction,
)
_TABLE = f"{SCHEMA}.{PUBLISHED}"
_CREATE_TABLE = f"""
    CREATE TABLE IF NOT EXISTS {_TABLE} (
        table_name text PRIMARY KEY,
        snapshot_id bigint NOT NULL,
        schema_id integer NOT NULL,
        published_at timestamptz NOT NULL
    )
"""


@dataclass
class _Copy:
    """A mart that is copied again."""

    name: str
    mart: Mart
    columns: dict[str, str]
    shadow: str
    current: pg.CurrentTable | None
    rows: int = 0

    @property
    def place(self) -> sql.Identifier:
        return _place(self.name)

    @property
    def filled(self) -> sql.Identifier:
        """The table that was filled: the place itself, where no table is yet."""
        return sql.Identifier(SCHEMA, self.shadow) if self.current else self.place

    @property
    def is_other_table(self) -> bool:
        """Whether the columns are no longer those of the current table."""
        return self.current is not None and self.current.columns != self.columns


def publish_to_postgres(read: ReadMarts, settings: Settings) -> dict[str, int]:
    """Copy marts to schema `marts` of a database; see `cascade.publish.marts.publish_marts`.

    Args:
        read: Reads the marts of `main`; called when it is this publisher's turn.
        settings: `marts_url` is the database.
    """
    url = cast("SecretStr", settings.marts_url)
    engine = open_postgres(url)
    restarting = False
    try:
        for pause in (*_PAUSES, None):
            try:
                with contextlib.closing(engine.raw_connection()) as pooled:
                    connection = cast(Connection, pooled.driver_connection)
                    rows, exchanged = publish_once(connection, read)
                    _clean(connection, exchanged)
                    return rows
            except (psycopg.Error, sa.exc.DBAPIError) as error:
                # Once it has answered, a server that nobody listens at is one that starts again.
                restarting = is_restarting(error) or (restarting and isinstance(error, _LOST))
                if pause is None or not restarting:
                    raise explain_postgres(error, url, "marts_url") from error
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")
    finally:
        engine.dispose()


def publish_once(connection: Connection, read: ReadMarts) -> tuple[dict[str, int], list[_Copy]]:
    """Publish in one transaction; return the rows of each mart that was written, and the copies that took a place."""
    with connection.transaction():
        # What the server or the role is set to is meant for people.
        connection.execute("SELECT set_config(name, '0', true) FROM pg_settings WHERE name = ANY (%s)", [_TIMEOUTS])
        connection.execute("SET LOCAL TimeZone = 'UTC'")
        connection.execute("SET LOCAL client_min_messages = 'warning'")
        connection.execute(_TURN)
        for schema in (MARTS, SCHEMA):
            if not pg.has_schema(connection, schema):
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        connection.execute(_CREATE_TABLE)
        marts = read()
        there = _versions(connection)
        changed = {name: mart for name, mart in marts.items() if there.get(name) != mart.version}
        gone = [name for name in there if name not in marts]
        check_names({_table(name): mart.table.schema() for name, mart in changed.items()})
        copies = [_copy(connection, number, *item) for number, item in enumerate(changed.items())]
        exchanged = _put_in_place(connection, copies, gone)
        _record(connection, copies, gone)
    return {copy.name: copy.rows for copy in copies}, exchanged


def _copy(connection: Connection, number: int, name: str, mart: Mart) -> _Copy:
    """Fill a shadow table; it is in our own schema, where names of indexes are free."""
    columns = column_types(name, mart.table.schema())
    current = pg.current_table(connection, MARTS, _table(name))
    copy = _Copy(name, mart, columns, f"shadow_{number}", current)
    with _explained(name):
        if current is None:
            types = sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(kind)) for column, kind in columns.items()
            )
            connection.execute(sql.SQL("CREATE TABLE {} ({})").format(copy.place, types))
        else:
            pg.make_like(connection, copy.filled, copy.place)
            pg.align(connection, copy.filled, current.columns, columns)
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, FREEZE)").format(copy.filled, names)
        with connection.cursor() as cursor:
            with cursor.copy(statement) as stream:
                for batch in mart.batches():
                    stream.write(copy_text(name, batch))
            copy.rows = cursor.rowcount
    return copy


def _put_in_place(connection: Connection, copies: Sequence[_Copy], gone: Sequence[str]) -> list[_Copy]:
    """Let all shadows take their place at once; return what was exchanged row by row instead."""
    replaced = [(copy, copy.current) for copy in copies if copy.current]
    in_place = any(current.is_more_than_a_table for _, current in replaced)
    if not in_place:
        for copy, current in replaced:
            with _explained(copy.name):
                pg.add_keys_and_indexes(connection, copy.filled, current, copy.columns)
                connection.execute(sql.SQL("ANALYZE {}").format(copy.filled))
    dropped = [name for name in gone if pg.current_table(connection, MARTS, _table(name))]
    # What no exchange of rows can do.
    other = dropped + [copy.name for copy, _ in replaced if copy.is_other_table]
    must_lock = other if in_place else dropped + [copy.name for copy, _ in replaced]
    if not _locked(connection, must_lock):
        if other:
            raise _held(connection, must_lock)
        in_place = True
    connection.execute("SET LOCAL lock_timeout = '30s'")
    for copy, current in replaced:
        with _explained(copy.name):
            (_exchange if in_place else _swap)(connection, copy, current)
    for copy in copies:
        if not copy.current:
            pg.show(connection, _table(copy.name), copy.place)
    for name in dropped:
        with _explained(name):
            pg.show(connection, _table(name), None)
            connection.execute(sql.SQL("DROP TABLE {}").format(_place(name)))
            _log.warning("Mart %s is gone from main: PostgreSQL has it no more, nor a view of it in `api`.", name)
    return [copy for copy, _ in replaced] if in_place else []


def _swap(connection: Connection, copy: _Copy, current: pg.CurrentTable) -> None:
    pg.copy_grants(connection, copy.filled, current)
    pg.show(connection, _table(copy.name), copy.filled)  # a view knows its table whatever name that has
    connection.execute(sql.SQL("DROP TABLE {}").format(copy.place))
    connection.execute(sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(copy.filled, sql.Identifier(MARTS)))
    name = sql.Identifier(_table(copy.name))
    connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(sql.Identifier(MARTS, copy.shadow), name))


def _exchange(connection: Connection, copy: _Copy, current: pg.CurrentTable) -> None:
    connection.execute("SET CONSTRAINTS ALL DEFERRED")
    if copy.is_other_table:
        pg.show(connection, _table(copy.name), copy.filled)  # so that no view keeps a column that goes
    connection.execute(sql.SQL("DELETE FROM {}").format(copy.place))
    # After the rows are gone: a new type has nothing to convert.
    pg.align(connection, copy.place, current.columns, copy.columns)
    names = sql.SQL(", ").join(map(sql.Identifier, copy.columns))
    insert = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}")
    connection.execute(insert.format(copy.place, names, names, copy.filled))
    if copy.is_other_table:
        pg.show(connection, _table(copy.name), copy.place)
    connection.execute(sql.SQL("DROP TABLE {}").format(copy.filled))


def _clean(connection: Connection, exchanged: Sequence[_Copy]) -> None:
    """Make the room of exchanged rows free for the next time. What is published stays so if this fails."""
    connection.autocommit = True
    with contextlib.suppress(psycopg.Error):
        for copy in exchanged:
            connection.execute(sql.SQL("VACUUM (ANALYZE, SKIP_LOCKED) {}").format(copy.place))


def _locked(connection: Connection, names: Collection[str]) -> bool:
    """Lock tables against every reader, or say that it cannot be done within our patience."""
    if not names:
        return True
    # A reader of a view locks the view first.
    views = [sql.Identifier("api", name) for name in pg.shown(connection, [_table(name) for name in names])]
    tables = sql.SQL(", ").join([*views, *(_place(name) for name in sorted(names))])
    deadline = time.monotonic() + READER_SECONDS
    while True:
        with contextlib.suppress(errors.LockNotAvailable, errors.DeadlockDetected), connection.transaction():
            connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(_LOCK_TIMEOUT))
            connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(tables))
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)  # a process that waited behind us has its turn


def _held(connection: Connection, names: Collection[str]) -> ServiceError:
    holders = pg.lock_holders(connection, MARTS, [_table(name) for name in names])
    return ServiceError(
        f"Marts were not published: readers hold tables that must change their columns or go: {', '.join(holders)}.",
        where=f"PostgreSQL, {', '.join(sorted(names))}, setting `marts_url`",
        fix="let their transactions end, or end them with pg_terminate_backend(pid), and publish again.",
    )


def _versions(connection: Connection) -> dict[str, Version]:
    """Return what is published, without tables that were dropped since."""
    found = connection.execute(f"SELECT table_name, snapshot_id, schema_id FROM {_TABLE}").fetchall()
    return {
        name: Version(*version) if pg.current_table(connection, MARTS, _table(name)) else Version(-1, -1)
        for name, *version in found
    }


def _record(connection: Connection, copies: Sequence[_Copy], gone: Sequence[str]) -> None:
    connection.execute(f"DELETE FROM {_TABLE} WHERE table_name = ANY(%s)", [[*gone, *(copy.name for copy in copies)]])
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {_TABLE} VALUES (%s, %s, %s, clock_timestamp())",
            [(copy.name, copy.mart.version.snapshot_id, copy.mart.version.schema_id) for copy in copies],
        )


def _table(name: str) -> str:
    return name.removeprefix(f"{MARTS}.")


def _place(name: str) -> sql.Identifier:
    return sql.Identifier(MARTS, _table(name))


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Say what keeps a mart's rows from being published."""
    try:
        yield
    except errors.IntegrityError as error:
        raise _mismatch(
            name,
            f"the rows break a constraint: {error.diag.message_primary}. {error.diag.message_detail or ''}".rstrip(),
            "correct the model or drop the constraint; a foreign key that points to a mart must be DEFERRABLE.",
        ) from error
    except errors.DataError as error:
        raise _mismatch(
            name, f"{error.diag.message_primary} ({_column(error)})", "cast the column in the model."
        ) from error
    except _DEPENDS as error:
        said = [error.diag.message_primary, *(error.diag.message_detail or "").splitlines()]
        raise _mismatch(
            name, "; ".join(filter(None, said)), "drop what depends on it, or keep the table and its columns."
        ) from error
    except (errors.DuplicateTable, errors.WrongObjectType) as error:
        raise _mismatch(
            name,
            f"something else that is no table has this name in schema `{MARTS}`",
            "give it another name; the schema is for marts.",
        ) from error


def _mismatch(name: str, what: str, fix: str) -> CascadeError:
    return SchemaMismatchError(
        f"Mart `{name}` was not published, nor was any other: {what}.",
        where="PostgreSQL, setting `marts_url`",
        fix=fix,
    )


def _column(error: psycopg.Error) -> str:
    """Return where in a COPY it was, without the value."""
    found = re.search(r"line \d+, column .*?(?=: |$)", error.diag.context or "")
    return found.group() if found else "no line is told"
