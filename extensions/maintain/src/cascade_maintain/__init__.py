"""Keep the lakehouse small: delete the branches of ended runs, remove files that nothing needs."""

from __future__ import annotations

import datetime as dt
import re

from cascade.errors import UsageError

__all__ = ["BRANCHES_OLDER_THAN", "FILES_OLDER_THAN", "KEEP_HISTORY", "parse_age"]

#: Minimum age of the branch of an ended run.
BRANCHES_OLDER_THAN = "7d"
#: Minimum age of a file; longer than the longest run, because its files are not committed yet.
FILES_OLDER_THAN = "3d"
#: How long past states of `main` can be restored.
KEEP_HISTORY = "30d"

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
