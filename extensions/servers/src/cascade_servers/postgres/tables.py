"""What PostgreSQL says of a table, and how to make another one like it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

__all__ = [
    "CurrentTable",
    "add_keys_and_indexes",
    "align",
    "copy_grants",
    "current_table",
    "has_schema",
    "lock_holders",
    "make_like",
    "show",
    "shown",
]

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class CurrentTable:
    """A table that exists.

    Attributes:
        oid: What PostgreSQL knows it by.
        columns: Name to type, without those that it computes itself.
        is_more_than_a_table: Whether something depends on it, or acts on it, that a copy would not have.
    """

    oid: int
    columns: dict[str, str]
    is_more_than_a_table: bool


# A copy has defaults, keys, checks, indexes, statistics, grants and comments. Everything else that PostgreSQL relates
# to a table, or sets on it, makes it more than that; but a view that `cascade.show` gives to the copy.
_STANDING = """
    SELECT c.oid,
        c.relowner <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
        OR c.relkind <> 'r' OR c.relpersistence <> 'p' OR c.relreplident <> 'd' OR c.reltablespace <> 0
        OR c.reloptions IS NOT NULL OR c.relrowsecurity OR c.relforcerowsecurity
        OR EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid)
        OR EXISTS (SELECT FROM pg_seclabel WHERE objoid = c.oid)
        OR EXISTS (
            SELECT FROM pg_depend AS d
            WHERE (
                d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
                OR d.refclassid = 'pg_type'::regclass AND d.refobjid = c.reltype
            )
            AND CASE d.classid
                WHEN 'pg_attrdef'::regclass THEN false
                WHEN 'pg_statistic_ext'::regclass THEN false
                WHEN 'pg_type'::regclass THEN d.deptype <> 'i'
                WHEN 'pg_rewrite'::regclass THEN d.objid NOT IN (
                    SELECT r.oid FROM pg_rewrite AS r JOIN pg_class AS v ON v.oid = r.ev_class
                    WHERE v.relname = c.relname AND v.relnamespace = to_regnamespace('api')
                    AND pg_get_userbyid(v.relowner) = current_user
                    AND to_regprocedure('cascade.show(text, regclass)') IS NOT NULL
                )
                WHEN 'pg_constraint'::regclass
                    THEN NOT EXISTS (SELECT FROM pg_constraint WHERE oid = d.objid AND contype <> 'f')
                WHEN 'pg_class'::regclass THEN d.objid <> c.oid AND NOT EXISTS (
                    SELECT FROM pg_class AS o WHERE o.oid = d.objid AND o.relkind IN ('i', 't', 'S')
                )
                ELSE true
            END
        )
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')
"""

_COLUMNS = """
    SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attidentity = ''
    ORDER BY attnum
"""

# Those of columns that go are left out; PostgreSQL would drop them with the column.
_CONSTRAINTS = """
    SELECT c.conname, pg_get_constraintdef(c.oid) FROM pg_constraint AS c
    WHERE c.conrelid = %(oid)s AND c.contype IN ('p', 'u', 'x')
    AND NOT EXISTS (
        SELECT FROM pg_attribute AS a
        WHERE a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey) AND a.attname = ANY (%(dropped)s)
    )
    ORDER BY c.conname
"""
# Of `CREATE [UNIQUE] INDEX name ON schema.table USING …` only the table's name is to be another.
_INDEXES = """
    SELECT CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END, c.relname, substr(
        pg_get_indexdef(i.indexrelid),
        length(
            format('CREATE %%sINDEX %%I ON %%I.%%I ',
                CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END, c.relname, n.nspname, t.relname)
        ) + 1
    )
    FROM pg_index AS i
    JOIN pg_class AS c ON c.oid = i.indexrelid
    JOIN pg_class AS t ON t.oid = i.indrelid
    JOIN pg_namespace AS n ON n.oid = t.relnamespace
    WHERE i.indrelid = %(oid)s AND i.indisvalid
    AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid AND conrelid = i.indrelid)
    AND NOT EXISTS (
        SELECT FROM pg_depend AS d JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
        AND d.refobjid = i.indrelid AND a.attname = ANY (%(dropped)s)
    )
    ORDER BY c.relname
"""

_GRANTS = """
    SELECT NULL, a.privilege_type, CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END, a.is_grantable
    FROM pg_class AS c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) AS a WHERE c.oid = %(oid)s
    UNION ALL
    SELECT t.attname, a.privilege_type, CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END, a.is_grantable
    FROM pg_attribute AS t, aclexplode(t.attacl) AS a
    WHERE t.attrelid = %(oid)s AND NOT t.attisdropped
"""

_SHOWN = """
    SELECT relname FROM pg_class
    WHERE relnamespace = to_regnamespace('api') AND relkind = 'v' AND relname = ANY (%s)
    AND pg_get_userbyid(relowner) = current_user AND to_regprocedure('cascade.show(text, regclass)') IS NOT NULL
    ORDER BY relname
"""

_HOLDERS = """
    SELECT DISTINCT l.pid, coalesce(s.usename, '?'), coalesce(s.application_name, '')
    FROM pg_locks AS l
    JOIN pg_class AS c ON c.oid = l.relation
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_stat_activity AS s ON s.pid = l.pid
    WHERE l.granted AND l.pid <> pg_backend_pid() AND n.nspname = %s AND c.relname = ANY (%s)
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def has_schema(connection: Connection, schema: str) -> bool:
    """Say whether a schema exists. `IF NOT EXISTS` asks for the right to make one first."""
    return connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", [schema]).fetchone() is not None


def current_table(connection: Connection, schema: str, table: str) -> CurrentTable | None:
    """Return what is known of a table; `None` when there is none."""
    found = connection.execute(_STANDING, [schema, table]).fetchone()
    if found is None:
        return None
    oid, more = found
    return CurrentTable(oid, dict(connection.execute(_COLUMNS, [oid]).fetchall()), more)


def make_like(connection: Connection, table: sql.Identifier, model: sql.Identifier) -> None:
    """Make an empty table with the columns, defaults, checks, statistics and comments of another."""
    connection.execute(sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING INDEXES)").format(table, model))


def align(connection: Connection, table: sql.Identifier, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Give an empty table other columns, where they differ."""
    changes = [sql.SQL("DROP COLUMN {}").format(sql.Identifier(name)) for name in old if name not in new]
    for name, kind in new.items():
        column, type_ = sql.Identifier(name), sql.SQL(kind)
        if name not in old:
            changes.append(sql.SQL("ADD COLUMN {} {}").format(column, type_))
        elif old[name] != kind:
            changes.append(sql.SQL("ALTER COLUMN {} DROP DEFAULT").format(column))
            changes.append(sql.SQL("ALTER COLUMN {} TYPE {} USING NULL::{}").format(column, type_, type_))
    if changes:
        connection.execute(sql.SQL("ALTER TABLE {} {}").format(table, sql.SQL(", ").join(changes)))


def add_keys_and_indexes(
    connection: Connection, table: sql.Identifier, model: CurrentTable, columns: Collection[str]
) -> None:
    """Give a table the keys and indexes of another, under the same names: it is in another schema."""
    about = {"oid": model.oid, "dropped": [name for name in model.columns if name not in columns]}
    for name, definition in connection.execute(_CONSTRAINTS, about).fetchall():
        constraint = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}")
        connection.execute(constraint.format(table, sql.Identifier(name), sql.SQL(definition)))
    for unique, name, definition in connection.execute(_INDEXES, about).fetchall():
        index = sql.SQL("CREATE {}INDEX {} ON {} {}")
        connection.execute(index.format(sql.SQL(unique), sql.Identifier(name), table, sql.SQL(definition)))


def copy_grants(connection: Connection, table: sql.Identifier, model: CurrentTable) -> None:
    """Give a table the grants and the comment of another, and none besides."""
    (oid,) = _one(connection, "SELECT %s::regclass::oid", [table.as_string(connection)])
    for _, _, grantee, _ in connection.execute(_GRANTS, {"oid": oid}).fetchall():
        revoke = sql.SQL("REVOKE ALL ON {} FROM {}")
        connection.execute(revoke.format(table, _role(grantee)))
    kept = {name for (name,) in connection.execute("SELECT attname FROM pg_attribute WHERE attrelid = %s", [oid])}
    for column, privilege, grantee, grantable in connection.execute(_GRANTS, {"oid": model.oid}).fetchall():
        if column is not None and column not in kept:
            continue
        what = sql.SQL("{} ({})").format(sql.SQL(privilege), sql.Identifier(column)) if column else sql.SQL(privilege)
        option = sql.SQL(" WITH GRANT OPTION" if grantable else "")
        connection.execute(sql.SQL("GRANT {} ON {} TO {}{}").format(what, table, _role(grantee), option))
    (comment,) = _one(connection, "SELECT obj_description(%s, 'pg_class')", [model.oid])
    if comment is not None:
        connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(table, comment))


def shown(connection: Connection, tables: Sequence[str]) -> list[str]:
    """Return the marts that have a view in the schema `api`, which the function `cascade.show` renews."""
    return [name for (name,) in connection.execute(_SHOWN, [list(tables)])]


def show(connection: Connection, mart: str, table: sql.Identifier | None) -> None:
    """Let the view of a mart show a table, or go with `None`; nothing where the function is not there.

    The function belongs to the package that serves the API, which makes it.
    """
    if _one(connection, "SELECT to_regprocedure('cascade.show(text, regclass)')", [])[0]:
        shows = table and table.as_string(connection)
        connection.execute("SELECT cascade.show(%s, %s::text::regclass)", [mart, shows])


def lock_holders(connection: Connection, schema: str, tables: Sequence[str]) -> list[str]:
    """Say who uses tables right now."""
    found = connection.execute(_HOLDERS, [schema, list(tables)]).fetchall()
    return [f"pid {pid}, user {user}" + (f" ({program})" if program else "") for pid, user, program in sorted(found)]


def _one(connection: Connection, statement: str, parameters: Sequence[object]) -> tuple[Any, ...]:
    row = connection.execute(statement.encode(), parameters).fetchone()
    assert row is not None
    return row


def _role(name: str | None) -> sql.Composable:
    return sql.SQL("PUBLIC") if name is None else sql.Identifier(name)
