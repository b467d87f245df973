"""Convert one Python value to a type, exactly or not at all."""

from __future__ import annotations

import datetime
import decimal
import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, TypeAlias

import pyarrow as pa

from cascade.iceberg.schema import iceberg_type
from cascade.ingestion.text import has_text, json_text, python_value, shown, snake_case

__all__ = ["CANNOT_CAST", "BadValueError", "convert", "in_utc", "kind_of"]

#: What a conversion raises for a value that it cannot convert.
CANNOT_CAST = (pa.ArrowException, ValueError, TypeError, ArithmeticError)

_NUMBERS = (int, float, decimal.Decimal)

# Text that is a number: no digits of other scripts, which Python takes, and no `1_000`.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_LEADING_ZERO = re.compile(r"[+-]?0\d")

_Converter: TypeAlias = Callable[[Any, pa.DataType], Any]


def kind_of(arrow_type: pa.DataType) -> str:
    """Return the kind of an Arrow type, whatever its width: `int`, `string`, `timestamp`, …"""
    return _kind(arrow_type)[0]


def in_utc(value: Any) -> Any:
    """Return an aware datetime in UTC, anything else as it is."""
    aware = isinstance(value, datetime.datetime) and value.tzinfo is not None
    return value.astimezone(datetime.UTC) if aware else value


class BadValueError(ValueError):
    """A value that its column cannot hold; the text says which and why: "'abc' is not a double"."""

    def __init__(self, value: object, target: pa.DataType, why: str = "") -> None:
        try:
            word = re.sub(r"-?\d+: |optional ", "", str(iceberg_type(target)))
        except TypeError:
            word = str(target)
        article = "an" if word[0] in "aeiou" else "a"
        super().__init__(f"{shown(value)} is not {article} {word}" + (f" ({why})" if why else ""))


def convert(value: Any, target: pa.DataType) -> Any:
    """Return the Python value that Arrow stores in a column of the type.

    Raises:
        BadValueError: The value is none of the type.
    """
    value = python_value(value)
    if value is None:
        return None
    try:
        return _kind(target)[1](value, target)
    except BadValueError:
        raise
    except CANNOT_CAST:
        raise BadValueError(value, target) from None


def _of(value: Any, target: pa.DataType, *kinds: type) -> Any:
    """Return the value; refuse what is of another kind. True is not a number."""
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise BadValueError(value, target)
    return value


def _number(value: Any, target: pa.DataType) -> Any:
    """Return a number, or the text of one; `007` is a name of something."""
    if not isinstance(_of(value, target, *_NUMBERS, str), str):
        return value
    text: str = value.strip()
    if _LEADING_ZERO.match(text):
        raise BadValueError(value, target, "text with leading zeros is not a number; declare the column as text")
    if not _NUMBER.fullmatch(text):
        raise BadValueError(value, target)
    return text


def _to_int(value: Any, target: pa.DataType) -> int:
    value = _number(value, target)
    if isinstance(value, str):
        value = decimal.Decimal(value)
        if value.is_finite() and value.adjusted() > 40:
            raise BadValueError(value, target, "it is too large")
    number = int(value)
    if number != value:
        raise BadValueError(value, target, "it has a fraction")
    if not -(2 ** (target.bit_width - 1)) <= number < 2 ** (target.bit_width - 1):
        raise BadValueError(value, target, "it is too large")
    return number


def _to_float(value: Any, target: pa.DataType) -> float:
    number = float(_number(value, target))
    stored = number
    if target.bit_width == 32 and math.isfinite(number):
        (stored,) = struct.unpack("<f", struct.pack("<f", number))  # refuses what is too large
    if isinstance(value, int) and int(stored) != value:
        raise BadValueError(value, target, "it would lose digits")
    return stored


def _to_decimal(value: Any, target: pa.DataType) -> decimal.Decimal:
    number = decimal.Decimal(repr(value) if isinstance(value, float) else _number(value, target))
    if not number.is_finite():
        raise BadValueError(value, target)
    sign, digits, exponent = number.normalize(decimal.Context(prec=1000)).as_tuple()
    assert isinstance(exponent, int)  # it is finite
    if number and (-exponent > target.scale or len(digits) + exponent > target.precision - target.scale):
        raise BadValueError(value, target, "it has more digits than the type holds")
    return decimal.Decimal((sign, digits, exponent))


def _to_bool(value: Any, target: pa.DataType) -> bool:
    if isinstance(value, bool):
        return value
    text: str = _of(value, target, str).strip().lower()
    if text not in ("true", "false"):
        raise BadValueError(value, target)
    return text == "true"


def _to_text(value: Any, target: pa.DataType) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, bool) or (isinstance(value, Mapping | Sequence | Set) and not isinstance(value, str)):
        return json_text(value, exact=True)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))  # pandas makes 1.0 of 1 where another row has no value
    if isinstance(value, float | decimal.Decimal | int):
        return format(value, "f") if isinstance(value, decimal.Decimal) else repr(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if not has_text(value):
        raise BadValueError(value, target, "it has no text of its own")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadValueError(value, target, "it is not valid Unicode") from None
    return text


def _moment(value: Any, target: pa.DataType) -> datetime.datetime:
    if isinstance(value, str):
        return datetime.datetime.fromisoformat(value.strip())
    if isinstance(value, datetime.datetime):
        return value
    if isinstance(value, datetime.date):
        return datetime.datetime(value.year, value.month, value.day)
    epoch = isinstance(value, int | float) and not isinstance(value, bool)
    raise BadValueError(value, target, "turn numbers into datetimes before they are returned" if epoch else "")


def _to_timestamp(value: Any, target: pa.DataType) -> datetime.datetime:
    moment = _moment(value, target)
    moment = moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else in_utc(moment)
    return moment.replace(tzinfo=None) if target.tz is None else moment


def _to_date(value: Any, target: pa.DataType) -> datetime.date:
    moment = _moment(value, target)
    if moment.time() != datetime.time():  # in its own zone
        raise BadValueError(value, target, "it has a time of day")
    return moment.date()


def _to_time(value: Any, target: pa.DataType) -> datetime.time:
    time = _of(value, target, datetime.time, str)
    time = datetime.time.fromisoformat(value.strip()) if isinstance(value, str) else time
    if time.utcoffset():
        raise BadValueError(value, target, "it has an offset from UTC; declare the column as text to keep it")
    return time.replace(tzinfo=None)


def _to_struct(value: Any, target: pa.DataType) -> dict[str, Any]:
    """Names match as those of columns do. What happens to other fields was decided before (`cast.grown`)."""
    by_name = {snake_case(str(name)): item for name, item in _of(value, target, Mapping).items()}
    return {
        field.name: convert(value.get(field.name, by_name.get(snake_case(field.name))), field.type) for field in target
    }


def _to_map(value: Any, target: pa.DataType) -> list[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, Mapping) else value
    return [(convert(key, target.key_type), convert(item, target.item_type)) for key, item in pairs]


def _to_other(value: Any, target: pa.DataType) -> Any:
    pa.scalar(value, target)
    return value


def _kind(arrow_type: pa.DataType) -> tuple[str, _Converter]:
    return next(((kind, to_kind) for kind, test, to_kind in _KINDS if test(arrow_type)), ("other", _to_other))


def _any(*names: str) -> Callable[[pa.DataType], bool]:
    return lambda arrow_type: any(getattr(pa.types, f"is_{name}")(arrow_type) for name in names)


# Kinds of Arrow types, how one is recognised, and what converts a value to it.
_KINDS: tuple[tuple[str, Callable[[pa.DataType], bool], _Converter], ...] = (
    ("null", pa.types.is_null, _to_other),
    ("bool", pa.types.is_boolean, _to_bool),
    ("int", pa.types.is_integer, _to_int),
    ("float", pa.types.is_floating, _to_float),
    ("decimal", pa.types.is_decimal, _to_decimal),
    ("string", _any("string", "large_string", "string_view"), _to_text),
    (
        "binary",
        _any("binary", "large_binary", "binary_view"),
        lambda v, t: v.encode() if isinstance(v, str) else bytes(_of(v, t, bytes)),
    ),
    ("date", pa.types.is_date, _to_date),
    ("timestamp", pa.types.is_timestamp, _to_timestamp),
    ("time", pa.types.is_time, _to_time),
    (
        "list",
        _any("list", "large_list", "fixed_size_list"),
        lambda v, t: [convert(item, t.value_type) for item in _of(v, t, list, tuple)],
    ),
    ("struct", pa.types.is_struct, _to_struct),
    ("map", pa.types.is_map, _to_map),
)
