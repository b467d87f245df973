"""Cases: rows are loaded for the first time, and again."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
from measuring import OURS, Work, case
from peers import DLT, PYARROW, PYICEBERG, iceberg_table, load_with_dlt, write_parquet
from rows import DAY, SCHEMA, arrow, batches, dicts, json_pages

DICTS, ARROW, JSON = "dicts, first load", "Arrow batches, first load", "JSON pages, first load"
AGAIN = "a partition is loaded again"

_DICTS = ("rows", (100_000, 300_000, 1_000_000), (20_000, 60_000))
_ARROW = ("rows", (300_000, 1_000_000, 3_000_000, 10_000_000), (100_000, 300_000))
_JSON = ("rows", (100_000, 300_000, 1_000_000), (20_000, 60_000))
_AGAIN = ("rows", (100_000, 300_000, 1_000_000), (30_000, 100_000))


def _loads(folder: Path) -> Any:
    """Return the loads of a table with a key and a contract. Imported late: the peers do without."""
    from lake import Contract, Loads

    return Loads(folder, unique_key="id", validation_schema=Contract)


def _through(pages: Callable[[], Iterable[object]]) -> Callable[[], object]:
    """Go through all pages, and keep none."""
    return lambda: sum(1 for _ in pages())


def _tables(pages: Iterable[list[dict[str, object]]]) -> Iterator[pa.Table]:
    return (pa.Table.from_pylist(page, schema=SCHEMA) for page in pages)


@case(DICTS, OURS, *_DICTS, bare=PYARROW)
def dicts_ours(folder: Path, rows: int) -> Iterator[Work]:
    load = _loads(folder)
    load(lambda: dicts(1), ["2024-01-02"])  # imports and the first connection belong to start-up
    yield Work(lambda: load(lambda: dicts(rows), [DAY]), making=_through(lambda: dicts(rows)))


@case(DICTS, PYARROW, *_DICTS)
def dicts_pyarrow(folder: Path, rows: int) -> Iterator[Work]:
    write_parquet(folder, _tables(dicts(1)))
    yield Work(lambda: write_parquet(folder, _tables(dicts(rows))), making=_through(lambda: dicts(rows)))


@case(DICTS, PYICEBERG, *_DICTS, bare=PYARROW)
def dicts_pyiceberg(folder: Path, rows: int) -> Iterator[Work]:
    table = iceberg_table(folder, SCHEMA)
    table.append(arrow(0, 1))
    yield Work(lambda: table.append(pa.concat_tables(_tables(dicts(rows)))), making=_through(lambda: dicts(rows)))


@case(DICTS, DLT, *_DICTS, bare=PYARROW)
def dicts_dlt(folder: Path, rows: int) -> Iterator[Work]:
    load_with_dlt(folder / "first", dicts(1))
    yield Work(lambda: load_with_dlt(folder / "all", dicts(rows)), making=_through(lambda: dicts(rows)))


@case(ARROW, OURS, *_ARROW, bare=PYARROW)
def arrow_ours(folder: Path, rows: int) -> Iterator[Work]:
    load = _loads(folder)
    load(lambda: batches(1), ["2024-01-02"])
    yield Work(lambda: load(lambda: batches(rows), [DAY]), making=_through(lambda: batches(rows)))


@case(ARROW, PYARROW, *_ARROW)
def arrow_pyarrow(folder: Path, rows: int) -> Iterator[Work]:
    write_parquet(folder, batches(1))
    yield Work(lambda: write_parquet(folder, batches(rows)), making=_through(lambda: batches(rows)))


@case(ARROW, PYICEBERG, *_ARROW, bare=PYARROW)
def arrow_pyiceberg(folder: Path, rows: int) -> Iterator[Work]:
    table = iceberg_table(folder, SCHEMA)
    table.append(arrow(0, 1))
    yield Work(lambda: table.append(pa.concat_tables(batches(rows))), making=_through(lambda: batches(rows)))


@case(ARROW, DLT, *_ARROW, bare=PYARROW)
def arrow_dlt(folder: Path, rows: int) -> Iterator[Work]:
    load_with_dlt(folder / "first", batches(1))
    yield Work(lambda: load_with_dlt(folder / "all", batches(rows)), making=_through(lambda: batches(rows)))


@case(JSON, OURS, *_JSON, bare=PYARROW)
def json_ours(folder: Path, rows: int) -> Iterator[Work]:
    pages = json_pages(rows)
    load = _loads(folder)
    load(lambda: json_pages(1), ["2024-01-02"])
    yield Work(lambda: load(lambda: iter(pages), [DAY]))


@case(JSON, PYARROW, *_JSON)
def json_pyarrow(folder: Path, rows: int) -> Iterator[Work]:
    # Its reader wants an object on each line: a list of objects is made into that, and commas are no part of our rows.
    pages = json_pages(rows)
    options = pyarrow.json.ParseOptions(explicit_schema=SCHEMA)

    def tables() -> Iterator[pa.Table]:
        for page in pages:
            yield pyarrow.json.read_json(io.BytesIO(page[1:-1].replace(b"}, {", b"}\n{")), parse_options=options)

    yield Work(lambda: write_parquet(folder, tables()))


@case(AGAIN, OURS, *_AGAIN, bare=PYARROW)
def again_ours(folder: Path, rows: int) -> Iterator[Work]:
    load = _loads(folder)
    load(lambda: batches(rows), [DAY])
    yield Work(lambda: load(lambda: batches(rows), [DAY]), making=_through(lambda: batches(rows)))


@case(AGAIN, PYARROW, *_AGAIN)
def again_pyarrow(folder: Path, rows: int) -> Iterator[Work]:
    write_parquet(folder, batches(rows))
    yield Work(lambda: write_parquet(folder, batches(rows)), making=_through(lambda: batches(rows)))


@case(AGAIN, PYICEBERG, *_AGAIN, bare=PYARROW)
def again_pyiceberg(folder: Path, rows: int) -> Iterator[Work]:
    table = iceberg_table(folder, SCHEMA)
    table.append(arrow(0, rows))
    yield Work(lambda: table.overwrite(pa.concat_tables(batches(rows))), making=_through(lambda: batches(rows)))
