"""`@cascade_quality`: rules on a table become asset checks, which the engine computes on the run's branch.

Options of every built-in check:
    name (str): Name of the check: letters, digits, underscores. By default the kind of check and its columns.
    blocking (bool): Whether a failure blocks the promotion. By default as the group's `blocking`.
    tolerance (float): Fraction of the rows that may fail, 0 to 1, for the checks that count failing rows.
"""

from types import FunctionType
from typing import Any

from cascade.plugins import find
from cascade.quality.decorator import cascade_quality
from cascade.quality.model import CHECKS, Check

__all__ = [
    "Check",
    "accepted_values",
    "cascade_quality",
    "custom_sql",
    "freshness",
    "in_range",
    "matches",
    "not_null",
    "reconciles",
    "row_count",
    "unique",
]


def __getattr__(name: str) -> Any:
    """Return a function that makes a check, of the package that brings it."""
    made = None if name.startswith("_") else find(CHECKS, name, FunctionType)
    if made is None:
        raise AttributeError(f"module 'cascade.quality' has no attribute {name!r}")
    return made
