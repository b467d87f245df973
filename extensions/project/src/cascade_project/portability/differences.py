"""What is known to differ between the engines: a table of data, and where SQL holds an entry of it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cascade_project.portability.findings import DIALECTS

__all__ = ["Difference", "Token", "differences", "function_calls", "masked", "trino_functions"]

_FOLDER = Path(__file__).parent

# Words before a parenthesis that call no function: the language itself, on both engines, and types.
_NO_FUNCTIONS = frozenset(
    re.findall(
        r"\w+",
        """
        all and any array as asc bernoulli between by case cast char coalesce cross cube current_date current_time
        current_timestamp date decimal desc descriptor distinct double else end escape except exclude exists extract
        fetch filter first following from full group grouping having if in inner integer intersect interval into is
        join lateral left like limit localtime localtimestamp map materialized natural not null nullif nulls numeric
        offset on only or order outer over overlay partition pivot position preceding range recursive replace right
        rollup row rows select sets some struct substring system table tablesample then time timestamp trim try try_cast
        union unnest unpivot using values varbinary varchar when where window with within
        """,
    )
)
# Functions that DuckDB's parser knows and its list does not.
_DUCKDB_SYNTAX = frozenset({"ifnull", "nvl", "columns"})


@dataclass(frozen=True)
class Token:
    """A word of SQL and where it is."""

    text: str
    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Difference:
    """One entry of the table; `syntax.yaml` tells what the parts mean.

    Attributes:
        engine: `duckdb` or `trino`, where it breaks; `both`: it runs and gives another value.
        says: What is wrong.
        remedy: What to do instead.
        pattern: Finds it; `None` for a rule that knows types.
        rule: Name of such a rule.
        bad: An example.
        good: The remedy of the example, with Jinja.
        values: Whether both give the same value.
        fails: Whether the example needs something that a test does not have.
        functions: Names of the functions that it is about.
        in_texts: Whether the pattern looks into texts, so into SQL that is not masked.
    """

    engine: str
    says: str
    remedy: str
    pattern: re.Pattern[str] | None
    rule: str
    bad: str
    good: str
    values: bool
    fails: bool
    functions: tuple[str, ...] = ()
    in_texts: bool = False

    def places(self, text: str, sql: str) -> Iterator[int]:
        """Return the offsets where it occurs in SQL, given masked and as it is."""
        for match in self.pattern.finditer(sql if self.in_texts else text) if self.pattern else ():
            at = match.start("at") if "at" in match.re.groupindex else match.start()
            if not text[at].isspace():  # comments are blank
                yield at


@functools.cache
def differences() -> tuple[Difference, ...]:
    """Return the whole table."""
    entries = []
    for name in ("syntax.yaml", "functions.yaml"):
        loaded: list[dict[str, Any]] = yaml.safe_load((_FOLDER / name).read_text("utf-8"))
        entries += [_difference(entry) for entry in loaded]
    return tuple(entries)


@functools.cache
def trino_functions() -> frozenset[str]:
    """Return the names of all functions of Trino, as the version that we test lists them."""
    return frozenset((_FOLDER / "trino_functions.txt").read_text("utf-8").split())


def masked(sql: str, tokens: Sequence[Token]) -> str:
    """Return SQL of the same length in lower case, without comments, texts blanked, the AS of casts in capitals."""
    text = [" " if character != "\n" else "\n" for character in sql]
    casts: list[bool] = []
    before = ""
    for token in tokens:
        raw = sql[token.start : token.end]
        word = raw.lower() if len(raw.lower()) == len(raw) else raw
        if token.kind == "text":
            word = raw[0] + "_" * (len(raw) - 2) + raw[-1] if raw[0] == "'" else raw[:2] + "_" * (len(raw) - 2)
        elif token.kind == "identifier":
            word = '"' + "_" * (len(raw) - 2) + '"'
        elif raw == "(":
            casts.append(before in ("cast", "try_cast"))
        elif raw == ")" and casts:
            casts.pop()
        elif word == "as" and casts and casts[-1]:
            word = "AS"
        elif raw == "::":
            word = "::"
        text[token.start : token.end] = word
        before = word
    return "".join(text)


def function_calls(tokens: Sequence[Token]) -> Iterator[tuple[str, int]]:
    """Return the name and offset of every function that is called."""
    for i, token in enumerate(tokens[:-1]):
        name = token.text.lower()
        if tokens[i + 1].text != "(" or token.kind != "word" or name in _NO_FUNCTIONS:
            continue
        before = tokens[i - 1] if i else None
        if before is not None and (before.text == "." or _names_columns(tokens, i, before)):
            continue
        yield name, token.start


def unknown_functions(tokens: Sequence[Token], dialect: str, known: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Return the functions that an engine does not have and that the table does not name.

    Args:
        tokens: The SQL.
        dialect: The engine.
        known: Names of its functions.
    """
    listed = {name for entry in differences() for name in entry.functions if entry.engine in (dialect, "both")}
    known = known | listed | (_DUCKDB_SYNTAX if dialect == "duckdb" else frozenset())
    yield from ((name, at) for name, at in function_calls(tokens) if name not in known)


def _names_columns(tokens: Sequence[Token], i: int, before: Token) -> bool:
    """Say whether `name (a, b)` names the columns of a table: `as t(a)`, `) t(a)`, `with t(a) as (…)`."""
    word = before.text.lower()
    if before.kind == "identifier" or word in ("as", ")", "with", "recursive"):
        return True
    if before.kind == "word" and word not in _NO_FUNCTIONS:
        return True  # a table and its other name
    if word != ",":
        return False
    depth = 0
    for j in range(i + 1, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[j].text, 0)
        if not depth:
            return [t.text.lower() for t in tokens[j + 1 : j + 3]] == ["as", "("]
    return False


def _difference(entry: dict[str, Any]) -> Difference:
    functions = tuple(entry.get("function", ()))
    find = entry.get("find")
    if functions:
        find = rf"(?<![\w.\"])(?:{'|'.join(functions)})\s*\("
    dialect = DIALECTS.get(entry["engine"])
    says = entry.get("says", f"{dialect.label if dialect else ''} has no `{{}}`")
    return Difference(
        engine=entry["engine"],
        says=says,
        remedy=entry["do"],
        pattern=re.compile(find, re.IGNORECASE if entry.get("in_texts") else 0) if find else None,
        rule=entry.get("rule", ""),
        bad=entry["bad"],
        good=entry.get("good", ""),
        values=entry.get("values", True),
        fails=entry.get("fails", False),
        functions=functions,
        in_texts=entry.get("in_texts", False),
    )
