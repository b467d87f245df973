"""Look at one rendered statement with the eyes of one engine: the table, the lists of functions, the parsers."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

from sqlglot import ErrorLevel, exp, parse_one, tokenize
from sqlglot.errors import ParseError, SqlglotError, TokenError

from cascade_project.portability.differences import (
    Difference,
    Token,
    differences,
    masked,
    trino_functions,
    unknown_functions,
)
from cascade_project.portability.findings import DIALECTS, Columns
from cascade_project.portability.render import PLACEHOLDER
from cascade_project.portability.typed import RULES, UNTYPED, annotate

__all__ = ["Place", "parse", "places"]

_TEXT_KINDS = ("STRING", "HEREDOC")
_PAGE = "see the page on SQL for both engines"


@dataclass(frozen=True)
class Place:
    """An entry of the table at an offset."""

    offset: int
    engine: str
    says: str
    remedy: str


def places(sql: str, dialect: str, columns: Columns, *, dynamic: bool) -> list[Place]:
    """Return everything in a statement that an engine refuses, or understands in its own way.

    Args:
        sql: The statement, rendered for the engine.
        dialect: `duckdb` or `trino`.
        columns: What is known of the tables.
        dynamic: Whether it depends on rows that only a run sees, so that it may not be whole.
    """
    try:
        tokens = _tokens(sql)
    except TokenError:
        return [Place(0, dialect, f"{DIALECTS[dialect].label} cannot read this SQL: a quote is not closed", "close it")]
    if _only_placeholder(tokens):
        return []
    sql, tokens = _with_queries(sql, tokens)
    text = masked(sql, tokens)
    found: list[Place] = []
    for entry in differences():
        if entry.engine in (dialect, "both"):
            found += [_place(entry, at, text) for at in entry.places(text, sql)]
    label = DIALECTS[dialect].label
    for function, at in unknown_functions(tokens, dialect, _functions(dialect)):
        if not function.startswith(PLACEHOLDER) and at not in {place.offset for place in found}:
            found.append(Place(at, dialect, f"{label} has no function `{function}`", _PAGE))
    tree = parse(sql)
    if tree is not None:
        found += _typed(tree, dialect, columns, text)
    if not dynamic and not any(place.engine == dialect for place in found):
        found += _syntax(sql, dialect, readable=tree is not None)
    return found


def _place(entry: Difference, at: int, text: str) -> Place:
    word = re.match(r"\w*", text[at:])
    function = word[0] if word else ""
    return Place(at, entry.engine, entry.says.replace("{}", function), entry.remedy)


def _typed(tree: exp.Expr, dialect: str, columns: Columns, text: str) -> list[Place]:
    found = []
    annotated = annotate(tree, columns)
    for entry in differences():
        if entry.rule and entry.engine in (dialect, "both"):
            nodes = RULES[entry.rule](tree if entry.rule in UNTYPED else annotated, columns)
            found += [_place(entry, _offset(node, text), text) for node in nodes]
    return found


def _offset(node: exp.Expr, text: str) -> int:
    """Return where a node begins: sqlglot keeps the places of names and literals only."""
    starts = [child.meta["start"] for child in node.walk() if "start" in child.meta]
    if isinstance(node, exp.Div):
        ends = [child.meta["end"] for child in node.left.walk() if "end" in child.meta]
        slash = text.find("/", max(ends)) if ends else -1
        if slash >= 0:
            return slash
    return min(starts, default=0)


def _syntax(sql: str, dialect: str, *, readable: bool) -> list[Place]:
    """Let a parser of the engine read it: DuckDB's own, and sqlglot's for Trino."""
    if dialect == "duckdb":
        message = _duckdb_error(sql)
        line = re.search(r"LINE (\d+):", message)
        offset = _line_start(sql, int(line[1])) if line else 0
        message = message.splitlines()[0] if message else ""
    else:
        message, offset = _trino_error(sql)
    # What nobody can read holds a placeholder where dbt puts more than a value.
    if not message or (PLACEHOLDER in sql and not readable):
        return []
    return [Place(offset, dialect, f"{DIALECTS[dialect].label} cannot read this SQL: {message}", _PAGE)]


def _duckdb_error(sql: str) -> str:
    import duckdb

    try:
        _duckdb().extract_statements(sql)
    except duckdb.Error as error:
        return str(error)
    return ""


def _trino_error(sql: str) -> tuple[str, int]:
    try:
        parse_one(sql, dialect="trino", error_level=ErrorLevel.IMMEDIATE)
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        description = str(first.get("description") or error).splitlines()[0].rstrip(".")
        offset = _line_start(sql, int(first.get("line") or 1))
        return f"{description} at `{first.get('highlight', '')}`", offset
    except SqlglotError as error:
        return str(error).splitlines()[0], 0
    return "", 0


def _line_start(sql: str, line: int) -> int:
    return sum(len(text) + 1 for text in sql.split("\n")[: line - 1])


@functools.lru_cache(maxsize=4)  # most SQL is the same text for both engines
def parse(sql: str) -> exp.Expr | None:
    """Return the parsed query, `None` if it is none."""
    try:
        sql, _ = _with_queries(sql, _tokens(sql))
    except TokenError:
        return None
    for dialect in ("duckdb", "trino"):
        try:
            tree = parse_one(sql, dialect=dialect, error_level=ErrorLevel.IMMEDIATE)
        except SqlglotError:
            continue
        return tree if isinstance(tree, exp.Query) else None
    return None


@functools.cache
def _duckdb() -> Any:
    import duckdb

    return duckdb.connect()


@functools.cache
def _functions(dialect: str) -> frozenset[str]:
    if dialect == "trino":
        return trino_functions()
    rows = _duckdb().execute("select distinct function_name from duckdb_functions()").fetchall()
    return frozenset(name.lower() for (name,) in rows)


@functools.lru_cache(maxsize=4)
def _tokens(sql: str) -> list[Token]:
    tokens = []
    for token in tokenize(sql, dialect="duckdb"):
        start, end = token.start, token.end + 1
        raw, kind = sql[start:end], token.token_type.name
        if any(word in kind for word in _TEXT_KINDS):
            named = "text"
        elif kind == "IDENTIFIER":
            named = "identifier"
        else:
            named = "word" if re.fullmatch(r"[A-Za-z_]\w*", raw) else "symbol"
        tokens.append(Token(raw, start, end, named))
    return tokens


def _only_placeholder(tokens: list[Token]) -> bool:
    return all(token.text.startswith(PLACEHOLDER) or token.text in ("(", ")", ";") for token in tokens)


def _with_queries(sql: str, tokens: list[Token]) -> tuple[str, list[Token]]:
    """Turn placeholders that stand for a whole query into one, of the same length as far as offsets matter."""
    words = [token.text.lower() for token in tokens]
    query = {"as", "from", "join", "exists", "in", ","}
    places = []
    for i, token in enumerate(tokens):
        if not token.text.startswith(PLACEHOLDER):
            continue
        before, after = words[i - 1] if i else "", words[i + 1] if i + 1 < len(words) else ""
        opened = before == "(" and after == ")" and i > 1 and words[i - 2] in query
        united = before in ("union", "all", "except", "intersect") or after in ("union", "except", "intersect")
        if opened or united:
            places.append(token)
    for token in reversed(places):
        # The keyword takes the place of the prefix, so that what follows stays where it is.
        shorter = "select " + token.text[len("select ") :].lstrip("_")
        sql = sql[: token.start] + shorter.ljust(len(token.text)) + sql[token.end :]
    return (sql, _tokens(sql)) if places else (sql, tokens)
