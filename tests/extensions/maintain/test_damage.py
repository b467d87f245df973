"""The promise of `cascade.iceberg.damage` and `cascade maintain verify`: a changed file is found, and never copied."""

import random
from pathlib import Path

import pyarrow as pa
import pytest

from cascade.catalog import BranchingCatalog
from cascade.errors import DamagedFileError
from cascade.iceberg.schema import schema_from_arrow
from cascade_maintain.damage import damage_of
from cascade_maintain.verify import verify_files
from support.lakes import numbers, open_embedded, put

T = "raw.a"
_ROWS = [{"id": n, "v": n * 1.5, "s": f"text {n}", "l": [{"a": n}]} for n in range(500)]


@pytest.fixture
def lake(tmp_path: Path) -> BranchingCatalog:
    lake = open_embedded(tmp_path)
    put(lake, "dev", T, _ROWS)
    put(lake, "dev", "raw.b", numbers(1, 3))
    return lake


def the_file(lake: BranchingCatalog) -> Path:
    (task,) = lake.open("dev").load_table(T).scan().plan_files()
    return Path(task.file.file_path)


def damage(path: Path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_sound_files_are_sound(lake: BranchingCatalog) -> None:
    found = verify_files(lake)
    assert (found.files, found.damaged, found.without_checksums) == (2, (), 0)
    assert found.bytes > 1000


def test_any_flipped_bit_of_a_page_is_found(lake: BranchingCatalog) -> None:
    table, path = lake.open("dev").load_table(T), the_file(lake)

    def rows() -> list[object]:
        return [*table.scan().to_arrow().to_pylist()]

    (task,) = table.scan().plan_files()
    sound, chance = path.read_bytes(), random.Random(1)
    pages = sum((task.file.column_sizes or {}).values())
    missed = []
    for _ in range(100):
        place, bit = chance.randrange(4, 4 + pages), chance.randrange(8)
        damage(path, place, bit)
        # A bit of a page's header may say nothing about its values: then the rows are still the same.
        if (
            not damage_of(table.io, task.file)[0]
            and lake.open("dev").load_table(T).scan().to_arrow().to_pylist() != _ROWS
        ):
            missed.append((place, bit))
        path.write_bytes(sound)
    assert missed == []


@pytest.mark.parametrize("how", ["page", "cut", "gone", "another"])
def test_a_damaged_file_is_named_with_its_table(lake: BranchingCatalog, how: str) -> None:
    path = the_file(lake)
    if how == "page":
        damage(path, 200)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif how == "gone":
        path.unlink()
    else:
        put(lake, "dev", "raw.c", [{**row, "id": 7} for row in _ROWS])
        (task,) = lake.open("dev").load_table("raw.c").scan().plan_files()
        path.write_bytes(Path(task.file.file_path).read_bytes())
    (found,) = verify_files(lake).damaged
    assert (found.table, found.path) == (T, str(path))
    assert found.problem


def test_a_merge_does_not_copy_damaged_rows(lake: BranchingCatalog) -> None:
    path = the_file(lake)
    damage(path, 200)
    with pytest.raises(DamagedFileError, match="damaged") as caught:
        put(lake, "dev", T, [{"id": 1, "v": 0.0}], "merge", key=["id"])
    assert str(path) in caught.value.where


def test_files_without_checksums_are_counted(lake: BranchingCatalog) -> None:
    rows = pa.table({"id": [1]})
    lake.open("dev").create_table("raw.other", schema_from_arrow(rows.schema)).append(rows)
    assert verify_files(lake).without_checksums == 1
