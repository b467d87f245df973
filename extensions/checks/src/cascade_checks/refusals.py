"""How wrong options of the built-in checks are refused, and how bounds and fractions are said in words."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

from cascade.errors import DefinitionError
from cascade.quality import require

__all__ = ["Bound", "bounds_text", "percent", "require_columns", "require_order", "require_tolerance"]

Bound = int | float | Decimal | dt.date | dt.datetime


def require_columns(kind: str, *columns: str) -> None:
    """Refuse values that are not names of columns, an empty list, and a column named twice."""
    where = f"{kind}({', '.join(map(repr, columns))})"
    require(bool(columns), f"{kind} names no column.", where, f'name one, for example {kind}("origin").')
    wrong = [repr(column) for column in columns if not isinstance(column, str) or not column.strip()]
    several = f'give names, several as {kind}("origin", "time_hour") where it takes several.'
    require(not wrong, f"{', '.join(wrong)} is not the name of a column.", where, several)
    once = len({column.lower() for column in columns}) == len(columns)
    require(once, f"{kind} names a column twice.", where, "name each column once.")


def require_order(where: str, **bounds: Any) -> None:
    """Refuse two bounds that are both missing, or of which the first is above the second.

    Args:
        where: The check, for the message.
        bounds: The lower and the upper bound, by the names of their options; `None` for one that is missing.
    """
    (lower, low), (upper, high) = bounds.items()
    if low is None or high is None:
        missing = low is None and high is None
        return require(not missing, f"Neither {lower} nor {upper} is given.", where, "give one of them, or both.")
    try:
        ordered = low <= high
    except TypeError:
        what = f"{lower}={low!r} and {upper}={high!r} cannot be compared."
        raise DefinitionError(what, where=where, fix="give two of one type.") from None
    return require(ordered, f"{lower}={low!r} is more than {upper}={high!r}.", where, "swap them.")


def bounds_text(low: object, high: object) -> str:
    """Return two bounds in words."""
    if high is None:
        return f"at least {low}"
    return f"at most {high}" if low is None else f"between {low} and {high}"


def require_tolerance(kind: str, tolerance: float) -> None:
    """Refuse what is not a fraction from 0 to 1."""
    fraction = isinstance(tolerance, int | float) and not isinstance(tolerance, bool) and 0 <= tolerance <= 1
    fix = "give a number from 0 to 1; 0.01 allows one in a hundred."
    require(fraction, f"tolerance={tolerance!r} is not a fraction.", kind, fix)


def percent(fraction: float) -> str:
    """Return a fraction as a percentage."""
    return f"{fraction * 100:.3g} %"
