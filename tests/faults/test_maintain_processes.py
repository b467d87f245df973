"""The promises of garbage collection between processes, and on a local disk."""

import datetime as dt
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from cascade.catalog import MAIN, BranchingCatalog, open_catalog
from cascade.config import Settings
from cascade.errors import CatalogError
from cascade_maintain.garbage import collect_files
from cascade_maintain.warehouse import open_warehouse
from support.lakes import event, finish, ids, numbers, open_embedded, promoted, put, start

NOW = dt.timedelta(0)
OpenLake = Callable[[], BranchingCatalog]


def _work(open_lake: OpenLake, table: str, rounds: int) -> None:
    lake = open_lake()
    for n in range(rounds):
        branch = f"{table.replace('.', '-')}-{n}"
        put(lake, branch, table, numbers(n, n), "merge", key=["id"])
        put(lake, f"{branch}-failed", table, numbers(100 + n, 100 + n))
        lake.merge(branch)
        lake.delete(branch)
        lake.delete(f"{branch}-failed")


def _collect_until(open_lake: OpenLake, since: dt.datetime, over: object) -> None:
    lake = open_lake()
    while not over.is_set():  # type: ignore[attr-defined]
        collect_files(lake, older_than=NOW, keep_history=NOW, unfinished_since=since)


def test_writers_lose_nothing_while_files_are_collected(open_lake: OpenLake) -> None:
    """Tables that exist are merged into, promoted and dropped while one collection follows the other."""
    lake = open_lake()
    for table in ("raw.a", "raw.b"):
        promoted(lake, table, numbers(50, 59))
        put(lake, "run-1a2b3c4d", table, numbers(90, 99))
    lake.delete("run-1a2b3c4d")
    begun = open_warehouse(lake).sign_in(lake.branches()[0].created_at)
    over = event()
    collector = start(_collect_until, open_lake, begun, over)
    assert finish([start(_work, open_lake, table, 5) for table in ("raw.a", "raw.b")], seconds=300) == [0, 0]
    over.set()
    assert finish([collector]) == [0]
    wanted = [*range(5), *range(50, 60)]
    assert (ids(lake, MAIN, "raw.a"), ids(lake, MAIN, "raw.b")) == (wanted, wanted)
    collect_files(lake, older_than=NOW, keep_history=NOW)
    assert (ids(lake, MAIN, "raw.a"), ids(lake, MAIN, "raw.b")) == (wanted, wanted)


def _collect_and_die(open_lake: OpenLake, after: int) -> None:
    lake = open_lake()
    kind = type(open_warehouse(lake))
    remove, done = kind.remove_file, []

    def removed(self: object, path: str) -> None:
        if len(done) >= after:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(path)
        remove(self, path)  # type: ignore[arg-type]

    kind.remove_file = removed  # type: ignore[method-assign, assignment]
    collect_files(lake, older_than=NOW, keep_history=NOW)


def test_killed_in_the_middle_the_lake_is_whole_and_the_next_collection_ends_the_work(open_lake: OpenLake) -> None:
    lake = open_lake()
    promoted(lake, "raw.a", numbers(1, 2))
    for n in range(3):
        put(lake, "run-1a2b3c4d", "raw.a", numbers(n, n))
    lake.delete("run-1a2b3c4d")
    planned = collect_files(lake, older_than=NOW, keep_history=NOW, dry_run=True).removed
    for after in (2, 4):
        assert finish([start(_collect_and_die, open_lake, after)]) == [-signal.SIGKILL]
        assert ids(lake, MAIN, "raw.a") == [1, 2]
    rest = collect_files(lake, older_than=NOW, keep_history=NOW).removed
    assert 0 < len(rest) < len(planned)
    assert {f.path for f in rest} < {f.path for f in planned}
    assert collect_files(lake, older_than=NOW, keep_history=NOW).removed == ()


# --- a local disk -------------------------------------------------------------------------------------------


@pytest.fixture
def local(tmp_path: Path) -> BranchingCatalog:
    """A lake in a folder, with garbage in it."""
    lake = open_embedded(tmp_path / "lake")
    promoted(lake, "raw.a", numbers(1, 2))
    put(lake, "run-1a2b3c4d", "raw.b", numbers(1, 1))
    lake.delete("run-1a2b3c4d")
    return lake


def test_empty_folders_go(local: BranchingCatalog, tmp_path: Path) -> None:
    collect_files(local, older_than=NOW, keep_history=NOW)
    assert sorted(os.listdir(tmp_path / "lake" / "warehouse" / "raw")) == ["a"]


def test_links_that_lead_out_of_the_warehouse_are_not_followed(local: BranchingCatalog, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for folder in (outside / "data", outside / "metadata"):
        folder.mkdir(parents=True)
        (folder / "precious.parquet").write_text("x")
    warehouse = tmp_path / "lake" / "warehouse"
    (warehouse / "raw" / "linked").symlink_to(outside)
    (warehouse / "linked").symlink_to(tmp_path)
    (warehouse / "raw" / "a" / "data" / "linked").symlink_to(outside / "data")
    (warehouse / "raw" / "a" / "data" / "linked.parquet").symlink_to(outside / "data" / "precious.parquet")
    done = collect_files(local, older_than=NOW, keep_history=NOW)
    assert done.removed
    assert not any("linked" in file.path for file in done.removed)
    assert len(list(outside.rglob("precious.parquet"))) == 2


def test_a_lake_that_a_link_leads_to_keeps_its_files(local: BranchingCatalog, tmp_path: Path) -> None:
    """A data folder that was moved, with its old path leading to the new one, as the error about it advises."""
    (tmp_path / "lake").rename(tmp_path / "moved")
    (tmp_path / "lake").symlink_to(tmp_path / "moved")
    for place in ("lake", "moved"):
        lake = open_embedded(tmp_path / place)
        collect_files(lake, older_than=NOW, keep_history=NOW)
        assert ids(lake, MAIN, "raw.a") == [1, 2]
    assert not (tmp_path / "moved" / "warehouse" / "raw" / "b").exists()


def test_a_table_that_was_moved_out_behind_a_link_stops_everything(local: BranchingCatalog, tmp_path: Path) -> None:
    table = tmp_path / "lake" / "warehouse" / "raw" / "a"
    table.rename(tmp_path / "elsewhere")
    table.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CatalogError, match="nothing was removed"):
        collect_files(local, older_than=NOW, keep_history=NOW)
    assert (tmp_path / "lake" / "warehouse" / "raw" / "b").exists()
    assert ids(local, MAIN, "raw.a") == [1, 2]


def test_files_that_were_not_listed_stop_everything(
    local: BranchingCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were needed files known by another name, their listed names would all be garbage."""
    warehouse = type(open_warehouse(local))
    monkeypatch.setattr(warehouse, "relative", lambda self, location: os.path.relpath(location, self._root) + "/")
    with pytest.raises(CatalogError, match="nothing was removed"):
        collect_files(local, older_than=NOW, keep_history=NOW)
    assert ids(local, MAIN, "raw.a") == [1, 2]


def test_a_warehouse_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    lake = open_embedded(tmp_path)
    (tmp_path / "warehouse" / "_cascade").write_text("in the way")
    with pytest.raises(CatalogError, match="warehouse cannot be written") as caught:
        collect_files(lake, older_than=NOW, keep_history=NOW)
    assert caught.value.where == str(tmp_path / "warehouse")


def test_a_catalog_that_is_given_a_warehouse_signs_it_at_once(tmp_path: Path) -> None:
    """Before the first of two that share it collects."""
    shared = str(tmp_path / "shared")
    lakes = [
        open_catalog(Settings(project_dir=tmp_path / name, data_dir=tmp_path / name, warehouse=shared))
        for name in ("staging", "production")
    ]
    promoted(lakes[1], "raw.a", numbers(1, 2))
    for lake in lakes:
        with pytest.raises(CatalogError, match="Another catalog keeps its files in the same warehouse"):
            collect_files(lake, older_than=NOW, keep_history=NOW)
    assert ids(lakes[1], MAIN, "raw.a") == [1, 2]
