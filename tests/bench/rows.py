"""The rows that the bench loads: ten columns, the same as dicts, as Arrow and as JSON."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["DAY", "SCHEMA", "arrow", "batches", "days", "dicts", "json_pages"]

#: The partition that all rows are loaded as, where a case has one.
DAY = "2024-01-01"
PAGE, BATCH = 1_000, 100_000

_WORDS = [f"value {n * 7919 % 997}" for n in range(997)]
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        *((f"number_{n}", pa.float64()) for n in range(1, 5)),
        *((f"word_{n}", pa.string()) for n in range(1, 5)),
        ("count", pa.int64()),
    ]
)


def dicts(rows: int) -> Iterator[list[dict[str, Any]]]:
    """Give pages of 1,000 dicts, as a REST source does."""
    words, number = _WORDS, len(_WORDS)
    for at in range(0, rows, PAGE):
        yield [
            {
                "id": i,
                "number_1": i * 0.5,
                "number_2": i * 1.5,
                "number_3": i * 2.5,
                "number_4": i * 3.5,
                "word_1": words[i % number],
                "word_2": words[i * 3 % number],
                "word_3": words[i * 5 % number],
                "word_4": words[i * 7 % number],
                "count": i % 1000,
            }
            for i in range(at, min(at + PAGE, rows))
        ]


def arrow(first: int, rows: int) -> pa.Table:
    """Return rows as an Arrow table.

    Args:
        first: Their first id.
        rows: How many.
    """
    ids = np.arange(first, first + rows)
    words = pa.array(_WORDS)
    columns = [
        ids,
        *(ids * (n - 0.5) for n in range(1, 5)),
        *(words.take(pa.array(ids * n % len(_WORDS))) for n in (1, 3, 5, 7)),
        ids % 1000,
    ]
    return pa.table(columns, schema=SCHEMA)


def batches(rows: int) -> Iterator[pa.Table]:
    """Give tables of 100,000 rows, each made when it is asked for."""
    for at in range(0, rows, BATCH):
        yield arrow(at, min(BATCH, rows - at))


def json_pages(rows: int) -> list[bytes]:
    """Return pages of 1,000 rows, as a REST source answers them."""
    return [json.dumps(page).encode() for page in dicts(rows)]


def days(rows: int, of_a_day: int) -> Iterator[pa.Table]:
    """Give the rows of one day after the other; each has its `day`.

    Args:
        rows: How many in all.
        of_a_day: How many on one day.
    """
    for number in range(rows // of_a_day):
        yield of_day(number, arrow(number * of_a_day, of_a_day))


def of_day(number: int, table: pa.Table) -> pa.Table:
    """Add the column `day`: so many days after `DAY`."""
    day = dt.date.fromisoformat(DAY) + dt.timedelta(days=number)
    return table.append_column("day", pa.array([day] * table.num_rows, pa.date32()))
