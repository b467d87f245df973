"""Cases: what a commit costs after many others, and making large files of small ones."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from measuring import OURS, Work, case
from peers import PYARROW, PYICEBERG, iceberg_table
from rows import DAY, SCHEMA, arrow

APPEND, MERGE, COMPACT = "an append of 100 rows", "a merge of 100 rows", "small files made large"

_COMMITS = ("commits before", (1_000,), (100,))
_PEERS_COMMITS = ("commits before", (300,), (100,))  # each one costs more than the one before it
_FILES = ("small files", (300, 1_000, 10_000), (100, 300))
_ROWS = 100


def _measured_ten_times(commits: int, commit: Callable[[int], object]) -> Iterator[Work]:
    """Give each tenth of so many commits as one work; the figure is for one commit."""
    block = commits // 10
    for number in range(10):
        first = number * block

        def do(first: int = first) -> None:
            for n in range(first, first + block):
                commit(n)

        yield Work(do, at=first, number=block)


def _commits(folder: Path, commits: int, key: Callable[[int], int], **options: Any) -> Iterator[Work]:
    from lake import Loads

    load = Loads(folder, **options)
    load(lambda: arrow(0, 1), [DAY])

    def commit(number: int) -> None:
        # A day each: what a partition brings is not replaced by the next one.
        load(lambda: arrow(key(number), _ROWS), [load.plan.definition.get_partition_keys()[number + 1]])

    yield from _measured_ten_times(commits, commit)


@case(APPEND, OURS, *_COMMITS, bare=PYICEBERG)
def append_ours(folder: Path, commits: int) -> Iterator[Work]:
    yield from _commits(folder, commits, lambda n: n * _ROWS, write="append")


@case(APPEND, PYICEBERG, *_PEERS_COMMITS)
def append_pyiceberg(folder: Path, commits: int) -> Iterator[Work]:
    table = iceberg_table(folder, SCHEMA)
    table.append(arrow(0, 1))
    yield from _measured_ten_times(commits, lambda n: table.append(arrow(n * _ROWS, _ROWS)))


@case(MERGE, OURS, *_COMMITS)
def merge_ours(folder: Path, commits: int) -> Iterator[Work]:
    yield from _commits(folder, commits, lambda n: n * _ROWS // 2, unique_key="id")  # half of the keys are there


def _small(folder: Path, files: int) -> list[Path]:
    """Write so many files of 1,000 rows, with the ids of an Iceberg table's columns."""
    folder.mkdir(parents=True)
    schema = pa.schema([field.with_metadata({"PARQUET:field_id": str(n)}) for n, field in enumerate(SCHEMA, 1)])
    paths = []
    for number in range(files):
        paths.append(folder / f"{uuid.uuid4()}.parquet")
        pq.write_table(arrow(number * 1_000, 1_000).cast(schema), paths[-1], compression="zstd")
    return paths


@case(COMPACT, OURS, *_FILES, bare=PYARROW)
def compact_ours(folder: Path, files: int) -> Iterator[Work]:
    from lake import Loads

    from cascade.catalog import MAIN
    from cascade.iceberg.schema import schema_from_arrow
    from cascade_maintain.compact import compact_tables

    load = Loads(folder)
    catalog = load.lakehouse.catalog
    catalog.create("setup")
    place = catalog.open("setup")
    place.create_namespace("raw")
    table = place.create_table("raw.rows", schema_from_arrow(SCHEMA))
    paths = _small(Path(table.location().removeprefix("file://")) / "data", files)
    table.add_files([f"file://{path}" for path in paths], check_duplicate_files=False)
    catalog.merge("setup", MAIN)
    yield Work(lambda: compact_tables(catalog))


@case(COMPACT, PYARROW, *_FILES)
def compact_pyarrow(folder: Path, files: int) -> Iterator[Work]:
    paths = _small(folder / "data", files)

    def rewrite() -> None:
        with pq.ParquetWriter(folder / "large.parquet", SCHEMA, compression="zstd") as writer:
            for path in paths:
                writer.write_table(pq.ParquetFile(path).read().cast(SCHEMA))

    yield Work(rewrite)
