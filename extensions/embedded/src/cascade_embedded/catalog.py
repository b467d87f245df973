"""The embedded catalog: PyIceberg's SQL catalog in SQLite or PostgreSQL; a branch is a `catalog_name` in it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from cascade.catalog import (
    MAIN,
    Branch,
    BranchingCatalog,
    LogEntry,
    TableChange,
    compare,
    user_name,
)
from cascade.catalog.merge import (
    follows,
    missing_error,
    require_branch,
    require_entry,
    require_unchanged,
    to_move,
    undo,
)
from cascade.catalog.storage import sign_warehouse, warehouse_properties
from cascade.config import Settings
from cascade.errors import CatalogError
from cascade.plugins import load
from cascade_embedded.database import (
    BASES,
    BRANCHES,
    CATALOG_FILE,
    LOG,
    PROPERTIES,
    SCHEMA,
    TABLES,
    Database,
    DatabaseFactory,
    SqliteDatabase,
)

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from cascade_embedded.reference import SqlReference

__all__ = ["EmbeddedCatalog"]

T = TypeVar("T")


class EmbeddedCatalog(BranchingCatalog):
    """Branches over one database: a SQLite file beside a local warehouse, or PostgreSQL for several machines.

    Args:
        settings: `catalog_url`, else `data_path`, says where the database is; `warehouse_location` where files are.

    Attributes:
        database: Keeps the pointers, and the locks of writers.

    Raises:
        CatalogError: The folder was moved since the catalog was made, or PostgreSQL cannot be reached.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._properties = warehouse_properties(settings)
        if not self._properties["warehouse"].startswith("s3://"):
            self._properties["py-io-impl"] = "cascade_embedded.files.ComparingIO"
        self._place = self._properties["warehouse"]
        self.database: Database
        if settings.catalog_url is None:
            self._place = str(settings.data_path) if not settings.warehouse else self._place
            if not (settings.data_path / CATALOG_FILE).exists():
                self._require_no_tables()  # SQLite would throw away what lies beside a file that it makes
            self.database = SqliteDatabase(settings.data_path)
        else:
            opener = load("cascade.databases", "postgresql", DatabaseFactory, where="setting `catalog_url`")
            self.database = opener(settings.catalog_url)
        self._locks = self.database.locks
        if self.database.refused is not None:
            self._read(self._require_place)
            return
        if not self._place.startswith("s3://"):
            Path(self._properties["warehouse"]).mkdir(parents=True, exist_ok=True)
        self._read(lambda c: c.execute(sa.select(1)))  # what is wrong with a server shows here, in words
        with self._locks.hold("schema"):
            SCHEMA.create_all(self.database.engine)
            self._write(self._found)

    def open(self, ref: str) -> Catalog:
        """Return the PyIceberg catalog of one reference."""
        kind = self._read(lambda c: self._kind(c, ref))
        return self._opened(ref, writable=kind == "branch" and ref != MAIN)

    def branches(self) -> list[Branch]:
        """Return all references, `main` first, then by name."""

        def read(connection: sa.Connection) -> list[Branch]:
            rows = connection.execute(sa.select(BRANCHES).order_by(BRANCHES.c.name != MAIN, BRANCHES.c.name))
            return [
                Branch(
                    name=row.name,
                    kind=row.kind,
                    source=row.source,
                    created_at=dt.datetime.fromisoformat(row.created_at),
                    changed=0 if row.name == MAIN else len(self._changes(connection, row.name)),
                )
                for row in rows.all()
            ]

        return self._read(read)

    def exists(self, name: str) -> bool:
        """Say whether there is a reference of this name."""
        return self._read(lambda c: name in self._names(c))

    def pointers(self, ref: str, *, at: dt.datetime | None = None) -> dict[str, str]:
        """Return the current metadata location of every table of a reference."""

        def read(connection: sa.Connection) -> dict[str, str]:
            self._kind(connection, ref)
            current = self._pointers(connection, ref)
            return current if at is None else self._past(connection, ref, current, at)

        return self._read(read)

    def load(self, table: str, location: str) -> Table:
        """Open a table in the state that a metadata location names."""
        from cascade.catalog.reference import open_state

        return open_state(table, location, lambda: self._reader)

    def diff(self, before: str, after: str) -> list[TableChange]:
        """Return the tables that differ between two references."""

        def read(connection: sa.Connection) -> list[TableChange]:
            for ref in (before, after):
                self._kind(connection, ref)
            return compare(self._pointers(connection, before), self._pointers(connection, after))

        return self._read(read)

    def changes(self, name: str) -> list[TableChange]:
        """Return which tables a branch changed since it was created or last promoted."""

        def read(connection: sa.Connection) -> list[TableChange]:
            self._kind(connection, name)
            return self._changes(connection, name)

        return self._read(read)

    def merge(
        self, source: str, target: str = MAIN, *, expected: Iterable[TableChange] | None = None
    ) -> LogEntry | None:
        """Move every table that changed on the source to the target, all or none."""
        checked = None if expected is None else list(expected)

        def move(connection: sa.Connection) -> LogEntry | None:
            self._kind(connection, source)
            require_branch(target, self._kind(connection, target))
            changes = self._changes(connection, source)
            require_unchanged(source, target, changes, checked)
            moved = to_move(source, target, changes, self._pointers(connection, target), self.same_rows)
            entry = self._move(connection, target, moved, kind="promote", source=source) if moved else None
            self._set_base(connection, source)
            self._follow(connection, target)
            return entry

        return self._write(move)

    def log(self, target: str = MAIN, *, limit: int | None = None) -> list[LogEntry]:
        """Return the moves of a branch, newest first."""

        def read(connection: sa.Connection) -> list[LogEntry]:
            self._kind(connection, target)
            return self._entries(connection, target, limit)

        return self._read(read)

    @property
    def _reader(self) -> SqlReference:
        return self._opened(MAIN, writable=False)

    def _opened(self, ref: str, *, writable: bool) -> SqlReference:
        from cascade_embedded.reference import (
            SqlReference,  # it takes PyIceberg, which a list of branches does not need
        )

        return SqlReference(self.database, self._properties, self.table_lock, ref, writable=writable)

    def _found(self, connection: sa.Connection) -> None:
        """Make `main` the first time."""
        here = self._place
        if self._require_place(connection):
            return
        self._require_no_tables()
        connection.execute(PROPERTIES.insert().values(name="place", value=here))
        made_at = _now()
        connection.execute(BRANCHES.insert().values(name=MAIN, kind="branch", source="", created_at=made_at))
        if here == self._properties["warehouse"]:  # one that other catalogs may be given, too
            sign_warehouse(self._properties, dt.datetime.fromisoformat(made_at))

    def _require_place(self, connection: sa.Connection) -> bool:
        """Refuse files that are not where they were made: metadata holds absolute paths. Say whether `main` is made."""
        here = self._place
        recorded = connection.execute(sa.select(PROPERTIES.c.value).where(PROPERTIES.c.name == "place")).scalar()
        if recorded is None or recorded == here:
            return recorded is not None
        if here.startswith("s3://") or Path(recorded).resolve() != Path(here).resolve():
            raise CatalogError(
                "The data folder was moved; Iceberg tables hold absolute paths and cannot be read here.",
                where=f"made at {recorded}, now at {here}",
                fix=f"move it back, or let the old path lead here (`ln -s {here} {recorded}`), "
                "or delete the folder and run the pipeline again."
                if not here.startswith("s3://") and not recorded.startswith("s3://")
                else f"set `warehouse` to {recorded} again, or `catalog_url` to a database of its own.",
            )
        return True

    def _require_no_tables(self) -> None:
        """Refuse to begin a lakehouse on the files of another, unless its warehouse is one that catalogs may share."""
        if self._place != str(self.settings.data_path):
            return
        warehouse = Path(self._properties["warehouse"])
        if next(warehouse.glob("*/*/metadata/*.metadata.json"), None) is not None:
            raise CatalogError(
                "catalog.db is gone, but the warehouse holds tables: which of their states are on `main` is unknown.",
                where=str(self.settings.data_path),
                fix="put catalog.db and all files `catalog.db-*` back from one backup (`cascade doctor` looks at all "
                "else, too); without one, move the folder away and run the pipeline again, which loads everything once "
                "more. Rows that no source has any more can be read from the folder: "
                "`pyiceberg.table.StaticTable.from_metadata(<newest metadata.json of a table>)`.",
            )

    def _create(self, name: str, source: str, kind: str, at: dt.datetime | None) -> bool:
        def create(connection: sa.Connection) -> bool:
            self._kind(connection, source)
            if name in self._names(connection):
                return False
            connection.execute(BRANCHES.insert().values(name=name, kind=kind, source=source, created_at=_now()))
            self._copy(connection, source, name)
            if at is not None:
                current = self._pointers(connection, source)
                changes = compare(current, self._past(connection, source, current, at))
                self._reader.require_kept(f"`{source}` at {at:%Y-%m-%d %H:%M:%S %Z}", changes)
                self._put(connection, name, changes)
                self._set_base(connection, name)
            return True

        return self._write(create)

    def _delete(self, name: str) -> None:
        def delete(connection: sa.Connection) -> None:
            self._kind(connection, name)
            connection.execute(TABLES.delete().where(TABLES.c.catalog_name == name))
            connection.execute(BASES.delete().where(BASES.c.branch == name))
            # A later branch of this name has a history of its own.
            connection.execute(LOG.delete().where(LOG.c.target == name))
            connection.execute(BRANCHES.delete().where(BRANCHES.c.name == name))

        self._write(delete)

    def _restore(self, entry: int, target: str) -> LogEntry | None:
        def move(connection: sa.Connection) -> LogEntry | None:
            require_branch(target, self._kind(connection, target))
            entries = self._entries(connection, target)
            require_entry(entry, target, [e.id for e in entries])
            current = self._pointers(connection, target)
            changes = compare(current, undo(current, [e for e in entries if e.id > entry]))
            if not changes:
                return None
            self._reader.require_kept(f"Entry {entry} of the log", changes)
            done = self._move(connection, target, changes, kind="restore", source=str(entry))
            self._follow(connection, target)
            return done

        return self._write(move)

    # All below work inside the connection's transaction.

    def _names(self, connection: sa.Connection) -> dict[str, str]:
        rows = connection.execute(sa.select(BRANCHES.c.name, BRANCHES.c.kind)).all()
        return {str(row.name): str(row.kind) for row in rows}

    def _kind(self, connection: sa.Connection, name: str) -> str:
        names = self._names(connection)
        if name not in names:
            raise missing_error(name, names)
        return names[name]

    def _entries(self, connection: sa.Connection, target: str, limit: int | None = None) -> list[LogEntry]:
        rows = connection.execute(sa.select(LOG).where(LOG.c.target == target).order_by(LOG.c.id.desc()).limit(limit))
        return [_entry(row) for row in rows.all()]

    def _copy(self, connection: sa.Connection, source: str, target: str) -> None:
        """Set the target's tables to those of the source, and its base to the same."""
        connection.execute(TABLES.delete().where(TABLES.c.catalog_name == target))
        columns = [c.name for c in TABLES.columns]
        values = [sa.literal(target) if name == "catalog_name" else TABLES.c[name] for name in columns]
        connection.execute(
            TABLES.insert().from_select(columns, sa.select(*values).where(TABLES.c.catalog_name == source))
        )
        self._set_base(connection, target)

    def _set_base(self, connection: sa.Connection, branch: str) -> None:
        connection.execute(BASES.delete().where(BASES.c.branch == branch))
        rows = sa.select(
            sa.literal(branch), TABLES.c.table_namespace, TABLES.c.table_name, TABLES.c.metadata_location
        ).where(TABLES.c.catalog_name == branch)
        connection.execute(BASES.insert().from_select([c.name for c in BASES.columns], rows))

    def _pointers(self, connection: sa.Connection, ref: str) -> dict[str, str]:
        rows = connection.execute(
            sa.select(TABLES.c.table_namespace, TABLES.c.table_name, TABLES.c.metadata_location).where(
                TABLES.c.catalog_name == ref
            )
        )
        return {f"{row.table_namespace}.{row.table_name}": str(row.metadata_location) for row in rows}

    def _changes(self, connection: sa.Connection, branch: str) -> list[TableChange]:
        rows = connection.execute(
            sa.select(BASES.c.table_namespace, BASES.c.table_name, BASES.c.metadata_location).where(
                BASES.c.branch == branch
            )
        )
        base = {f"{row.table_namespace}.{row.table_name}": str(row.metadata_location) for row in rows}
        return compare(base, self._pointers(connection, branch))

    def _past(self, connection: sa.Connection, ref: str, current: dict[str, str], at: dt.datetime) -> dict[str, str]:
        return undo(current, (entry for entry in self._entries(connection, ref) if entry.at > at))

    def _put(self, connection: sa.Connection, target: str, changes: list[TableChange]) -> None:
        table = sa.and_(
            TABLES.c.catalog_name == target,
            TABLES.c.table_namespace == sa.bindparam("of_namespace"),
            TABLES.c.table_name == sa.bindparam("of_name"),
        )
        statements: dict[str, sa.Executable] = {
            "created": TABLES.insert().values(
                catalog_name=target,
                table_namespace=sa.bindparam("of_namespace"),
                table_name=sa.bindparam("of_name"),
                metadata_location=sa.bindparam("after"),
                iceberg_type="TABLE",
            ),
            "changed": TABLES.update()
            .where(table)
            .values(metadata_location=sa.bindparam("after"), previous_metadata_location=sa.bindparam("before")),
            "dropped": TABLES.delete().where(table),
        }
        for change_kind, statement in statements.items():
            rows = []
            for change in (c for c in changes if c.kind == change_kind):
                namespace, name = change.table.split(".")
                rows.append(
                    {"of_namespace": namespace, "of_name": name, "before": change.before, "after": change.after}
                )
            if rows:
                connection.execute(statement, rows)

    def _move(
        self, connection: sa.Connection, target: str, changes: list[TableChange], *, kind: str, source: str
    ) -> LogEntry:
        self._put(connection, target, changes)
        row = connection.execute(
            LOG.insert()
            .values(
                at=_now(),
                kind=kind,
                source=source,
                target=target,
                changes=json.dumps({"by": user_name(), "tables": [[c.table, c.before, c.after] for c in changes]}),
            )
            .returning(*LOG.columns)
        ).one()
        return _entry(row)

    def _follow(self, connection: sa.Connection, target: str) -> None:
        """Fast-forward the branches of the target that have no changes of their own."""
        rows = connection.execute(sa.select(BRANCHES).where(BRANCHES.c.source == target)).all()
        for row in rows:
            if follows(row.name, row.kind, row.source, target) and not self._changes(connection, row.name):
                self._copy(connection, target, row.name)

    def _read(self, work: Callable[[sa.Connection], T]) -> T:
        return self.database.transaction(work, write=False)

    def _write(self, work: Callable[[sa.Connection], T]) -> T:
        return self.database.transaction(work, write=True)


def _entry(row: sa.Row[Any]) -> LogEntry:
    found = json.loads(row.changes)
    if isinstance(found, list):  # from before the log said who
        found = {"by": "", "tables": found}
    return LogEntry(
        id=row.id,
        at=dt.datetime.fromisoformat(row.at),
        kind=row.kind,
        source=row.source,
        target=row.target,
        changes=tuple(TableChange(*change) for change in found["tables"]),
        by=found["by"],
    )


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()
