"""Files that change behind our back: a staged one is never committed, a committed one is found, and named.

Modules: `cascade.iceberg.damage`.
"""

import contextlib
import dataclasses
import random
import shutil
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.manifest import DataFile

from cascade.catalog import BranchingCatalog
from cascade.engine import query
from cascade.errors import CascadeError, DamagedFileError
from cascade.iceberg.schema import schema_from_arrow
from cascade.iceberg.write import commit, stage
from cascade_maintain.verify import verify_files
from support.file_operations import GO_ON, Operation
from support.garbage import needed, stored
from support.lakes import open_embedded, put
from support.places import Place
from support.works import WORKS

T = "raw.a"
ROWS = [{"id": n, "v": n * 1.5, "s": f"text {n}", "l": [{"a": n}]} for n in range(500)]
KINDS = ("a bit", "cut", "zeros", "another file")


def damage(path: Path, kind: str, chance: random.Random, other: Path) -> None:
    """Change a file in some place; whatever the place is, its content is another one afterwards."""
    content = path.read_bytes()
    changed = bytearray(content)
    while changed == content:
        place = chance.randrange(len(content))
        if kind == "a bit":
            changed[place] ^= 1 << chance.randrange(8)
        elif kind == "cut":
            changed = changed[:place]
        elif kind == "zeros":
            end = min(place + 512, len(content))
            changed[place:end] = bytes(end - place)
        else:
            changed = bytearray(other.read_bytes())
    path.write_bytes(changed)


@pytest.fixture
def lake(tmp_path: Path) -> BranchingCatalog:
    """A lakehouse with the table, and another one of the same columns and as many rows."""
    lake = open_embedded(tmp_path)
    for table, first in ((T, 0), ("raw.b", 1)):
        put(lake, "dev", table, [{**row, "id": first + n} for n, row in enumerate(ROWS)])
    return lake


def the_file(lake: BranchingCatalog, table: str) -> DataFile:
    """Return the only file of a table."""
    (task,) = lake.open("dev").load_table(table).scan().plan_files()
    return task.file


@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_staged_file_that_is_damaged_is_never_committed(
    lake: BranchingCatalog, kind: str, mode: str, whole: bool
) -> None:
    """Of 600 with `--whole`, none."""
    other, chance = Path(the_file(lake, "raw.b").file_path), random.Random(f"{kind} {mode}")
    rows = pa.Table.from_pylist(ROWS)
    schema, before = schema_from_arrow(rows.schema), lake.pointers("dev")
    for _ in range(50 if whole else 4):
        with (  # noqa: PT012
            pytest.raises(DamagedFileError) as caught,
            stage(lake, "dev", T, [rows], schema=schema, mode=mode, key=["id"]) as staged,
        ):
            (path,) = staged.files.paths
            damage(Path(path), kind, chance, other)
            commit([staged])
        assert path in caught.value.where
        assert "run again" in caught.value.fix
    assert lake.pointers("dev") == before
    assert not lake.changes("main")
    assert {path for path in stored(lake) if path.endswith(".parquet")} == {
        path for path in needed(lake, log=True) if path.endswith(".parquet")
    }


def _telling(do: Callable[[], object]) -> None:
    """Do a work, and write down why it failed."""
    try:
        do()
    except BaseException:
        Path("why").write_text(traceback.format_exc())
        raise


@pytest.mark.parametrize("name", ["first load", "append", "quarantine", "compaction"])
def test_a_work_fails_that_reads_again_what_it_wrote_and_finds_it_changed(
    tmp_path: Path, name: str, whole: bool
) -> None:
    """Also where the rows are written once more before the commit: duplicates left out, small files joined."""
    work = dataclasses.replace(WORKS[name], do=partial(_telling, WORKS[name].do))
    with contextlib.chdir(tmp_path):
        place, chance = Place(tmp_path / "project", work), random.Random(name)
        written = [number for number, done in enumerate(place.operations, 1) if _is_data(done)]
        with contextlib.chdir(place.root):
            for moment in written if whole else chance.sample(written, 1):
                place.again()
                damaged: list[Path] = []
                ended = place.watch(partial(_damage_at, moment, chance, damaged))
                assert ended.code == 1
                why = Path("why").read_text()
                Path("why").unlink()
                assert "are damaged" in why
                assert str(damaged[0]) in why
                assert place.work.seen() == place.before
                place.require_converged(str(damaged))


def _damage_at(moment: int, chance: random.Random, damaged: list[Path], operation: Operation, number: int) -> int:
    if number == moment:
        assert _is_data(operation)
        damage(operation.path, "a bit", chance, operation.path)
        damaged.append(operation.path)
    return GO_ON


def _is_data(operation: Operation) -> bool:
    return operation.name == "sync" and operation.path.suffix == ".parquet"


def _rows(read: pa.Table) -> list[dict[str, object]]:
    return read.sort_by("id").to_pylist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_committed_file_that_is_damaged_is_found_and_named(
    lake: BranchingCatalog, tmp_path: Path, kind: str, whole: bool
) -> None:
    """By maintenance, and by PyArrow where it is told to look at the checksums of pages; 600 with `--whole`.

    DuckDB looks at none: docs/concepts/after-a-crash.md says how much it reads as other values.
    """
    path, other, chance = (
        Path(the_file(lake, T).file_path),
        Path(the_file(lake, "raw.b").file_path),
        random.Random(kind),
    )
    kept = shutil.copy(path, tmp_path / "kept")
    for _ in range(150 if whole else 10):
        damage(path, kind, chance, other)
        found = verify_files(lake)
        # What has lost its checksum, and nothing else, has all its rows.
        assert [(one.table, one.path) for one in found.damaged] == [(T, str(path))] or found.without_checksums
        if not found.without_checksums:
            with pytest.raises(DamagedFileError, match=path.name):
                put(lake, "dev", T, ROWS[:1], "merge", key=["id"])
        try:
            query(lake, "dev", f"SELECT * FROM {T}")
        except CascadeError as error:
            named = path.name in error.where or found.without_checksums
            assert named
        shutil.copy(kept, path)
    assert verify_files(lake).damaged == ()


def test_pyarrow_refuses_every_page_that_has_changed(lake: BranchingCatalog, whole: bool) -> None:
    """Where it is asked to; PyIceberg does not ask."""
    file, chance = the_file(lake, T), random.Random(1)
    path = Path(file.file_path)
    sound, pages = path.read_bytes(), sum((file.column_sizes or {}).values())
    for _ in range(300 if whole else 30):
        changed = bytearray(sound)
        changed[chance.randrange(4, 4 + pages)] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        # A bit of a page's header may say nothing about its values.
        with contextlib.suppress(OSError):
            read = pq.ParquetFile(path, page_checksum_verification=True).read()
            assert _rows(read.select(["id", "v", "s", "l"])) == ROWS
    path.write_bytes(sound)
