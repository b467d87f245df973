"""Read the file of a seed: each value as it is written, and the type that each column can have without changing one."""

from __future__ import annotations

import csv
import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import agate

__all__ = ["read"]

_INTEGERS = ("tinyint", "smallint", "int", "integer", "bigint")
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,18})")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)?(\.\d+)?([eE][-+]?\d{1,2})?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?")


class _Column(agate.Text):  # type: ignore[misc]  # agate ships no types
    """A column of text, with the type that it shall have in SQL."""

    def __init__(self, sql: str) -> None:
        super().__init__(cast_nulls=False)
        self.sql = sql


def read(abspath: str | Path, text_columns: Mapping[str, str], delimiter: str = ",") -> agate.Table:
    """Read a seed, in place of dbt's own reader, which guesses: `007` is 7 to it, and `null` is no text.

    Args:
        abspath: The CSV file, UTF-8, with double quotes.
        text_columns: What dbt hands over by this name: the types of `column_types`, by column.
        delimiter: Between the values of a line.

    Returns:
        Texts; an empty one is null. `sql` of a column's type is what `column_types` says; else the narrowest of bigint,
        double, boolean, date and timestamp that changes no value; else varchar.

    Raises:
        ValueError: Lines of different length; columns without a name, or with that of another one; a type for a column
            that there is not, or that would change a value.
    """
    with Path(abspath).open(encoding="utf-8-sig", newline="") as opened:
        reader = csv.reader(opened, delimiter=delimiter, strict=True)
        try:
            names = _names(next(reader, []))
            rows = []
            for row in filter(None, reader):
                if len(row) != len(names):
                    raise ValueError(f"line {reader.line_num} has {len(row)} columns, and the header {len(names)}")
                rows.append([value or None for value in row])
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from error
    declared = {name.lower(): sql.lower() for name, sql in text_columns.items()}
    if unknown := [name for name in text_columns if name.lower() not in {n.lower() for n in names}]:
        raise ValueError(f"its column_types {', '.join(unknown)} is none of its columns: {', '.join(names)}")
    types = []
    for n, name in enumerate(names):
        values = [value for row in rows if (value := row[n]) is not None]
        types.append(_Column(declared.get(name.lower()) or _type(values)))
        _require_kept(name, types[-1].sql, values)
    return agate.Table(rows, names, types)


def _require_kept(name: str, sql: str, values: Iterable[str]) -> None:
    """Refuse a declared type for which an engine would round or cut a value."""
    kind, *sizes = re.findall(r"\w+", sql) or [""]
    if kind in ("decimal", "numeric") and len(sizes) != 2:
        raise ValueError(f"column {name}: {sql} has other digits on each engine; write decimal(precision, scale)")
    for value in values:
        if kind in _INTEGERS:
            kept = re.fullmatch(r"[-+]?\d+", value.strip()) is not None
        elif kind in ("decimal", "numeric"):
            digits = value.lower().partition("e")[0].partition(".")[2]
            kept = len(digits.rstrip("0 ")) <= int(sizes[1])
        else:
            kept = not (kind in ("varchar", "char") and sizes) or len(value) <= int(sizes[0])
        if not kept:
            raise ValueError(f"column {name}: {value!r} is no {sql}, and would be changed")


def _names(header: list[str]) -> list[str]:
    if not header or "" in header:
        raise ValueError(f"a column of the header has no name: {header}")
    if same := sorted(name for name in header if [n.lower() for n in header].count(name.lower()) > 1):
        raise ValueError(f"several columns of one name: {', '.join(same)}; capital letters make no difference")
    return header


def _type(values: Sequence[str]) -> str:
    """Return the narrowest type that keeps what is written."""
    if not values:
        return "varchar"
    return next((sql for sql, keeps in _KEEPS.items() if all(map(keeps, values))), "varchar")


def _parses(shape: re.Pattern[str], parse: Callable[[str], Any]) -> Callable[[str], bool]:
    def keeps(value: str) -> bool:
        try:
            return bool(shape.fullmatch(value)) and parse(value) is not None
        except ValueError:
            return False

    return keeps


def _is_bigint(value: str) -> bool:
    return bool(_INTEGER.fullmatch(value)) and -(2**63) <= int(value) < 2**63


def _is_double(value: str) -> bool:
    """Whether a double has all digits of a number; who writes an exponent means one."""
    if not _NUMBER.fullmatch(value) or not any(c.isdigit() for c in value):
        return False
    return "e" in value.lower() or Decimal(repr(float(value))) == Decimal(value)


_KEEPS: dict[str, Callable[[str], bool]] = {
    "bigint": _is_bigint,
    "double": _is_double,
    "boolean": lambda value: value.lower() in ("true", "false"),
    "date": _parses(_DATE, dt.date.fromisoformat),
    "timestamp": _parses(_TIMESTAMP, dt.datetime.fromisoformat),
}
