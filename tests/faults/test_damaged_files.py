"""Files that change behind our back: a staged one is never committed, a committed one is found, and named.

Modules: `cascade.iceberg.damage`, `cascade_embedded.files`.
"""

import contextlib
import dataclasses
import random
import shutil
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.manifest import DataFile
from pyiceberg.table import StaticTable

from cascade.catalog import BranchingCatalog
from cascade.duck.session import connect
from cascade.engine import query, register_table
from cascade.errors import DamagedFileError
from cascade.iceberg.schema import schema_from_arrow
from cascade.iceberg.write import commit, stage
from cascade.publish.marts import Mart
from cascade_maintain.verify import verify_files
from support.file_operations import GO_ON, Operation
from support.garbage import needed, stored
from support.lakes import marking, open_embedded, put
from support.places import Place
from support.works import WORKS

T = "raw.a"
ROWS = [{"id": n, "v": n * 1.5, "s": f"text {n}", "l": [{"a": n}]} for n in range(500)]
#: Where a bit changes: from and to where in the file, given its metadata, where its footer begins, and its size.
BITS: dict[str, Callable[[pq.FileMetaData, int, int], tuple[int, int]]] = {
    "a bit": lambda _, footer, size: (0, size),
    "a bit of a dictionary": lambda meta, footer, size: _dictionary(meta),
    "a bit of a page": lambda _, footer, size: (4, footer),
    "a bit of the footer": lambda _, footer, size: (footer, size - 8),
    "a bit of its length": lambda _, footer, size: (size - 8, size),
}
KINDS = (*BITS, "cut", "zeros", "zeros over the footer", "more bytes", "another file")


def _dictionary(meta: pq.FileMetaData) -> tuple[int, int]:
    column = next(c for n in range(meta.num_columns) if (c := meta.row_group(0).column(n)).has_dictionary_page)
    return column.dictionary_page_offset, column.data_page_offset


def damage(path: Path, kind: str, chance: random.Random, other: Path) -> None:
    """Change a file in some place; whatever the place is, its content is another one afterwards."""
    content = path.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    changed = bytearray(content)
    while changed == content:
        place = chance.randrange(len(content))
        if kind in BITS:
            place = chance.randrange(*BITS[kind](pq.read_metadata(path), footer, len(content)))
            changed[place] ^= 1 << chance.randrange(8)
        elif kind == "cut":
            changed = changed[:place]
        elif kind == "zeros":
            end = min(place + 512, len(content))
            changed[place:end] = bytes(end - place)
        elif kind == "zeros over the footer":
            start = chance.randrange(footer, len(content) - 8)
            changed[start:-8] = bytes(len(content) - 8 - start)
        elif kind == "more bytes":
            changed += chance.randbytes(1 + place)
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
    for _ in range(20 if whole else 2):
        with (  # noqa: PT012
            pytest.raises(DamagedFileError) as caught,
            stage(lake, "dev", T, [rows], schema=schema, mode=mode, key=["id"]) as staged,
        ):
            (path,) = [file.file_path for file in staged.files.files]
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


@pytest.mark.parametrize("name", ["first load", "append", "quarantine", "marks", "compaction"])
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


def _shown(lake: BranchingCatalog) -> pa.Table:
    """Read the table as dbt does: through a view that was there before the file was read."""
    with connect() as connection:
        register_table(connection, T, lake.open("dev").load_table(T))
        return connection.sql(f"SELECT * FROM {T}").to_arrow_table()


#: All that reads a table's rows on the embedded engine does it in one of these ways.
READERS: dict[str, Callable[[BranchingCatalog], object]] = {
    "query": lambda lake: query(lake, "dev", f"SELECT * FROM {T}"),
    "query of no column": lambda lake: query(lake, "dev", f"SELECT count(*) AS n FROM {T}"),
    "query of no row": lambda lake: query(lake, "dev", f"SELECT id FROM {T} WHERE id = -1"),
    "dbt": _shown,
    "publishing": lambda lake: list(Mart(lake.open("dev").load_table(T)).batches()),
    "PyIceberg": lambda lake: lake.open("dev").load_table(T).scan().to_arrow(),
    "merge": lambda lake: put(lake, "dev", T, ROWS[:1], "merge", key=["id"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_committed_file_that_is_damaged_is_named_by_everything_that_reads_it(
    lake: BranchingCatalog, tmp_path: Path, kind: str, whole: bool, record_property: Callable[[str, object], None]
) -> None:
    """600 files with `--whole`, and by maintenance."""
    path, other = (Path(the_file(lake, table).file_path) for table in (T, "raw.b"))
    kept, chance, before = shutil.copy(path, tmp_path / "kept"), random.Random(kind), lake.pointers("dev")
    silent = []
    for number in range(60 if whole else 3):
        damage(path, kind, chance, other)
        assert [(one.table, one.path) for one in verify_files(lake).damaged] == [(T, str(path))]
        for reader, read in READERS.items():
            silent += [] if _names(path, partial(read, lake)) else [(number, reader)]
        shutil.copy(kept, path)
        assert _rows(query(lake, "dev", f"SELECT * FROM {T}")) == ROWS
    record_property("damaged files", number + 1)
    assert silent == []
    assert lake.pointers("dev") == before
    assert verify_files(lake).damaged == ()


@pytest.mark.parametrize("kind", ["a bit of a page", "zeros over the footer"])
def test_damaged_marks_of_deleted_rows_are_named_as_well(lake: BranchingCatalog, kind: str) -> None:
    """Rows that a merge has marked would come back, or others go."""
    with marking():
        put(lake, "dev", T, ROWS[:1], "merge", key=["id"])
    tasks = lake.open("dev").load_table(T).scan().plan_files()
    (marks,) = {Path(file.file_path) for task in tasks for file in task.delete_files}
    damage(marks, kind, random.Random(kind), marks)
    assert [reader for reader, read in READERS.items() if not _names(marks, partial(read, lake))] == []


def _names(path: Path, read: Callable[[], object]) -> bool:
    """Say whether reading fails, and the error names the file."""
    try:
        read()
    except (DamagedFileError, duckdb.Error) as error:
        return str(path) in str(error)
    return False


BARE: dict[str, Callable[[Path], pa.Table]] = {
    "DuckDB": lambda path: duckdb.sql(f"SELECT * FROM read_parquet('{path}')").to_arrow_table(),
    "PyArrow": pq.read_table,
    "PyIceberg": lambda path: _scan_bare(path.parents[1]),
}


def _scan_bare(table: Path) -> pa.Table:
    newest = max((table / "metadata").glob("*.metadata.json"))
    return StaticTable.from_metadata(str(newest)).scan().to_arrow()


@pytest.mark.parametrize("reader", BARE)
def test_the_bare_readers_give_other_values_without_a_word(
    lake: BranchingCatalog, reader: str, whole: bool, record_property: Callable[[str, object], None]
) -> None:
    """So the test above can fail."""
    path, chance = Path(the_file(lake, T).file_path), random.Random(1)
    sound, silent = path.read_bytes(), 0
    for _ in range(200 if whole else 20):
        damage(path, "a bit of a page", chance, path)
        with contextlib.suppress(OSError, duckdb.Error, ValueError):
            silent += _rows(BARE[reader](path)) != ROWS
        path.write_bytes(sound)
    record_property("silent", silent)
    assert silent > 0


def test_a_statement_compares_the_files_of_the_tables_that_it_reads(lake: BranchingCatalog) -> None:
    path = Path(the_file(lake, "raw.b").file_path)
    damage(path, "a bit of a page", random.Random(1), path)
    assert query(lake, "dev", f"SELECT count(*) AS n FROM {T}").to_pylist() == [{"n": len(ROWS)}]
    assert query(lake, "dev", "SELECT count(*) AS n FROM information_schema.tables").num_rows == 1
    with pytest.raises(DamagedFileError, match=r"table raw\.b, .*has changed"):
        query(lake, "dev", f"SELECT count(*) AS n FROM {T} JOIN raw.b USING (id)")


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
