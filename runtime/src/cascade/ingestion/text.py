"""Say values and names the way Cascade does: plain Python, JSON text, snake_case."""

from __future__ import annotations

import datetime
import functools
import json
import math
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["json_text", "python_value", "shown", "snake_case"]


def json_text(value: object) -> str:
    """Return a value as JSON; what JSON does not know becomes its text."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_json_default)
    except (TypeError, ValueError):
        text = json.dumps(_jsonable(value), ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()


def shown(value: object) -> str:
    """Return a value as a message shows it: a megabyte is cut."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


@functools.cache
def snake_case(name: str) -> str:
    """Return the name that Cascade gives to a column: `userId`, `UserID` and `user id` are `user_id`."""
    words = re.sub(r"\W+", "_", name)
    words = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", words)
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", words)
    private = "_" * (len(words) - len(words.lstrip("_"))) if name.startswith("_") else ""
    return private + re.sub(r"_+", "_", words).strip("_").lower()


def python_value(value: Any) -> Any:
    """Return numbers of NumPy and timestamps of pandas as plain Python, their missing values as None."""
    kind = type(value)
    if kind.__name__ in ("NAType", "NaTType"):
        return None
    if kind.__module__ == "numpy":
        if kind.__name__ == "datetime64":
            value = value.astype("datetime64[us]")
        return value.tolist()
    if kind.__module__.startswith("pandas") and kind.__name__ == "Timestamp":
        return value.to_pydatetime(warn=False)
    return value


def _json_default(value: object) -> object:
    plain = python_value(value)
    if isinstance(plain, datetime.date | datetime.time):
        return plain.isoformat()
    return str(value) if plain is value else plain


def _jsonable(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    return value if value is None or isinstance(value, str | int | bool) else _jsonable(_json_default(value))
