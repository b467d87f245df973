"""A sample of a source: its rows, the columns that the runtime would give them, and what may be key and cursor."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pyarrow as pa

from cascade.errors import UsageError
from cascade.ingestion.cast import Values, cast_column, infer_type, python_values
from cascade.ingestion.forms import FetchContext, form_of
from cascade.ingestion.text import json_text, listed, shown, snake_case
from cascade_create.names import column_names

__all__ = [
    "Column",
    "Sample",
    "column_of",
    "draw",
    "first_moment",
    "guess_cursor",
    "guess_key",
    "is_unique",
    "null_texts",
]

# What a text may hold, the narrowest first.
_TYPES = (pa.int64(), pa.float64(), pa.bool_(), pa.date32(), pa.timestamp("us"), pa.timestamp("us", "UTC"))
# What people write for "nothing".
_NOTHING = frozenset(("NA", "N/A", "n/a", "NULL", "null", "None", "none", "NaN", "nan", "#N/A", "-", "?"))
# Digits that a float keeps of a whole number, and of a fraction.
_WHOLE_DIGITS, _DIGITS = 15, 17
# A number of something, such as a telephone: its characters matter.
_WORD_OF_DIGITS = re.compile(r"\s|\+|-?0\d")
_UTC, _ZONE = re.compile(r"(Z|[+-]00:?00)$"), re.compile(r"(Z|[+-]\d\d:?\d\d)$")

_CURSORS = ("updated_at", "modified_at", "last_modified", "last_updated", "changed_at", "updated", "modified")
_CREATED = ("created_at", "created", "inserted_at", "timestamp", "time", "date")

_Part: TypeAlias = list[dict[str, Any]] | pa.Table


@dataclass(frozen=True)
class Column:
    """A column of a table, and where it comes from."""

    name: str
    type: pa.DataType
    source: str  # its name in the source

    @property
    def renamed(self) -> bool:
        """Whether the workflow has to rename it: the runtime would refuse its name, or give it another one."""
        return snake_case(self.source) != self.name


@dataclass
class Sample:
    """Some rows of a source."""

    columns: list[Column]
    rows: pa.Table  # cast to the columns
    raw: list[dict[str, Any]] = field(default_factory=list)  # the first ones, as the source gives them
    empty: list[str] = field(default_factory=list)  # names of the source without a value in the sample

    def values(self, name: str) -> list[Any]:
        """The values of a column that has some, in Python."""
        return [value for value in python_values(self.rows[name]) if value is not None]


def draw(fetched: object, most: int, *, texts: bool = False, kept: int = 20) -> Sample:
    """Take a sample of what a fetch function returns.

    Args:
        fetched: What it returns.
        most: Rows to look at.
        texts: Whether every value is text because the format has nothing else: then the text says its type.
        kept: Rows to keep as they are.

    Raises:
        UsageError: There are no rows.
    """
    parts: list[_Part] = []
    for part in _parts(fetched):
        parts.append(part[: most - sum(map(len, parts))])
        if sum(map(len, parts)) >= most:
            break
    if not sum(map(len, parts)):
        raise UsageError(
            "The source has no rows, so nothing can be inferred. Nothing was written.",
            fix="run the command when there are rows; or without --infer: then the first load infers the columns.",
        )
    sources = dict.fromkeys(name for part in parts for name in _names(part))
    columns, cast, empty = [], [], []
    for source, name in column_names(sources).items():
        values = _values(parts, source)
        kind = _type_of_text(values) if texts else infer_type(values)
        if kind is None:
            empty.append(source)
            continue
        columns.append(Column(name, kind, source))
        cast.append(cast_column(values, kind)[0])
    if not columns:
        raise UsageError("The rows of the source have no values. Nothing was written.", fix="look at the source.")
    raw: list[dict[str, Any]] = []
    for part in parts:
        rest = kept - len(raw)
        raw += part.slice(0, rest).to_pylist() if isinstance(part, pa.Table) else part[:rest]
    return Sample(columns, pa.table(cast, names=[column.name for column in columns]), raw, empty)


def _parts(fetched: Any) -> Iterator[_Part]:
    """Yield the rows of what a fetch function returns, as lists of dicts and as Arrow tables."""
    if (form := form_of(fetched)) is not None:  # such as a source of dlt, or a data frame
        fetched = form(fetched, FetchContext())
    if isinstance(fetched, pa.RecordBatch):
        fetched = pa.Table.from_batches([fetched])
    if isinstance(fetched, pa.Table):
        yield fetched
    elif isinstance(fetched, dict):
        yield [fetched]
    elif isinstance(fetched, Iterable) and not isinstance(fetched, str | bytes):
        for item in fetched:
            yield from _parts(item)
    elif fetched is not None:
        raise UsageError(
            f"The source gives {shown(fetched)} where a row is expected. Nothing was written.",
            fix="name a source that gives rows: objects with names and values.",
        )


def _names(part: _Part) -> Iterable[str]:
    return part.column_names if isinstance(part, pa.Table) else [name for row in part for name in row]


def _values(parts: Sequence[_Part], name: str) -> Values:
    """Return the values of a column: as Arrow has them where all parts have one type."""
    tables = [part for part in parts if isinstance(part, pa.Table)]
    kinds = {table.schema.field(name).type if name in table.column_names else None for table in tables}
    if len(tables) == len(parts) and len(kinds) == 1:
        return pa.chunked_array([chunk for table in tables for chunk in table[name].chunks], kinds.pop())
    values: list[Any] = []
    for part in parts:
        if not isinstance(part, pa.Table):
            values += [row.get(name) for row in part]
        else:
            values += python_values(part[name]) if name in part.column_names else [None] * part.num_rows
    return values


def _type_of_text(values: Values) -> pa.DataType | None:
    """Return the narrowest type that the runtime casts every text of a column to; text where one would change."""
    texts = values if isinstance(values, list) else python_values(values)
    present = [*{value for value in texts if value is not None}]
    return next((kind for kind in _TYPES if _holds(kind, present)), pa.string()) if present else None


def _holds(kind: pa.DataType, texts: list[str]) -> bool:
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if number and any(map(_WORD_OF_DIGITS.match, texts)):
        return False
    if pa.types.is_floating(kind) and any(len(text) > _WHOLE_DIGITS and _is_long(text) for text in texts):
        return False
    if pa.types.is_timestamp(kind):  # another zone than UTC would be lost: such a text stays
        if kind.tz is None and any(map(_ZONE.search, texts)):
            return False
        if kind.tz is not None and not all(map(_UTC.search, texts)):
            return False
    return not cast_column(pa.chunked_array([texts], pa.string()), kind)[1]


def _is_long(text: str) -> bool:
    """Say whether a number has more digits than a float keeps."""
    digits = len(re.sub(r"[eE].*|\D", "", text).lstrip("0"))
    return digits > (_DIGITS if re.search(r"[.eE]", text) else _WHOLE_DIGITS)


def null_texts(columns: Iterable[Sequence[str | None]]) -> list[str]:
    """Return what stands for "nothing" in columns of numbers and dates, and in no column of text."""
    nothing, words = set[str](), set[str]()
    for values in columns:
        different = {value for value in values if value is not None}
        said = different & _NOTHING
        rest = [*(different - said)]
        if said and rest:
            (nothing if any(_holds(kind, rest) for kind in _TYPES) else words).update(said)
    return sorted(nothing - words)


def guess_key(sample: Sample, name: str) -> str | None:
    """Return the column that looks most like the key: unique in the sample, and named as one."""
    singular = name.removesuffix("s")
    wanted = ["id", f"{singular}_id", f"{name}_id", "uuid", "key", f"{singular}_key", "code", "number"]
    names = [column.name for column in sample.columns]
    wanted += [one for one in names if one.endswith(("_id", "_key", "_no", "_number", "_code"))]
    return next((one for one in wanted if one in names and is_unique(sample, [one])), None)


def is_unique(sample: Sample, key: Sequence[str]) -> bool:
    """Say whether no two rows of the sample share a key, and every row has one."""
    if any(sample.rows[name].null_count for name in key):
        return False
    rows = zip(*(python_values(sample.rows[name]) for name in key), strict=True)
    different: bool = len({json_text(row) for row in rows}) == sample.rows.num_rows
    return different


def guess_cursor(sample: Sample) -> str | None:
    """Return the column that looks most like the time of a row's last change."""
    names = [column.name for column in sample.columns]
    return next((one for one in (*_CURSORS, *_CREATED) if one in names and first_moment(sample, one)), None)


def first_moment(sample: Sample, name: str) -> dt.date | None:
    """Return the earliest day in a column of times, or of texts that are times; None for others."""
    values = sample.rows[name]
    if not (pa.types.is_temporal(values.type) or pa.types.is_string(values.type)):
        return None
    values, wrong = cast_column(values, pa.timestamp("us", "UTC"))
    present = [value for value in python_values(values) if value is not None]
    return min(present).date() if present and not wrong else None


def column_of(sample: Sample, given: str, option: str) -> Column:
    """Return the column that an option names, as the source does or as the table does.

    Raises:
        UsageError: There is none; the error lists those that are there.
    """
    for column in sample.columns:
        if given in (column.source, column.name):
            return column
    for column in sample.columns:
        if snake_case(given) == column.name:
            return column
    raise UsageError(
        f"The source has no column {given!r}, or no value in it. Nothing was written.",
        where=option,
        fix=f"its columns are {listed(column.source for column in sample.columns)}.",
    )
