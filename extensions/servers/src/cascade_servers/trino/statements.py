"""Read a statement only as far as needed: whether it reads, which tables it names, and where their names end."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlglot
from pyiceberg import types as t
from pyiceberg.schema import Schema
from sqlglot import exp

from cascade.duck.sql import identifier
from cascade.engine.snapshots import State, only_reading
from cascade.errors import QueryError
from cascade.iceberg.types import Dialect, type_name

__all__ = ["Statement", "parse"]

# It says that it does not know a statement which we refuse anyway.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

_TRINO = Dialect(
    "Trino",
    {
        t.BooleanType: "boolean",
        t.IntegerType: "integer",
        t.LongType: "bigint",
        t.FloatType: "real",
        t.DoubleType: "double",
        t.DateType: "date",
        t.TimeType: "time(6)",
        t.TimestampType: "timestamp(6)",
        t.TimestamptzType: "timestamp(6) with time zone",
        t.StringType: "varchar",
        t.UUIDType: "uuid",
        t.BinaryType: "varbinary",
        t.FixedType: "varbinary",
    },
    list="array({})",
    map="map({}, {})",
    struct="row({})",
)


@dataclass(frozen=True)
class _Named:
    """A table that a statement names: where in the text, whether with an alias, and with a snapshot of its own."""

    name: str
    begin: int
    end: int
    aliased: bool
    pinned: bool


def _is_of_trino(name: str) -> bool:
    """Say whether a table is one that Trino makes up: of the catalog, or of what Iceberg knows about a table."""
    return name.startswith(("information_schema.", "system.")) or "$" in name


@dataclass(frozen=True)
class Statement:
    """One statement that reads."""

    sql: str
    tables: tuple[_Named, ...]

    def mentioned(self, names: Iterable[str]) -> list[str]:
        """Return those of some tables that the statement names; capitals do not matter."""
        wanted = {table.name for table in self.tables}
        return [name for name in names if name.lower() in wanted]

    def at(self, tables: Mapping[str, State]) -> str:
        """Return the statement reading each table in a state; the rest of its text stays as it is.

        Raises:
            LookupError: It names a table that has no state.
        """
        by_name = {name.lower(): state for name, state in tables.items()}
        sql = self.sql
        for table in sorted(self.tables, key=lambda table: -table.begin):
            state = by_name.get(table.name)
            if state is None and not _is_of_trino(table.name):
                raise LookupError(table.name)
            if state is not None and not table.pinned:
                sql = sql[: table.begin] + _reading(sql[table.begin : table.end], state, table) + sql[table.end :]
        return sql


def parse(sql: str) -> Statement:
    """Understand a statement.

    Raises:
        QueryError: It is not one statement that reads, or a name in it has three parts.
        SyntaxError: The parser does not understand it.
    """
    try:
        found = [statement for statement in sqlglot.parse(sql, dialect="trino") if statement is not None]
    except sqlglot.errors.SqlglotError as error:
        raise SyntaxError(str(error).splitlines()[0]) from None
    kinds = [_kind(statement) for statement in found]
    if kinds != ["SELECT"]:
        raise only_reading(kinds)
    (statement,) = found
    named = []
    for table in statement.find_all(exp.Table):
        parts = [part for part in table.parts if isinstance(part, exp.Identifier)]
        if len(parts) > 2 or _is_function_elsewhere(table):
            raise QueryError(
                f"{table.sql(dialect='trino')} is in another catalog.",
                where="the statement",
                fix="name tables `namespace.table`; another branch is read by asking for that branch.",
            )
        if len(parts) == 2:
            name = ".".join(part.name for part in parts).lower()
            begin, end = parts[0].meta["start"], parts[1].meta["end"] + 1
            named.append(_Named(name, begin, end, bool(table.alias), table.args.get("version") is not None))
    # Trino's protocol takes no semicolon; one may also end a last comment, which does no harm.
    return Statement(sql.rstrip().rstrip(";"), tuple(named))


def _is_function_elsewhere(table: exp.Table) -> bool:
    """Say whether a table is a function of another catalog, such as one that passes SQL on to its database."""
    call = table.this.expressions[0] if isinstance(table.this, exp.Anonymous) and table.this.expressions else None
    return isinstance(call, exp.Dot) and isinstance(call.this, exp.Dot)


def _kind(statement: exp.Expr) -> str:
    if isinstance(statement, exp.Query | exp.Values):
        return "SELECT"
    if isinstance(statement, exp.Command):
        return str(statement.this).upper()
    return statement.key.upper()


def _reading(name: str, state: State, table: _Named) -> str:
    """Return what is read for a table: its name with a snapshot, or its current columns where they changed since."""
    metadata = state.table.metadata
    snapshot_id = state.snapshot_id or metadata.current_snapshot_id
    snapshot = metadata.snapshot_by_id(snapshot_id) if snapshot_id is not None else None
    alias = "" if table.aliased else f" AS {identifier(table.name.split('.')[1])}"
    if snapshot is None:
        return f"(SELECT {_columns(state.schema, Schema())} WHERE false){alias}"
    pinned = f"{name} FOR VERSION AS OF {snapshot_id}"
    if snapshot.schema_id is None or snapshot.schema_id == state.schema.schema_id:
        return pinned
    return f"(SELECT {_columns(state.schema, state.table.schemas()[snapshot.schema_id])} FROM {pinned}){alias}"


def _columns(wanted: Schema, written: Schema) -> str:
    """Return the columns of one schema from rows of another: what was renamed by its field id, what is new as null."""
    names = {field.field_id: identifier(field.name) for field in written.fields}
    return ", ".join(
        f"CAST({names.get(f.field_id, 'NULL')} AS {type_name(f.field_type, _TRINO)}) AS {identifier(f.name)}"
        for f in wanted.fields
    )
