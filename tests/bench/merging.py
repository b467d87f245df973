"""Cases: rows are merged by key into a table that holds many already."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from measuring import OURS, Work, case
from peers import PYARROW, PYICEBERG, iceberg_table, write_parquet
from rows import DAY, arrow, days, of_day

ONE_DAY, EVERYWHERE = "10,000 rows of one day merged by key", "keys in every file merged"

_TABLE = ("rows of the table", (1_000_000, 3_000_000, 10_000_000), (200_000, 600_000))
_UPSERT = ("rows of the table", (1_000_000,), (200_000,))
_SPREAD = ("rows of the table", (1_000_000, 3_000_000, 10_000_000), (300_000, 1_000_000))
_OF_A_DAY, _CHANGED = 10_000, 100_000


def _half_new(rows: int) -> tuple[int, pa.Table]:
    """Return a day in the middle, and 10,000 rows of it: half of their keys are in the table."""
    number = rows // _OF_A_DAY // 2
    known = arrow(number * _OF_A_DAY, _OF_A_DAY // 2)
    return number, of_day(number, pa.concat_tables([known, arrow(rows, _OF_A_DAY // 2)]))


def _spread(rows: int) -> pa.Table:
    """Return rows whose keys lie all over the table: one in a hundred, at most 100,000."""
    number = min(_CHANGED, rows // 10)
    ids = np.arange(number) * (rows // number)
    table = arrow(0, number)
    return table.set_column(0, "id", pa.array(ids))


def _key(number: int) -> str:
    return str(dt.date.fromisoformat(DAY) + dt.timedelta(days=number))


def _rewrite(files: list[Path], rows: pa.Table) -> None:
    """Write each file again without the rows that come, and the rows beside it: no index, no statistics."""
    for file in files:
        table = pq.read_table(file)
        kept = table.filter(pc.invert(pc.is_in(table["id"], rows["id"])))
        pq.write_table(kept, file.with_suffix(".new"), compression="zstd")
    pq.write_table(rows, files[0].with_suffix(".rows"), compression="zstd")


@case(ONE_DAY, OURS, "rows of the table", (1_000_000, 3_000_000, 10_000_000, 100_000_000), _TABLE[2], bare=PYARROW)
def one_day_ours(folder: Path, rows: int) -> Iterator[Work]:
    number, coming = _half_new(rows)
    from lake import Loads

    load = Loads(folder, until=_key(max(3_652, rows // _OF_A_DAY)), unique_key="id", partition_column="day")
    load(lambda: days(rows, _OF_A_DAY), [_key(n) for n in range(rows // _OF_A_DAY)])
    load(lambda: coming.slice(0, 1), [_key(number)])
    yield Work(lambda: load(lambda: coming, [_key(number)]))


@case(ONE_DAY, PYARROW, *_TABLE)
def one_day_pyarrow(folder: Path, rows: int) -> Iterator[Work]:
    number, coming = _half_new(rows)
    files = write_parquet(folder, days(rows, _OF_A_DAY), rows_of_a_file=300_000)
    yield Work(lambda: _rewrite([files[number * _OF_A_DAY // 300_000]], coming))


@case(ONE_DAY, PYICEBERG, *_UPSERT, bare=PYARROW)
def one_day_pyiceberg(folder: Path, rows: int) -> Iterator[Work]:
    _, coming = _half_new(rows)
    table = iceberg_table(folder, coming.schema)
    for part in days(rows, max(_OF_A_DAY, rows // 10)):  # the same rows in fewer files
        table.append(part)
    yield Work(lambda: table.upsert(coming, join_cols=["id"]))


@case(EVERYWHERE, OURS, *_SPREAD, bare=PYARROW)
def everywhere_ours(folder: Path, rows: int) -> Iterator[Work]:
    coming = _spread(rows)
    from lake import Loads

    load = Loads(folder, unique_key="id")
    load(lambda: (arrow(at, 100_000) for at in range(0, rows, 100_000)), [DAY])
    yield Work(lambda: load(lambda: coming, [DAY]))


@case(EVERYWHERE, PYARROW, *_SPREAD)
def everywhere_pyarrow(folder: Path, rows: int) -> Iterator[Work]:
    coming = _spread(rows)
    files = write_parquet(folder, (arrow(at, 100_000) for at in range(0, rows, 100_000)), rows_of_a_file=300_000)
    yield Work(lambda: _rewrite(files, coming))
