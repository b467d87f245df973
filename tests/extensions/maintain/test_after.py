"""The promises of maintenance by itself: what a promotion brought and needs it gets it, all else costs nothing.

Modules: `cascade_maintain.after`, `cascade_maintain.settings`, `cascade_maintain.damage`.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform

from cascade.catalog import MAIN, BranchingCatalog, LogEntry
from cascade.config import build_settings
from cascade.errors import ConfigurationError
from cascade.names import KEY_PROPERTY
from cascade.publish import after_promotion
from cascade_maintain import after, expire, rewrite
from cascade_maintain.after import maintain_promoted
from cascade_maintain.settings import MaintainSettings, of
from support.lakes import ids, mark_deleted, marking, numbers, open_embedded, put, settings_in

T = "raw.a"


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in {"MANY_FILES": 8, "MANY_SNAPSHOTS": 10}.items():
        monkeypatch.setattr(after, name, number)
    monkeypatch.setattr(rewrite, "MANY_DELETE_FILES", 3)
    monkeypatch.setattr(expire, "KEPT_STATES", 4)


def append(lake: BranchingCatalog, branch: str, table: str, times: int, first: int = 1) -> None:
    """Append a row so many times as other engines do it: a file and a snapshot each, and all of them stay."""
    for n in range(first, first + times):
        lake.open(branch).load_table(table).append(pa.table({"id": [n]}))


def promote(lake: BranchingCatalog, branch: str = "dev") -> LogEntry:
    entry = lake.merge(branch)
    assert entry is not None
    return entry


def main_table(lake: BranchingCatalog, name: str = T) -> Table:
    return lake.load(name, lake.pointers(MAIN)[name])


def files_of(lake: BranchingCatalog) -> int:
    return len([*main_table(lake).scan().plan_files()])


def test_a_promoted_table_of_many_small_files_and_snapshots_gets_few(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, numbers(0, 0))
    put(lake, "dev", "raw.b", numbers(1, 3))
    append(lake, "dev", T, 10)
    said = maintain_promoted(lake, promote(lake))
    assert said == f"compacted {T}, 11 files to 1; let 8 old snapshots of {T} leave"
    assert (files_of(lake), len(main_table(lake).metadata.snapshots)) == (1, 4)
    assert (ids(lake, MAIN, T), ids(lake, MAIN, "raw.b")) == ([*range(11)], [1, 2, 3])
    # The branch goes on, and what it brings next is one file more.
    put(lake, "dev", T, numbers(100, 100))
    assert maintain_promoted(lake, promote(lake)) == ""


@pytest.mark.parametrize("why", ["few files", "partitions", "dropped", "another table", "off"])
def test_what_needs_nothing_is_left_alone(tmp_path: Path, why: str) -> None:
    lake = open_embedded(tmp_path)
    if why == "off":
        settings = build_settings(tmp_path, {"data_dir": tmp_path, "maintain.after_promotion": False})
        lake = type(lake)(settings)
    by_id = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), "id"))
    put(lake, "dev", T, numbers(0, 0), **({"spec": by_id} if why == "partitions" else {}))
    append(lake, "dev", T, 3 if why == "few files" else 8)
    if why == "another table":
        promote(lake)
        put(lake, "dev", "raw.b", numbers(1, 1))
    if why == "dropped":
        promote(lake)
        lake.open("dev").drop_table(T)
    entry = promote(lake)
    state = lake.pointers(MAIN)
    assert (maintain_promoted(lake, entry), lake.pointers(MAIN)) == ("", state)


def test_rows_that_trino_marked_as_deleted_are_taken_out_when_they_are_in_many_files(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, numbers(0, 99))
    table = lake.open("dev").load_table(T)
    (task,) = table.scan().plan_files()
    for n in range(2):
        mark_deleted(lake.open("dev").load_table(T), [(task.file.file_path, n)])
    assert maintain_promoted(lake, promote(lake)) == ""
    mark_deleted(lake.open("dev").load_table(T), [(task.file.file_path, 2)])
    append(lake, "dev", T, 2, first=100)  # smaller files do not keep it from being rewritten
    assert maintain_promoted(lake, promote(lake)) == f"compacted {T}, 3 files to 1"
    assert ids(lake, MAIN, T) == [*range(3, 102)]
    assert [task.delete_files for task in main_table(lake).scan().plan_files()] == [set()]


def test_marks_of_our_merges_stay_until_they_are_many(lake: BranchingCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of four partitions has a file of them, which is as good as one."""
    by_part = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "part"))
    put(lake, "dev", T, [{"id": n, "part": n % 4} for n in range(40)], spec=by_part)
    with marking():
        put(lake, "dev", T, [{"id": n, "part": n % 4} for n in range(4)], "merge", key=["id"])
    assert maintain_promoted(lake, promote(lake)) == ""
    put(lake, "dev", T, [{"id": 40, "part": 0}])
    monkeypatch.setattr(after, "MARKED_ROWS", 3)
    assert maintain_promoted(lake, promote(lake)) == f"compacted {T}, 9 files to 4"
    assert ids(lake, MAIN, T) == [*range(41)]


def test_a_table_that_cannot_be_compacted_is_told_and_the_promotion_stands(lake: BranchingCatalog) -> None:
    put(lake, "dev", T, numbers(0, 0), properties={KEY_PROPERTY: '["id"]'})
    table = lake.open("dev").load_table(T)
    (path,) = (task.file.file_path for task in table.scan().plan_files())
    append(lake, "dev", T, 8)
    with table.io.new_input(path).open() as file:
        content = bytearray(file.read())
    content[30] ^= 1
    with table.io.new_output(path).create(overwrite=True) as file:
        file.write(bytes(content))
    entry = promote(lake)
    (told,) = after_promotion(lake, entry)
    assert (told.name, told.failed) == ("maintain", True)
    assert path in told.said
    assert (lake.log(limit=1)[0].id, lake.pointers(MAIN)[T]) == (entry.id, entry.changes[0].after)


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"keep_history": "a month"}, "'a month' is not a duration: give a number of days, hours or minutes"),
        ({"grace": "3d"}, "maintain.grace"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path: Path, values: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=wrong):
        build_settings(tmp_path, {f"maintain.{name}": value for name, value in values.items()})


def test_without_settings_those_of_the_documentation_hold(tmp_path: Path) -> None:
    found = of(settings_in(tmp_path))
    assert found == MaintainSettings()
    assert (found.branches_older_than, found.files_older_than, found.keep_history) == ("7d", "3d", "30d")
