"""Differences that only the types of columns show: rules over the parsed SQL, by their name in the table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify
from sqlglot.schema import MappingSchema

from cascade_project.portability.findings import Columns

__all__ = ["RULES", "UNTYPED", "annotate", "output_columns"]

# It logs what it cannot know; for us that is everyday.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

_INTEGERS = exp.DataType.INTEGER_TYPES
_DECIMALS = {exp.DType.DECIMAL}
_DOUBLES = {exp.DType.DOUBLE, exp.DType.FLOAT}
_TEXTS = exp.DataType.TEXT_TYPES
_NUMBERS = {*_INTEGERS, *_DECIMALS, *_DOUBLES}


def annotate(tree: exp.Expr, columns: Columns) -> exp.Expr:
    """Return a copy of a query whose expressions know their types, as far as they can be known.

    The last one is kept: it is asked for by both engines, and by the models behind it.
    """
    known = sum(map(len, columns.values()))
    if not (_last and _last[0] is tree and _last[1] == known):
        _last[:] = [tree, known, _annotate(tree, columns)]
    annotated: exp.Expr = _last[2]
    return annotated


_last: list[Any] = []


def _annotate(tree: exp.Expr, columns: Columns) -> exp.Expr:
    schema = MappingSchema(dict(columns), dialect="duckdb")
    try:
        tree = qualify(
            tree.copy(),
            schema=schema,
            dialect="duckdb",
            validate_qualify_columns=False,
            quote_identifiers=False,
            identify=False,
        )
    except SqlglotError:
        tree = tree.copy()
    try:
        return annotate_types(tree, schema=schema, dialect="duckdb")
    except SqlglotError:
        return tree


def output_columns(tree: exp.Expr) -> dict[str, str]:
    """Return the columns of an annotated query with their types, or `unknown`; none if there is a star."""
    selects = tree.selects if isinstance(tree, exp.Query) else []
    if any(select.is_star for select in selects):
        return {}
    return {
        select.alias_or_name.lower(): select.type.sql("duckdb") if _kind(select) is not None else "unknown"
        for select in selects
        if select.type is not None
    }


def _kind(node: exp.Expr | None) -> exp.DType | None:
    """Return the type of an expression, `None` when it is not known."""
    if node is None or node.type is None or node.type.this == exp.DType.UNKNOWN:
        return None
    kind = node.type.this
    return kind if isinstance(kind, exp.DType) else None


def _integer_division(tree: exp.Expr, _columns: Columns) -> Iterator[exp.Expr]:
    for node in tree.find_all(exp.Div):
        if _kind(node.left) in _INTEGERS and _kind(node.right) in _INTEGERS:
            yield node


def _decimal_division(tree: exp.Expr, _columns: Columns) -> Iterator[exp.Expr]:
    for node in tree.find_all(exp.Div):
        kinds = [_decimal_or_kind(side) for side in (node.left, node.right)]
        if exp.DType.DECIMAL in kinds and all(kind in _DECIMALS | _INTEGERS for kind in kinds):
            yield node


def _decimal_or_kind(node: exp.Expr) -> exp.DType | None:
    # A literal such as 2.5 is a decimal to both engines.
    if isinstance(node, exp.Literal) and node.is_number and not node.is_int and "e" not in node.name.lower():
        return exp.DType.DECIMAL
    return _kind(node)


def _integer_sum(tree: exp.Expr, _columns: Columns) -> Iterator[exp.Expr]:
    """Sums and `count_if` that leave the query as they are."""
    if not isinstance(tree, exp.Query):
        return
    for select in tree.selects:
        node = select.unalias()
        while isinstance(node, exp.Coalesce | exp.Paren | exp.Window):
            node = node.this
        if isinstance(node, exp.CountIf) or (isinstance(node, exp.Sum) and _kind(_argument(node)) in _INTEGERS):
            yield node


def _argument(node: exp.Sum) -> exp.Expr:
    inner: exp.Expr = node.this
    return inner.expressions[0] if isinstance(inner, exp.Distinct) else inner


def _date_trunc_of_date(tree: exp.Expr, _columns: Columns) -> Iterator[exp.Expr]:
    for node in tree.find_all(exp.DateTrunc, exp.TimestampTrunc):
        if _kind(node.this) == exp.DType.DATE and not _cast(node):
            yield node


def _date_plus_interval(tree: exp.Expr, _columns: Columns) -> Iterator[exp.Expr]:
    for node in tree.find_all(exp.Add, exp.Sub):
        interval = node.find(exp.Interval)
        if interval is not None and _kind(node.left) == exp.DType.DATE and not _cast(node) and not _compared(node):
            yield node


def _cast(node: exp.Expr) -> bool:
    parent = node.parent
    while isinstance(parent, exp.Paren):
        parent = parent.parent
    return isinstance(parent, exp.Cast)


def _compared(node: exp.Expr) -> bool:
    """A comparison does not show whether a side is a date or a timestamp."""
    parent = node.parent
    while isinstance(parent, exp.Paren | exp.Add | exp.Sub):
        parent = parent.parent
    return isinstance(parent, exp.Predicate)


def _cast_to_integer(tree: exp.Expr, _columns: Columns) -> Iterator[exp.Expr]:
    rounded = exp.Round | exp.Floor | exp.Ceil
    for node in tree.find_all(exp.Cast):
        if node.to.this in _INTEGERS and _kind(node.this) in _DOUBLES and not isinstance(node.this, rounded):
            yield node


def _double_as_text(tree: exp.Expr, _columns: Columns) -> Iterator[exp.Expr]:
    for node in tree.find_all(exp.Cast):
        if node.to.this in _TEXTS and _kind(node.this) in _DOUBLES:
            yield node


def _text_and_number(tree: exp.Expr, _columns: Columns) -> Iterator[exp.Expr]:
    for node in tree.find_all(exp.EQ, exp.NEQ, exp.LT, exp.GT, exp.LTE, exp.GTE, exp.DPipe):
        kinds = {_kind(node.left), _kind(node.right)}
        if kinds & _TEXTS and kinds & _NUMBERS:
            yield node


def _unnest_in_select(tree: exp.Expr, _columns: Columns) -> Iterator[exp.Expr]:
    for select in tree.find_all(exp.Select):
        for column in select.expressions:
            if isinstance(column.unalias(), exp.Unnest | exp.Explode):
                yield column


def _alias_reuse(tree: exp.Expr, columns: Columns) -> Iterator[exp.Expr]:
    """Columns that exist only as a name that the same SELECT gives."""
    for select in tree.find_all(exp.Select):
        given: set[str] = set()
        have = _source_columns(select, columns)
        places: list[exp.Expr] = []
        for column in select.expressions:
            places += [node for node in _columns_of(column) if node.name.lower() in given]
            name = column.alias.lower() if isinstance(column, exp.Alias) else ""
            if name and name not in {node.name.lower() for node in _columns_of(column)}:
                given.add(name)
        for part in ("where", "group", "having"):
            clause = select.args.get(part)
            places += [node for node in _columns_of(clause) if node.name.lower() in given] if clause else []
        yield from (node for node in places if have is None or node.name.lower() not in have)


def _columns_of(node: exp.Expr) -> list[exp.Column]:
    """Return the columns without a table that an expression names, those of subqueries left out."""
    found = []
    for child in node.walk(prune=lambda n: isinstance(n, exp.Query)):
        if isinstance(child, exp.Column) and not child.table:
            found.append(child)
    return found


def _source_columns(select: exp.Select, columns: Columns) -> set[str] | None:
    """Return the columns that a SELECT reads from, `None` when one of its tables is not known."""
    sources = [select.args.get("from_") or select.args.get("from"), *(select.args.get("joins") or ())]
    found: set[str] = set()
    for source in sources:
        if source is None:
            continue
        table = source.this
        if isinstance(table, exp.Table) and table.name in columns.get(table.db, {}):
            found |= set(columns[table.db][table.name])
        else:
            return None
    return found


#: Each rule by its name in the table: it finds the nodes that it is about.
RULES: Mapping[str, Callable[[exp.Expr, Columns], Iterator[exp.Expr]]] = {
    "alias_reuse": _alias_reuse,
    "cast_to_integer": _cast_to_integer,
    "date_plus_interval": _date_plus_interval,
    "date_trunc_of_date": _date_trunc_of_date,
    "decimal_division": _decimal_division,
    "double_as_text": _double_as_text,
    "integer_division": _integer_division,
    "integer_sum": _integer_sum,
    "text_and_number": _text_and_number,
    "unnest_in_select": _unnest_in_select,
}
#: Rules about the SQL as it is written; the others look at the copy that knows types.
UNTYPED = frozenset({"alias_reuse", "unnest_in_select"})
