"""What `--at` takes: a snapshot, or a time."""

import datetime as dt

import pytest

from cascade.errors import QueryError
from cascade_operations.tables import parse_at


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5464506120183620500", 5464506120183620500),
        ("2026-07-01", dt.datetime(2026, 7, 1, tzinfo=dt.UTC)),
        ("20260701", dt.datetime(2026, 7, 1, tzinfo=dt.UTC)),
        ("2026-07-01T12:00", dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC)),
        ("2026-07-01T12:00+02:00", dt.datetime(2026, 7, 1, 10, tzinfo=dt.UTC)),
    ],
)
def test_a_moment_is_a_snapshot_or_a_time(text: str, expected: object) -> None:
    assert parse_at(text) == expected


def test_what_is_no_moment_is_refused_with_examples() -> None:
    with pytest.raises(QueryError, match=r"'yesterday' is neither[\s\S]*2026-07-01T12:00"):
        parse_at("yesterday")
