"""The promises of the embedded catalog beyond those of every catalog: a local folder that may move, and syncs.

Modules: `cascade_embedded.reference`.
"""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from pyiceberg.catalog.sql import SqlCatalogBaseTable

from cascade.catalog import open_catalog
from cascade.catalog.files import WarehouseIO
from cascade.catalog.storage import open_durable
from cascade.config import Settings
from cascade.errors import CatalogError
from cascade_embedded.database import SCHEMA
from support.lakes import ids, numbers, open_embedded, put


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A lakehouse with a row."""
    put(open_embedded(tmp_path / "here"), "dev", "raw.a", numbers(1, 1))
    return tmp_path / "here"


def test_a_moved_folder_is_refused_with_what_to_do(folder: Path) -> None:
    there = folder.rename(folder.parent / "there")
    with pytest.raises(CatalogError, match="was moved") as caught:
        open_embedded(there)
    assert caught.value.where == f"made at {folder}, now at {there}"
    assert f"ln -s {there} {folder}" in caught.value.fix


def test_a_state_whose_file_is_gone_says_how_to_go_back(folder: Path) -> None:
    lake = open_embedded(folder)
    location = lake.pointers("dev")["raw.a"]
    Path(location.removeprefix("file://")).unlink()
    with pytest.raises(CatalogError, match="not there any more") as caught:
        lake.load("raw.a", location)
    assert "cascade branch restore" in caught.value.fix


def test_a_log_from_before_it_said_who_is_read(folder: Path) -> None:
    lake = open_embedded(folder)
    lake.merge("dev")
    with lake.database.engine.begin() as connection:
        (changes,) = connection.execute(sa.text("SELECT changes FROM cascade_log")).one()
        connection.execute(
            sa.text("UPDATE cascade_log SET changes = :old"), {"old": json.dumps(json.loads(changes)["tables"])}
        )
    (entry,) = lake.log()
    assert ([change.table for change in entry.changes], entry.by) == (["raw.a"], "")


def test_a_copied_folder_is_refused_too(folder: Path) -> None:
    """Its tables would be those of the first."""
    shutil.copytree(folder, folder.parent / "copy")
    with pytest.raises(CatalogError, match="was moved"):
        open_embedded(folder.parent / "copy")


def test_a_moved_folder_works_when_the_old_path_leads_to_it(folder: Path) -> None:
    there = folder.rename(folder.parent / "there")
    folder.symlink_to(there)
    for path in (there, folder):
        lake = open_embedded(path)
        put(lake, "dev", "raw.a", numbers(2, 2), "merge", key=["id"])
        assert ids(lake, "dev", "raw.a") == [1, 2]


def test_a_folder_that_moved_back_works(folder: Path) -> None:
    folder.rename(folder.parent / "there").rename(folder)
    assert ids(open_embedded(folder), "dev", "raw.a") == [1]


def test_the_settings_say_where_the_lakehouse_is(tmp_path: Path) -> None:
    open_catalog(Settings(project_dir=tmp_path, data_dir=Path("data")))
    assert (tmp_path / "data" / "catalog.db").is_file()


@pytest.mark.parametrize("name", ["Ünïcode and spaces", "it's 100%", "a#b?c"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    lake = open_embedded(tmp_path / name)
    put(lake, "dev", "raw.a", numbers(1, 1))
    put(lake, "dev", "raw.a", numbers(1, 2), "merge", key=["id"])
    assert ids(lake, "dev", "raw.a") == [1, 2]


def test_a_durable_file_does_not_overwrite_another(tmp_path: Path) -> None:
    place = str(tmp_path / "deep" / "file")
    with open_durable(place) as file:
        file.write(b"first")
    with pytest.raises(FileExistsError):
        WarehouseIO().new_output(place).create()
    assert Path(place).read_bytes() == b"first"


def test_a_catalog_that_was_deleted_is_not_taken_for_an_empty_lakehouse(tmp_path: Path) -> None:
    lake = open_embedded(tmp_path)
    put(lake, "dev", "raw.a", numbers(1, 1))
    (tmp_path / "catalog.db").unlink()
    before = (tmp_path / "catalog.db-wal").read_bytes()
    for _ in range(2):
        with pytest.raises(CatalogError, match=r"catalog\.db is gone, but the warehouse holds tables") as caught:
            open_embedded(tmp_path)
        assert "backup" in caught.value.fix
    assert (tmp_path / "catalog.db-wal").read_bytes() == before  # it may hold all that catalog.db did not
    for wal in tmp_path.glob("catalog.db-*"):
        wal.unlink()
    (tmp_path / "catalog.db").touch()
    with pytest.raises(CatalogError, match=r"catalog\.db is gone"):
        open_embedded(tmp_path)


@pytest.mark.parametrize(("begins", "said"), [(0, "file is not a database"), (4096, "malformed")])
def test_a_damaged_catalog_is_named_with_the_way_out(tmp_path: Path, begins: int, said: str) -> None:
    lake = open_embedded(tmp_path)
    put(lake, "dev", "raw.a", numbers(1, 1))
    with sqlite3.connect(tmp_path / "catalog.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with (tmp_path / "catalog.db").open("r+b") as file:
        file.seek(begins)
        file.write(b"\xff" * 100_000)
    for wal in tmp_path.glob("catalog.db-*"):
        wal.unlink()
    with pytest.raises(CatalogError, match=f"catalog.db is damaged .*{said}") as caught:
        open_embedded(tmp_path).branches()
    assert (caught.value.where, "backup" in caught.value.fix) == (str(tmp_path / "catalog.db"), True)


def test_pyiceberg_s_own_catalog_has_the_same_tables() -> None:
    """They are declared again, so that a list of branches does not need SQLAlchemy's ORM; any tool may read them."""

    def described(table: sa.Table) -> list[tuple[str, str, bool, bool | None]]:
        return [(c.name, str(c.type), c.primary_key, c.nullable) for c in table.columns]

    theirs = SqlCatalogBaseTable.metadata.tables
    assert {name: described(SCHEMA.tables[name]) for name in theirs} == {n: described(t) for n, t in theirs.items()}
