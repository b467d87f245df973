"""Pages of JSON, as a REST source answers them: bytes that hold a list of objects, or an object on each line."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json as arrow_json

from cascade.errors import IngestionError
from cascade.ingestion.text import shown

__all__ = ["read_page"]

# What Arrow makes of JSON that says as much as JSON does; it also takes text for times.
_PLAIN = (pa.null(), pa.bool_(), pa.int64(), pa.float64(), pa.string())
# From here on floating-point numbers leave out integers.
_EXACT = 2.0**53


def read_page(page: bytes, number: int, texts: set[str], *, decimals: bool) -> pa.Table | list[dict[str, Any]]:
    """Return the objects of a page: as Arrow read them where that changes nothing, else as Python does.

    Args:
        page: A JSON list of objects, or one object on each line (NDJSON), in UTF-8.
        number: Which page it is, from 1, for the message.
        texts: Names whose values Arrow would take for times; this function adds to them.
        decimals: Whether numbers keep all their digits: those that a float does not hold become decimals.

    Raises:
        IngestionError: It is anything else.
    """
    text, before = page.strip(), len(page) - len(page.lstrip())
    if text[:1] != b"[":
        text, before = b"[%s]" % re.sub(rb"\s*\n\s*", _comma, text), before - 1
    try:
        decoded = text.decode()
        if not decimals and (table := _table(text, texts)) is not None:
            return table
        rows: list[Any] = json.loads(decoded, parse_float=_exact_number if decimals else None)
    except UnicodeDecodeError as error:
        raise _unreadable(number, f"byte {error.start + before:,}", "it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _unreadable(number, f"byte {len(error.doc[: error.pos].encode()) + before:,}", error.msg) from None
    if set(map(type, rows)) - {dict}:
        position = next(i for i, row in enumerate(rows) if type(row) is not dict)
        raise _unreadable(number, f"item {position:,} of the list", f"it is {shown(rows[position])}")
    return rows


def _table(text: bytes, texts: set[str]) -> pa.Table | None:
    """Read a list of flat objects. None where Python has to look: at what is nested, wrong, or would lose digits."""
    line = b'{"rows":%s}' % text  # Arrow reads objects, not lists
    known = pa.schema([("rows", pa.list_(pa.struct([(name, pa.string()) for name in sorted(texts)])))])
    try:
        read = arrow_json.read_json(
            pa.BufferReader(line),
            arrow_json.ReadOptions(use_threads=False, block_size=len(line)),
            arrow_json.ParseOptions(explicit_schema=known, newlines_in_values=True),
        )
    except (pa.ArrowException, OverflowError):
        return None
    rows = read["rows"].combine_chunks().flatten()
    if read.shape != (1, 1) or not pa.types.is_struct(rows.type) or rows.null_count or not rows.type.num_fields:
        return None
    if times := {field.name for field in rows.type if pa.types.is_timestamp(field.type)} - texts:
        texts |= times
        return _table(text, texts)
    table = pa.Table.from_struct_array(rows)
    floats = [column for column in table.columns if column.type == pa.float64()]
    lossy = any(pc.any(pc.greater_equal(pc.abs(column), _EXACT)).as_py() for column in floats)
    return None if lossy or not set(table.schema.types) <= {*_PLAIN} else table


def _comma(gap: re.Match[bytes]) -> bytes:
    """A comma between two objects, as long as the space that it replaces: what is told of places stays true."""
    return b",".ljust(len(gap[0]))


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
