"""SQL that gives no rows, only columns, in which some of the tables are replaced by others without rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pyiceberg.types import IcebergType
from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError

from cascade.errors import CascadeError
from cascade.iceberg.types import duckdb_type

__all__ = ["with_stand_ins"]


def with_stand_ins(
    sql: str, inside: Mapping[str, str], tables: Mapping[str, Mapping[str, IcebergType]], dialect: str
) -> str:
    """Return a statement with the columns of a SELECT, and no rows.

    Args:
        sql: The SELECT.
        inside: SELECTs that stand for tables `namespace.table` in it, each after those that it reads.
        tables: The columns of tables that are not there, or have others.
        dialect: sqlglot's name of the engine's SQL.

    Raises:
        CascadeError: The SQL cannot be read, or a column has a type that SQL has no word for.
    """
    names = {name.lower(): "cascade_plan_" + re.sub(r"\W", "_", name) for name in (*tables, *inside)}
    used: set[str] = set()
    try:
        bodies = {name: _replaced(text, names, used, dialect) for name, text in inside.items()}
        body = _replaced(sql, names, used, dialect)
        bodies = {name: _empty(columns, dialect) for name, columns in tables.items() if name.lower() in used} | bodies
    except (SqlglotError, ValueError) as error:
        raise CascadeError(f"its SQL cannot be read: {error}") from error
    given = ", ".join(f"{names[name.lower()]} AS ({text})" for name, text in bodies.items())
    return (f"WITH {given} " if given else "") + f"SELECT * FROM (\n{body}\n) AS model LIMIT 0"


def _replaced(sql: str, names: Mapping[str, str], used: set[str], dialect: str) -> str:
    """Return SQL that reads other tables in place of those that are named; SQL that reads none of them as it is."""
    words = set(re.findall(r"\w+", sql.lower()))
    if not any(name.rpartition(".")[2] in words for name in names):
        return sql
    tree = parse_one(sql, dialect=dialect)
    for table in list(_tables(tree)):
        name = f"{table.db}.{table.name}".lower()
        if name in names:
            used.add(name)
            table.set("db", None)
            table.set("catalog", None)
            if not table.alias:
                table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))
            table.set("this", exp.to_identifier(names[name]))
    return tree.sql(dialect=dialect)


def _tables(tree: exp.Expr) -> Iterator[exp.Table]:
    return (table for table in tree.find_all(exp.Table) if table.db)


def _empty(columns: Mapping[str, IcebergType], dialect: str) -> str:
    kinds = {name: exp.DataType.build(duckdb_type(kind), dialect="duckdb") for name, kind in columns.items()}
    shown = [exp.alias_(exp.cast(exp.null(), kind), name, quoted=True) for name, kind in kinds.items()]
    return exp.select(*shown).sql(dialect=dialect)
