"""`@cascade_quality`: rules on a table become asset checks, which the engine computes on the run's branch.

Options of every built-in check:
    name (str): Name of the check: letters, digits, underscores. By default the kind of check and its columns.
    blocking (bool): Whether a failure blocks the promotion. By default as the group's `blocking`.
    tolerance (float): Fraction of the rows that may fail, 0 to 1, for the checks that count failing rows.
"""

from cascade.quality.decorator import cascade_quality
from cascade.quality.model import Check
from cascade.quality.row_checks import accepted_values, custom_sql, in_range, matches, not_null, unique
from cascade.quality.table_checks import freshness, reconciles, row_count

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
