"""The promise that a commit costs the same however many went before it, counted in what it reads and writes.

Modules: `cascade.iceberg.head`, `cascade.iceberg.removal`, `cascade.iceberg.properties`.
"""

import datetime as dt
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io import FileIO
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform

from cascade.catalog import MAIN, BranchingCatalog
from cascade.iceberg import head
from cascade.iceberg.head import KEPT_STATES, Head, is_cut, past
from cascade.iceberg.properties import long_values
from cascade.iceberg.rows import one_of
from support.lakes import ids, marking, numbers, put

T = "raw.a"
COMMITS = KEPT_STATES + 20


def table(lake: BranchingCatalog, ref: str = "dev") -> Table:
    return lake.load(T, lake.pointers(ref)[T])


def rows(n: int) -> list[dict[str, Any]]:
    """A commit's rows: three of its own, one of a key that each commit writes, and one of the commit before."""
    return [{"id": i, "day": f"day {n}", "n": n} for i in (3 * n + 10, 3 * n + 11, 3 * n + 12, 0, 3 * n + 9)]


DAYS = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "day"))


@pytest.mark.parametrize("way", ["append", "merge", "days", "days apart"])
def test_what_a_commit_reads_and_writes_does_not_grow(lake: BranchingCatalog, way: str) -> None:
    expected: dict[Any, Any] = {}
    for n in range(COMMITS):
        if way == "append":
            put(lake, "dev", T, rows(n))
        elif way == "merge":
            put(lake, "dev", T, rows(n), "merge", key=["id"])
        else:
            replace = {"replace": lambda _, n=n: one_of("day", [f"day {n}"])}
            put(lake, "dev", T, rows(n), "replace", **replace, **({"spec": DAYS} if way == "days apart" else {}))
        expected |= {row["id"] if way == "merge" else (n, row["id"]): n for row in rows(n)}
    found = table(lake)
    content = found.scan().to_arrow().to_pylist()
    assert {row["id"] if way == "merge" else (row["n"], row["id"]): row["n"] for row in content} == expected
    assert len(content) == len(expected)

    head_ = found.current_snapshot()
    assert head_ is not None
    manifests = head_.manifests(found.io)
    assert len(found.snapshots()) == KEPT_STATES
    assert len(found.metadata.metadata_log) <= KEPT_STATES
    assert len(found.io.new_input(found.metadata_location)) < 35_000
    assert len(manifests) <= 16
    # The files of partitions stay apart; all others are joined.
    assert len(Head(found).files(AlwaysTrue())) <= (COMMITS if way == "days apart" else 16)
    assert [m for m in manifests if not m.has_added_files() and not m.has_existing_files()] == []
    assert head_.summary is not None
    assert head_.summary["total-records"] == str(len(expected))
    assert head_.summary["total-data-files"] == str(len(Head(found).files(AlwaysTrue())))


def test_a_manifest_without_files_is_left_out_by_the_next_commit(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, numbers(1, 3))
    put(lake, "dev", T, pa.table({"id": pa.array([], pa.int64())}), "replace")
    put(lake, "dev", T, numbers(4, 4))
    (manifest,) = table(lake).current_snapshot().manifests(table(lake).io)  # type: ignore[union-attr]
    assert (manifest.added_files_count, ids(lake, "dev", T)) == (1, [4])


def test_files_of_one_part_are_joined_those_of_others_stay(lake: BranchingCatalog) -> None:
    part = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "b"))
    for n in range(10):
        put(lake, "dev", T, [{"id": n, "b": "x"}, *([{"id": 100, "b": "y"}] if n == 0 else [])], spec=part)
    found = {(f.partition[0], f.record_count) for f in Head(table(lake)).files(AlwaysTrue())}
    assert ("y", 1) in found
    assert max(count for of, count in found if of == "x") >= 8
    assert ids(lake, "dev", T) == [*range(10), 100]


def test_a_full_file_is_not_joined_however_small_it_is_on_disk(
    lake: BranchingCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is full is told by the memory that rows take: joined, they would be as many files again, at each commit."""
    monkeypatch.setattr(head, "SMALL_FILE", 100_000)
    for n in range(9):
        put(lake, "dev", T, [{"id": n * 100 + i, "text": "x" * 1000} for i in range(100)])
    before = {f.file_path for f in Head(table(lake)).files(AlwaysTrue())}
    for n in (900, 901):
        put(lake, "dev", T, [{"id": n, "text": "x" * 1000}], "merge", key=["id"])
    assert before < {f.file_path for f in Head(table(lake)).files(AlwaysTrue())}


def test_only_files_that_hold_replaced_rows_are_written_again(lake: BranchingCatalog) -> None:
    """A filter on a column without bounds selects all files; those without such rows stay as they are."""
    for n in range(3):
        put(lake, "dev", T, [{"id": n, "v": float(n)}, {"id": n + 10, "v": float(n)}])
    before = {f.file_path for f in Head(table(lake)).files(AlwaysTrue())}
    put(lake, "dev", T, [{"id": 1, "v": 9.0}], "merge", key=["v"])
    put(lake, "dev", T, [{"id": 11, "v": 1.0}], "merge", key=["id"])
    after = {f.file_path for f in Head(table(lake)).files(AlwaysTrue())}
    assert len(before & after) == 2


# --- the past ---------------------------------------------------------------------------------------------


def test_snapshots_that_the_metadata_lists_no_more_are_found_through_its_earlier_files(
    lake: BranchingCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "KEPT_STATES", 3)
    written = [put(lake, "dev", T, numbers(n, n)).snapshot_id for n in range(8)]
    assert is_cut(table(lake))
    listed = [{s.snapshot_id for s in state.snapshots()} for state in past(lake, T, table(lake))]
    assert set(written) == set().union(*listed)
    assert not is_cut([*past(lake, T, table(lake))][-1])


# --- long properties --------------------------------------------------------------------------------------


def test_a_long_property_is_kept_in_a_file_that_stays_with_its_state(lake: BranchingCatalog) -> None:
    texts = ["é" * 9_000, "ü" * 9_000]
    for n, text in enumerate(texts):
        put(lake, "dev", T, numbers(n, n), properties={"long": text, "short": "s"})
        if n == 0:
            lake.merge("dev", MAIN)
    for ref, text in ((MAIN, texts[0]), ("dev", texts[1])):
        state = table(lake, ref)
        assert max(map(len, state.properties.values())) < 100
        assert long_values(state.metadata, state.io)["long"] == text


def test_a_function_of_the_properties_is_given_the_long_ones_whole(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, numbers(1, 1), properties={"long": "x" * 9_000})
    put(lake, "dev", T, numbers(2, 2), properties=lambda held: {"long": held["long"] + "y"})
    assert long_values(table(lake).metadata, table(lake).io)["long"] == "x" * 9_000 + "y"


def test_asking_for_the_marks_of_a_partition_costs_the_same_however_many_there_are(lake: BranchingCatalog) -> None:
    """Maintenance asks for each one; counted in calls of functions."""
    calls = []
    for parts in (10, 40):
        name = f"raw.of_{parts}"
        kept = [{"id": n, "day": f"day {n % parts}"} for n in range(4 * parts)]
        put(lake, "dev", name, kept, spec=DAYS)
        with marking():
            put(lake, "dev", name, kept[:parts], "merge", key=["id"])
        found = Head(lake.load(name, lake.pointers("dev")[name]))
        groups = list(dict.fromkeys((file.spec_id, file.partition) for file in found.files(AlwaysTrue())))
        assert len(found.deletes(groups)) == parts
        calls.append(_calls(lambda f=found, g=groups: [len(f.deletes([one])) for one in g]) / parts)
    assert calls[1] < calls[0] * 1.2


def _calls(work: Callable[[], object]) -> int:
    """Count the calls of Python's functions."""
    count = 0

    def see(_frame: object, kind: str, _what: object) -> None:
        nonlocal count
        count += kind == "call"

    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    "value",
    [
        int,
        Decimal,
        lambda n: dt.date(2024, 1, 1) + dt.timedelta(days=n),
        lambda n: dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=n),
        lambda n: dt.datetime(2024, 1, 1) + dt.timedelta(hours=n),
    ],
    ids=["int", "decimal", "date", "timestamptz", "timestamp"],
)
def test_a_merge_reads_no_files_between_its_keys(lake: BranchingCatalog, value: Callable[[int], object]) -> None:
    """What a source sends again may be old, beside rows that are new."""
    added = []
    for first in range(0, 60, 20):
        put(lake, "dev", T, [{"id": value(n), "v": 0} for n in range(first, first + 20)])
        added += [f.file_path for f in Head(table(lake)).files(AlwaysTrue()) if f.file_path not in added]
    io, middle = table(lake).io, added[1]
    with io.new_input(middle).open() as stream:
        sound = stream.read()
    _write(io, middle, b"damaged")
    coming = [{"id": value(n), "v": 1} for n in (3, 4, 59, 60, 61)]
    assert put(lake, "dev", T, coming, "merge", key=["id"]).replaced == 3
    _write(io, middle, sound)
    rows = table(lake).scan().to_arrow().to_pylist()
    changed = [(value(n), int(n in (3, 4, 59, 60, 61))) for n in range(62)]
    assert sorted((row["id"], row["v"]) for row in rows) == changed


def _write(io: FileIO, path: str, content: bytes) -> None:
    with io.new_output(path).create(overwrite=True) as stream:
        stream.write(content)
