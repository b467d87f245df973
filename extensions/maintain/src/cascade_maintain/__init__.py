"""Keep the lakehouse small and quick: compact tables, let old snapshots leave, remove what nothing needs."""

from __future__ import annotations

import datetime as dt
import re

from cascade.errors import UsageError

__all__ = ["parse_age"]

_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


def parse_age(value: str) -> dt.timedelta:
    """Read a duration such as `7d`, `12h` or `30m`.

    Raises:
        UsageError: The value is not a duration.
    """
    match = re.fullmatch(r"(\d{1,6})([dhm])", value.strip())
    if match is None:
        raise UsageError(f"{value!r} is not a duration.", fix="give a number of days, hours or minutes: 7d, 12h, 30m.")
    return dt.timedelta(**{_UNITS[match[2]]: int(match[1])})
