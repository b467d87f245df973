"""Which columns of its inputs each column of a SELECT is computed from: read from the SQL, by sqlglot.

Only what becomes part of a value counts, as is usual: not the columns of conditions, joins and groups.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlglot import exp, parse_one
from sqlglot.lineage import Node, lineage
from sqlglot.schema import MappingSchema

from cascade.errors import CascadeError, TransformError

__all__ = ["column_lineage", "columns_from"]

_UNCLEAR = ("", "")

# It logs what it cannot resolve; a test of its answer is what remains of a column.
logging.getLogger("sqlglot").setLevel(logging.ERROR)


def column_lineage(
    sql: str, dialect: str, inputs: Mapping[str, Sequence[str]]
) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return what each column of a SELECT is computed from.

    Args:
        sql: The SELECT as the engine gets it: what dbt has compiled.
        dialect: sqlglot's name of the engine's SQL, `duckdb` or `trino`.
        inputs: The columns of the tables that it may read, by `namespace.table`; in the SQL a database may come first.
            What else it reads is passed over.

    Returns:
        By the column's name in lower case: pairs of a table and a column of `inputs`, sorted; none for a column that is
        computed from no column, such as `count(*)`. Columns are left out that may be of several tables.

    Raises:
        TransformError: sqlglot cannot read the SQL, or does not know which columns it has.
    """
    return dict(_traced(sql, dialect, tuple((name, tuple(columns)) for name, columns in sorted(inputs.items()))))


def columns_from(
    table: str,
    column: str,
    reads: Mapping[str, Collection[str]],
    lineage: Callable[[str], Mapping[str, Collection[tuple[str, str]]]],
) -> tuple[str, ...]:
    """Return the columns of other tables that come from a column, directly or through others.

    Args:
        table: `namespace.table`.
        column: Its column.
        reads: What each table is computed from; a table comes after those that it reads.
        lineage: Returns what the columns of a table are computed from, as `column_lineage` does, or raises a
            `CascadeError` when it cannot be told.

    Returns:
        `namespace.table.column`, in the order of `reads`; `namespace.table.*` for a table whose lineage cannot be told.
    """
    found = {table: {column.lower()}}
    for reader, inputs in reads.items():
        if reader == table or found.keys().isdisjoint(inputs):
            continue
        try:
            told = lineage(reader)
        except CascadeError:
            found[reader] = {"*"}
            continue
        coming = {
            name
            for name, pairs in told.items()
            if any({one.lower(), "*"} & found.get(read, set()) for read, one in pairs)
        }
        if coming:
            found[reader] = coming
    return tuple(f"{name}.{one}" for name, columns in found.items() if name != table for one in sorted(columns))


@lru_cache(maxsize=1_000)  # a microbatch asks once for each batch, a daemon at each run
def _traced(
    sql: str, dialect: str, inputs: tuple[tuple[str, tuple[str, ...]], ...]
) -> Mapping[str, tuple[tuple[str, str], ...]]:
    names = {name.lower(): (name, {column.lower(): column for column in columns}) for name, columns in inputs}
    schema: dict[str, Any] = {}
    for name, columns in inputs:
        namespace, _, table = name.partition(".")
        schema.setdefault(namespace, {})[table] = dict.fromkeys(columns, "unknown")
    try:
        tree = parse_one(sql, dialect=dialect)
        for read in tree.find_all(exp.Table):
            read.set("catalog", None)  # the database of a branch
        known = MappingSchema(schema, dialect=dialect)
        roots = lineage(None, tree, known, dialect=dialect, trim_selects=False, allow_partial_qualification=True)
        leaves = {column: set(_leaves(root)) for column, root in roots.items()}
    # It raises errors of many kinds for SQL that it does not know.
    except Exception as error:
        raise TransformError(f"its SQL cannot be read: {type(error).__name__}: {str(error).splitlines()[0]}") from error
    found = {}
    for column, pairs in leaves.items():
        if "*" in (column, *(one for _, one in pairs)):
            raise TransformError("its SQL has a `*` of columns that are not known")
        if _UNCLEAR not in pairs:
            told = [(names[name], one) for name, one in pairs if name in names]
            found[column.lower()] = tuple(sorted((table, own[one]) for (table, own), one in told if one in own))
    return found


def _name_of(table: exp.Table) -> str:
    return f"{table.db}.{table.name}".lower()


def _leaves(root: Node) -> Iterator[tuple[str, str]]:
    """Yield the tables and columns at the ends of a column's graph, `_UNCLEAR` where it is not known which."""
    seen, waiting = {id(root)}, [root]
    while waiting:
        node = waiting.pop()
        if not node.downstream:
            read = exp.Star() if node.name == "*" else exp.to_column(node.name)
            if isinstance(node.expression, exp.Table):
                yield _name_of(node.expression), read.name.lower()
            elif isinstance(node.expression, exp.Placeholder) and not read.args.get("table"):
                yield _UNCLEAR
        for one in node.downstream:
            if id(one) not in seen:
                seen.add(id(one))
                waiting.append(one)
