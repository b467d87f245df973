"""Pages of JSON, as a REST source answers them: bytes that hold a list of objects, or an object on each line."""

from __future__ import annotations

import contextlib
import json
from decimal import Decimal
from typing import Any

import numpy as np
import orjson

from cascade.errors import IngestionError
from cascade.ingestion.forms import FetchContext
from cascade.ingestion.text import shown

__all__ = ["json_rows"]

# orjson, twice as fast as Python, makes floats of integers beyond 64 bits: digits in so long a row are left to Python.
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * 19
# Such a row fills one of the words of 8 bytes: they are looked at first, and a digit is a byte whose upper half is 3.
_UPPER, _THREES = (np.uint64(int(byte * 8, 16)) for byte in ("F0", "30"))


def json_rows(page: bytes, context: FetchContext) -> list[dict[str, Any]]:
    """Return the objects of a page.

    Args:
        page: A JSON list of objects, or one object on each line (NDJSON), in UTF-8.
        context: Counts the pages, for the message; where a column needs all digits of a number, those that a float does
            not hold become decimals.

    Raises:
        IngestionError: It is anything else.
    """
    context.pages += 1
    number, decimals = context.pages, context.decimals
    exact = decimals or _has_long_number(page)
    listed = page.lstrip()[:1] == b"["
    rows: list[Any] = []
    for line, text in enumerate([page] if listed else page.splitlines(), start=1):
        if not text.strip():
            continue
        try:
            found = _parsed(text, exact=exact, decimals=decimals)
        except UnicodeDecodeError as error:
            raise _unreadable(number, f"line {line}, byte {error.start}", "it is not UTF-8") from None
        except json.JSONDecodeError as error:
            place = f"line {line + error.lineno - 1}, column {error.colno}"
            raise _unreadable(number, place, error.msg) from None
        rows += found if listed else [found]
    if set(map(type, rows)) - {dict}:
        position = next(i for i, row in enumerate(rows) if type(row) is not dict)
        raise _unreadable(number, f"object {position + 1:,}", f"{shown(rows[position])} is no object")
    return rows


def _has_long_number(page: bytes) -> bool:
    words = np.frombuffer(page, np.uint64, len(page) // 8)
    return bool((words & _UPPER == _THREES).any()) and _LONG in page.translate(_DIGITS)


def _parsed(text: bytes, *, exact: bool, decimals: bool) -> Any:
    if not exact:
        with contextlib.suppress(orjson.JSONDecodeError):  # for `NaN` and for errors Python has a better word
            return orjson.loads(text)
    return json.loads(text.decode(), parse_float=_exact_number if decimals else None)


def _exact_number(text: str) -> float | Decimal:
    """Return a number of JSON as a float where that says just the same, else as a decimal."""
    number = float(text)
    return number if len(text) < 17 or Decimal(repr(number)) == Decimal(text) else Decimal(text)


def _unreadable(number: int, where: str, why: str) -> IngestionError:
    return IngestionError(
        f"Page {number} of JSON is not a list of objects: {why}.",
        where=f"page {number}, {where}",
        fix="give the bytes of a JSON list of objects, or of one object a line; else parse the answer, and give the "
        "dicts.",
    )
