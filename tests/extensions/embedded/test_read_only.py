"""The promise of the embedded catalog where nothing can be written: all can be read, and writers are told why.

Modules: `cascade_embedded.database`, `cascade_embedded.locks`.
"""

import contextlib
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from cascade.engine import query
from cascade.errors import CatalogError
from cascade_embedded.catalog import EmbeddedCatalog
from cascade_embedded.database import BRANCHES
from support.file_operations import Operation, watched
from support.lakes import numbers, open_embedded, put


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A lakehouse whose `main` has a table of two rows."""
    lake = open_embedded(tmp_path)
    put(lake, "dev", "raw.a", numbers(1, 2))
    lake.merge("dev")
    assert isinstance(lake, EmbeddedCatalog)
    lake.database.engine.dispose()
    return tmp_path


def _read(folder: Path) -> None:
    lake = open_embedded(folder)
    assert [branch.name for branch in lake.branches()] == ["main", "dev"]
    assert len(lake.log()) == 1
    assert query(lake, "main", "select count(*) as n from raw.a").to_pylist() == [{"n": 2}]
    for work in (lambda: lake.create("new"), lambda: put(lake, "dev", "raw.a", numbers(3, 3))):
        with pytest.raises((CatalogError, OSError)) as caught:
            work()
        assert isinstance(caught.value, OSError) or "not be written: " in caught.value.what
    with pytest.raises(OSError, match=r"lease-main\.lock"), lake.lease("main", "a test"):
        pass


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "open elsewhere"])
def test_what_cannot_be_written_can_be_read(folder: Path, code: int, closed: bool) -> None:
    """SQLite keeps files beside its own while a process has it open, which it could not make here."""
    writer = open_embedded(folder)
    assert isinstance(writer, EmbeddedCatalog)
    if closed:
        writer.database.engine.dispose()
    else:
        writer.create("more")
        writer.delete("more")
    assert (folder / "catalog.db-wal").exists() is not closed
    assert watched(_read, folder, under=folder, answer=lambda _operation, _number: code).code == 0


def _read_slowly(folder: Path) -> None:
    lake = open_embedded(folder)
    assert isinstance(lake, EmbeddedCatalog)
    seen: list[list[str]] = []

    def names(connection: sa.Connection) -> list[str]:
        before = connection.execute(sa.select(BRANCHES.c.name)).scalars().all()
        if not seen:
            with contextlib.suppress(OSError):
                os.mkdir(folder / "now")  # the test hears it, and writes
        seen.append([*before, *connection.execute(sa.select(BRANCHES.c.name)).scalars().all()])
        return seen[-1]

    assert sorted(lake.database.transaction(names, write=False)) == ["dev", "dev", "main", "main", "new", "new"]
    assert len(seen) == 2


def test_what_another_user_writes_meanwhile_is_read_again(folder: Path) -> None:
    """Where SQLite cannot make its files, nothing keeps a writer away from a reader."""

    def answer(operation: Operation, _number: int) -> int:
        if operation.path.name == "now":
            lake = open_embedded(folder)
            lake.create("new")
            assert isinstance(lake, EmbeddedCatalog)
            lake.database.engine.dispose()
        return errno.EROFS

    assert watched(_read_slowly, folder, under=folder, answer=answer).code == 0


def test_opening_the_catalog_once_more_leaves_the_locks_of_the_process_alone(folder: Path) -> None:
    """Else another process takes itself for the last one, and removes the file that this one still writes to."""
    first = open_embedded(folder)
    first.create("more")
    open_embedded(folder)
    other = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('CREATE TABLE other (x)'); c.close()"
    subprocess.run([sys.executable, "-c", other, folder / "catalog.db"], check=True)
    assert (folder / "catalog.db-wal").exists()
