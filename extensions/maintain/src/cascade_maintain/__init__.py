"""Keep the lake from growing for ever: drop branches of runs that ended, remove files that nothing needs."""

from __future__ import annotations

import datetime as dt
import re

from cascade.errors import UsageError

__all__ = ["BRANCHES_OLDER_THAN", "FILES_OLDER_THAN", "KEEP_HISTORY", "parse_age"]

#: How old the branch of a run that ended must be.
BRANCHES_OLDER_THAN = "7d"
#: How old a file must be; longer than the longest run, whose files no commit names yet.
FILES_OLDER_THAN = "3d"
#: How long what `main` once held can be restored.
KEEP_HISTORY = "30d"

_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


def parse_age(value: str) -> dt.timedelta:
    """Read a duration such as `7d`, `12h` or `30m`.

    Raises:
        UsageError: It is none.
    """
    match = re.fullmatch(r"(\d{1,6})([dhm])", value.strip())
    if match is None:
        raise UsageError(f"{value!r} is not a duration.", fix="give a number of days, hours or minutes: 7d, 12h, 30m.")
    return dt.timedelta(**{_UNITS[match[2]]: int(match[1])})
