"""Say values and names the way Cascade does: plain Python, JSON text, snake_case."""

from __future__ import annotations

import datetime
import enum
import functools
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["json_text", "listed", "python_value", "shortened", "shown", "snake_case"]

_DATE = ("year", "month", "day")
_TIME = ("hour", "minute", "second", "microsecond", "tzinfo", "fold")
# Types that other libraries derive theirs from, and the parts to make one of them.
_TIMES: dict[Any, tuple[str, ...]] = {
    datetime.datetime: (*_DATE, *_TIME),
    datetime.date: _DATE,
    datetime.time: _TIME,
}
_PLAIN = frozenset({type(None), bool, int, float, str, bytes, dict, list, *_TIMES})


def json_text(value: object) -> str:
    """Return a value as JSON, names sorted: equal values have one text. What JSON does not know becomes its text."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_json_default, sort_keys=True)
    except (TypeError, ValueError):
        text = json.dumps(_jsonable(value), ensure_ascii=False, sort_keys=True)
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
    words = re.sub(r"\W+", "_", name)
    words = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", words)
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", words)
    private = "_" * (len(words) - len(words.lstrip("_"))) if name.startswith("_") else ""
    return private + re.sub(r"_+", "_", words).strip("_").lower()


def python_value(value: Any) -> Any:
    """Return a value as plain Python, a missing one of NumPy or pandas as None.

    A member of an Enum is its value, never its name; times of pandas and pendulum are those of `datetime`,
    nanoseconds cut off.
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
    if isinstance(value, bytearray | memoryview):
        value = bytes(value)
    for plain, parts in _TIMES.items():
        if isinstance(value, plain):
            return plain(**{part: getattr(value, part) for part in parts})
    return value


def _json_default(value: object) -> object:
    plain = python_value(value)
    if isinstance(plain, datetime.date | datetime.time):
        return plain.isoformat()
    if isinstance(plain, set | frozenset):
        return sorted(map(_jsonable, plain), key=json_text)
    return str(value) if plain is value else plain


def _jsonable(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(python_value(key)): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    return value if value is None or isinstance(value, str | int | bool) else _jsonable(_json_default(value))
