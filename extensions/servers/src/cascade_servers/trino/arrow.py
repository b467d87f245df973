"""What Trino answers as an Arrow table: the types come from its signatures, so that no rows lose nothing either."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

__all__ = ["to_arrow"]

_Read = Callable[[Any], Any]
_Signature = dict[str, Any]


def to_arrow(names: Sequence[str], signatures: Sequence[_Signature], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Build a table.

    Args:
        names: The columns' names; two may be the same.
        signatures: Their types, as Trino's protocol describes them.
        rows: The values, as its JSON holds them.
    """
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    arrays = []
    for signature, values in zip(signatures, columns, strict=True):
        kind, read = _reader(signature)
        arrays.append(pa.array([None if v is None else read(v) for v in values], kind))
    return pa.Table.from_arrays(arrays, names=list(names))


def _reader(signature: _Signature) -> tuple[pa.DataType, _Read]:
    """Return the Arrow type of a Trino type, and what makes a Python value of one in JSON."""
    name, arguments = signature["rawType"], [argument["value"] for argument in signature["arguments"]]
    if name in _PRIMITIVES:
        return _PRIMITIVES[name]
    if name == "decimal":
        return pa.decimal128(*arguments), Decimal
    if name == "array":
        kind, read = _reader(arguments[0])
        return pa.list_(kind), lambda values: [None if v is None else read(v) for v in values]
    if name == "map":
        # A key is always text in JSON.
        (key_kind, key), (value_kind, value) = _reader(arguments[0]), _reader(arguments[1])
        return pa.map_(key_kind, value_kind), lambda values: [
            (key(k), None if v is None else value(v)) for k, v in values.items()
        ]
    if name == "row":
        fields = [(field["fieldName"] or {}).get("name") or f"_{i}" for i, field in enumerate(arguments)]
        readers = [_reader(field["typeSignature"]) for field in arguments]
        kind = pa.struct([(field, kind) for field, (kind, _) in zip(fields, readers, strict=True)])
        return kind, lambda values: {
            field: None if v is None else read(v) for field, (_, read), v in zip(fields, readers, values, strict=True)
        }
    return pa.string(), str


def _bool(value: Any) -> bool:
    return value in (True, "true")


def _zoned(value: str) -> dt.datetime:
    moment, _, zone = value.rpartition(" ")
    if zone in ("UTC", "Z"):
        return dt.datetime.fromisoformat(moment).replace(tzinfo=dt.UTC)
    if zone[0] in "+-":
        return dt.datetime.fromisoformat(moment + zone)
    return dt.datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(zone))


_PRIMITIVES: dict[str, tuple[pa.DataType, _Read]] = {
    "boolean": (pa.bool_(), _bool),
    "tinyint": (pa.int8(), int),
    "smallint": (pa.int16(), int),
    "integer": (pa.int32(), int),
    "bigint": (pa.int64(), int),
    "real": (pa.float32(), float),
    "double": (pa.float64(), float),
    "date": (pa.date32(), dt.date.fromisoformat),
    # Digits beyond microseconds, which no table of the lakehouse holds, are cut off.
    "time": (pa.time64("us"), dt.time.fromisoformat),
    "timestamp": (pa.timestamp("us"), dt.datetime.fromisoformat),
    "timestamp with time zone": (pa.timestamp("us", "UTC"), _zoned),
    "varbinary": (pa.binary(), base64.b64decode),
    "unknown": (pa.null(), str),
}
