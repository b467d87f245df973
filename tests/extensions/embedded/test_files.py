"""When a data file is compared with its checksum before it is read, and when not.

Modules: `cascade_embedded.files`.
"""

import os
import time
from pathlib import Path

import pytest
from pyiceberg.table import Table

from cascade.catalog import BranchingCatalog
from cascade.errors import DamagedFileError
from cascade.names import SUMMED_FILE
from support.lakes import numbers, open_embedded, put

SECOND, DAY = 10**9, 86_400 * 10**9
NOTE = "user.cascade.compared"


@pytest.fixture
def lake(tmp_path: Path) -> BranchingCatalog:
    """A lakehouse with one table."""
    lake = open_embedded(tmp_path)
    put(lake, "dev", "raw.a", numbers(1, 100))
    return lake


@pytest.fixture
def table(lake: BranchingCatalog) -> Table:
    return lake.open("dev").load_table("raw.a")


@pytest.fixture
def file(table: Table) -> Path:
    """Its file, which has been compared."""
    table.scan().to_arrow()
    (task,) = table.scan().plan_files()
    return Path(task.file.file_path)


def damage(file: Path, *, secretly: bool = False) -> None:
    """Change a value; secretly, so that the file's time of writing stays."""
    state, content = file.stat(), bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)
    if secretly:
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def age(file: Path, by: int) -> None:
    """Make the note on a file older."""
    noted, written = map(int, os.getxattr(file, NOTE).split())
    os.setxattr(file, NOTE, f"{noted - by} {written}".encode())


def test_a_file_is_read_once_while_nobody_touches_it(table: Table, file: Path) -> None:
    """It costs as much as the file is long. So a change that nothing shows waits until the next day."""
    damage(file, secretly=True)
    table.io.new_input(str(file))
    age(file, DAY)
    with pytest.raises(DamagedFileError, match="it has changed since it was written"):
        table.io.new_input(str(file))


@pytest.mark.parametrize("noted", ["a moment ago", "tomorrow, by a wrong clock", "before the file was touched"])
def test_a_file_that_was_touched_is_read_again(table: Table, file: Path, noted: str) -> None:
    damage(file, secretly=noted != "a moment ago")
    age(file, {"a": 0, "t": -DAY, "b": 2 * SECOND}[noted[0]])
    with pytest.raises(DamagedFileError, match=file.name):
        table.io.new_input(str(file))


def test_a_restored_copy_is_read_although_it_has_the_note(table: Table, file: Path) -> None:
    noted, written = map(int, os.getxattr(file, NOTE).split())
    assert time.time_ns() - noted < DAY
    copy = file.read_bytes()
    file.unlink()
    file.write_bytes(copy)
    os.setxattr(file, NOTE, f"{noted} {written}".encode())
    table.io.new_input(str(file))
    assert int(os.getxattr(file, NOTE).split()[0]) > noted


def test_where_files_take_no_notes_the_process_remembers(
    table: Table, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError("Operation not supported")

    os.removexattr(file, NOTE)
    monkeypatch.setattr(os, "setxattr", refuse)
    table.io.new_input(str(file))
    damage(file, secretly=True)
    table.io.new_input(str(file))
    os.utime(file)
    with pytest.raises(DamagedFileError):
        table.io.new_input(str(file))


def test_a_file_of_another_engine_is_read_as_it_is(table: Table, file: Path) -> None:
    """It has no checksum; the name of ours says that it has one, so one that lost it is damaged."""
    other = file.with_name(file.name.removesuffix(SUMMED_FILE) + ".parquet")
    other.write_bytes(file.read_bytes())
    damage(other)
    assert table.io.new_input(str(other)).exists()
    content = file.read_bytes()
    file.write_bytes(content.replace(b"cascade.checksum", b"another.checksum"))
    with pytest.raises(DamagedFileError, match="its checksum is gone"):
        table.io.new_input(str(file))
    file.unlink()
    assert not table.io.new_input(str(file)).exists()
