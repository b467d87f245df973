"""Say values and names the way Cascade does: plain Python, JSON text, snake_case."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

__all__ = ["has_text", "json_text", "listed", "python_value", "record", "shortened", "shown", "snake_case"]

_DATE = ("year", "month", "day")
_TIME = ("hour", "minute", "second", "microsecond", "tzinfo", "fold")
_PLAIN = frozenset(
    {type(None), bool, int, float, str, bytes, dict, list, datetime.datetime, datetime.date, datetime.time}
)


def _time_of(plain: type, parts: Sequence[str], value: Any) -> Any:
    return plain(**{part: getattr(value, part) for part in parts})


# What makes a plain value of one of a class that is derived: by a database driver, a template engine, pendulum.
_SAME: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    bytes: bytes,
    bytearray: bytes,
    memoryview: bytes,
    datetime.datetime: functools.partial(_time_of, datetime.datetime, (*_DATE, *_TIME)),
    datetime.date: functools.partial(_time_of, datetime.date, _DATE),
    datetime.time: functools.partial(_time_of, datetime.time, _TIME),
}


def json_text(value: object, *, exact: bool = False) -> str:
    """Return a value as JSON, names sorted: equal values have one text. What JSON does not know becomes its text.

    Args:
        value: The value.
        exact: Whether what has no text of its own is refused; else it is described, as for a message.

    Raises:
        ValueError: The text would say something else than the value.
    """
    try:
        default = functools.partial(_json_default, exact=exact)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=default, sort_keys=True)
    except (TypeError, ValueError):
        text = json.dumps(_jsonable(value, exact), ensure_ascii=False, sort_keys=True)
    return text.encode("utf-8", "replace").decode()


def listed(names: Iterable[str]) -> str:
    """Return names as a message lists them."""
    return ", ".join(f"`{name}`" for name in names) or "none"


def shown(value: object) -> str:
    """Return a value as a message shows it: a megabyte is cut."""
    return shortened(repr(value), 80)


def shortened(text: str, width: int) -> str:
    """Return a text, cut after some characters."""
    return text if len(text) <= width else f"{text[: width - 3]}..."


@functools.cache
def snake_case(name: str) -> str:
    """Return the name that Cascade gives to a column: `userId`, `UserID` and `user id` are `user_id`."""
    words = re.sub(r"\W+", "_", unicodedata.normalize("NFC", name))
    words = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", words)
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", words)
    private = "_" * (len(words) - len(words.lstrip("_"))) if name.startswith("_") else ""
    return private + re.sub(r"_+", "_", words).strip("_").lower()


def record(value: Any) -> dict[str, Any] | None:
    """Return the fields of a dataclass, a model of pydantic, a named tuple or a row of SQLAlchemy; None for others."""
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for method in ("model_dump", "_asdict"):
        if callable(fields := getattr(value, method, None)):
            return dict(fields())
    return None


def has_text(value: object) -> bool:
    """Say whether an object has a text of its own, and not only a description of itself."""
    return type(value).__str__ is not object.__str__


def python_value(value: Any) -> Any:
    """Return a value as plain Python, a missing one of NumPy or pandas as None.

    A member of an Enum is its value, never its name; times of pandas and pendulum are those of `datetime`,
    nanoseconds cut off; a dataclass or a model is the dict of its fields.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, enum.Enum):
        return python_value(value.value)
    if kind.__name__ in ("NAType", "NaTType"):
        return None
    if kind.__module__ == "numpy":
        if kind.__name__ == "datetime64":
            value = value.astype("datetime64[us]")
        return value.tolist()
    for plain, make in _SAME.items():
        if isinstance(value, plain):
            return make(value)
    fields = None if isinstance(value, tuple) else record(value)  # a tuple, named or not, is the value of a list
    return value if fields is None else fields


def _json_default(value: object, exact: bool) -> object:
    plain = python_value(value)
    if isinstance(plain, datetime.date | datetime.time):
        return plain.isoformat()
    if isinstance(plain, bytes):
        return plain.decode(errors="strict" if exact else "backslashreplace")
    if isinstance(plain, Set):
        return sorted((_jsonable(item, exact) for item in plain), key=json_text)
    if isinstance(plain, Mapping):
        return dict(plain)
    if isinstance(plain, Sequence) and not isinstance(plain, str):
        return list(plain)
    if exact and plain is value and not has_text(value):
        raise ValueError(f"{shown(value)} has no text of its own")
    return str(value) if plain is value else plain


def _jsonable(value: object, exact: bool) -> object:
    if isinstance(value, Mapping):
        named = {str(python_value(key)): _jsonable(item, exact) for key, item in value.items()}
        if exact and len(named) != len(value):
            raise ValueError(f"{shown(value)} has two names with one text")
        return named
    if isinstance(value, list | tuple):
        return [_jsonable(item, exact) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    plain = value is None or isinstance(value, str | int)
    return value if plain else _jsonable(_json_default(value, exact), exact)
