"""`@cascade_quality`: rules on a table become asset checks, which the engine computes on the run's branch."""

from cascade.quality.decorator import (
    Check,
    accepted_values,
    cascade_quality,
    custom_sql,
    freshness,
    in_range,
    matches,
    not_null,
    reconciles,
    row_count,
    unique,
)

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
