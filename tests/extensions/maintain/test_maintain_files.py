"""The promises of garbage collection, for every implementation of the catalog and every kind of warehouse.

Modules: `cascade_maintain.marks`.
"""

import datetime as dt
import random
from collections.abc import Callable
from typing import Any

import pytest
from pyiceberg.table.statistics import StatisticsFile

from cascade.catalog import MAIN, BranchingCatalog
from cascade.catalog.storage import sign_warehouse
from cascade.errors import CatalogError, UsageError
from cascade.iceberg.properties import long_values
from cascade_maintain import parse_age
from cascade_maintain.garbage import Collection, collect_files
from cascade_maintain.warehouse import Warehouse, open_warehouse
from cascade_operations.events import Counted, Event, Listener
from support.garbage import content, needed, stored
from support.lakes import ids, numbers, promoted, put, read

# The clock of S3 has whole seconds: what was written a moment ago may be of its next one.
NOW = dt.timedelta(seconds=-1)
LONG = dt.timedelta(days=30)


def collect(lake: BranchingCatalog, *, history: dt.timedelta = NOW, **options: Any) -> Collection:
    """Collect everything that nothing needs, however young: nobody else writes in these tests."""
    return collect_files(lake, older_than=NOW, keep_history=history, **options)


def live(lake: BranchingCatalog, seed: int) -> None:
    """Let a lake go through what lakes go through, at random."""
    chance = random.Random(seed)
    number = 0
    for _ in range(14):
        branches = [b.name for b in lake.branches() if b.kind == "branch" and b.name != MAIN]
        act = chance.choice(["write", "write", "write", "merge", "create", "delete", "drop", "tag", "restore"])
        name = chance.choice(branches) if branches else ""
        if act == "create" or not branches:
            number += 1
            lake.create(f"b{number}", chance.choice([MAIN, *branches]))
        elif act == "write":
            first = chance.randrange(20)
            mode = chance.choice(["append", "merge", "replace"])
            key = {"key": ["id"]} if mode == "merge" else {}
            put(lake, name, chance.choice(["raw.a", "raw.b"]), numbers(first, first + 3), mode, **key)
        elif act == "merge":
            try:
                lake.merge(name, chance.choice([MAIN, MAIN, *branches]))
            except CatalogError:
                lake.delete(name)
        elif act == "delete":
            lake.delete(name)
        elif act == "drop" and (tables := sorted(lake.pointers(name))):
            lake.open(name).drop_table(chance.choice(tables))
        elif act == "tag":
            number += 1
            lake.tag(f"t{number}", chance.choice([MAIN, *branches]))
        elif act == "restore" and (log := lake.log()):
            lake.restore(chance.choice([0, *(entry.id for entry in log)]))


@pytest.mark.parametrize("seed", range(4))
def test_what_is_needed_stays_and_nothing_else(lake: BranchingCatalog, seed: int) -> None:
    """Whatever happened before: all that can be read is read as before, every other file is gone."""
    live(lake, seed)
    for history in (LONG, NOW):
        log = history is LONG
        before, wanted, files = content(lake, log=log), needed(lake, log=log), stored(lake)
        done = collect(lake, history=history)
        assert content(lake, log=log) == before
        assert stored(lake) == wanted
        assert {file.path for file in done.removed} == files - wanted
        assert (done.needed, done.missing, done.failed) == (len(wanted), (), {})


def abandoned(lake: BranchingCatalog) -> None:
    """Leave files of every kind behind, beside a table of `main` that goes on."""
    promoted(lake, "raw.a", numbers(1, 2))
    for n in (3, 4):
        put(lake, "run-1a2b3c4d", "raw.a", numbers(n, n), "merge", key=["id"])
    put(lake, "run-1a2b3c4d", "raw.b", numbers(1, 1))
    lake.delete("run-1a2b3c4d")


def test_files_of_a_dropped_branch_go_and_those_of_main_stay(lake: BranchingCatalog) -> None:
    abandoned(lake)
    removed = {file.path for file in collect(lake).removed}
    assert {path.rpartition(".")[2] for path in removed} == {"parquet", "avro", "json"}
    assert any(path.startswith("raw/b/") for path in removed)
    assert ids(lake, MAIN, "raw.a") == [1, 2]
    assert not any(path.startswith("raw/b") for path in stored(lake))


def test_a_second_collection_finds_nothing(lake: BranchingCatalog) -> None:
    abandoned(lake)
    first, second = collect(lake), collect(lake)
    assert first.removed
    assert second.removed == ()
    assert (second.needed, second.young) == (first.needed, 0)


def test_a_dry_run_removes_nothing_and_says_what_the_real_one_removes(lake: BranchingCatalog) -> None:
    abandoned(lake)
    files = stored(lake)
    dry = collect(lake, dry_run=True)
    assert stored(lake) == files
    assert sorted(f.path for f in collect(lake).removed) == sorted(f.path for f in dry.removed) != []


def test_young_files_stay(lake: BranchingCatalog) -> None:
    """A run that has not committed yet has files that no table names."""
    abandoned(lake)
    files = stored(lake)
    done = collect_files(lake, older_than=dt.timedelta(hours=1), keep_history=NOW)
    assert (done.removed, stored(lake)) == ((), files)
    assert done.young > 0


def test_files_written_since_the_oldest_unfinished_run_stay(lake: BranchingCatalog) -> None:
    begun = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=10)
    abandoned(lake)
    done = collect(lake, unfinished_since=begun)
    # A storage that keeps whole seconds gives the run's first files the second in which it began.
    assert (done.removed, done.written_before < begun.replace(microsecond=0)) == ((), True)


def test_an_empty_lake_has_no_garbage(lake: BranchingCatalog) -> None:
    done = collect(lake)
    assert (done.removed, done.needed) == ((), 0)


def test_statistics_that_a_snapshot_names_stay(lake: BranchingCatalog) -> None:
    """Trino writes them."""
    put(lake, "fix", "raw.a", numbers(1, 1))
    table = lake.open("fix").load_table("raw.a")
    head = table.current_snapshot()
    assert head is not None
    paths = [f"{table.location()}/metadata/{name}.stats" for name in ("named", "forgotten")]
    for path in paths:
        with table.io.new_output(path).create() as file:
            file.write(b"PFA1")
    statistics = StatisticsFile.model_validate(
        {
            "snapshot-id": head.snapshot_id,
            "statistics-path": paths[0],
            "file-size-in-bytes": 4,
            "file-footer-size-in-bytes": 4,
            "blob-metadata": [],
        }
    )
    with table.update_statistics() as update:
        update.set_statistics(statistics)
    collect(lake)
    assert [table.io.new_input(path).exists() for path in paths] == [True, False]


# --- history ------------------------------------------------------------------------------------------------


def replaced(lake: BranchingCatalog) -> None:
    """Let `main` forget its first rows: the table is dropped and created again."""
    promoted(lake, "raw.a", numbers(1, 2))
    lake.create("again")
    lake.open("again").drop_table("raw.a")
    lake.merge("again")
    promoted(lake, "raw.a", numbers(7, 7))


def test_history_that_is_kept_can_be_restored(lake: BranchingCatalog) -> None:
    replaced(lake)
    collect(lake, history=LONG)
    lake.restore(lake.log()[-1].id)
    assert ids(lake, MAIN, "raw.a") == [1, 2]


def test_history_that_is_forgotten_is_refused_by_name_and_main_stays(lake: BranchingCatalog) -> None:
    replaced(lake)
    moment = lake.log()[-1].at
    collect(lake)
    first = lake.log()[-1].id
    with pytest.raises(CatalogError, match=f"Entry {first} of the log is too old") as caught:
        lake.restore(first)
    assert ("raw.a" in caught.value.where, "--keep-history" in caught.value.fix) == (True, True)
    assert ids(lake, MAIN, "raw.a") == [7]
    past = lake.pointers(MAIN, at=moment)
    with pytest.raises(CatalogError, match="files of this state") as caught:
        lake.load("raw.a", past["raw.a"])
    assert "--keep-history" in caught.value.fix


def test_history_is_kept_at_least_as_long_as_files(lake: BranchingCatalog) -> None:
    """Or the metadata of a state might outlive its data."""
    replaced(lake)
    done = collect_files(lake, older_than=dt.timedelta(days=3), keep_history=NOW)
    assert done.history_since == done.written_before
    lake.restore(lake.log()[-1].id)
    assert ids(lake, MAIN, "raw.a") == [1, 2]


def test_a_later_collection_is_content_with_a_forgotten_history(lake: BranchingCatalog) -> None:
    replaced(lake)
    collect(lake)
    assert collect(lake, history=LONG).removed == ()


# --- while others work --------------------------------------------------------------------------------------


def between(what: Callable[[], object]) -> Listener:
    """Do something after files were listed and before they are removed."""

    def tell(event: Event) -> None:
        if isinstance(event, Counted) and event.action == "listed":
            what()

    return tell


def test_a_state_that_is_restored_meanwhile_stays_whole(lake: BranchingCatalog) -> None:
    replaced(lake)
    entry = lake.log()[-1].id
    collect(lake, tell=between(lambda: lake.restore(entry)))
    assert ids(lake, MAIN, "raw.a") == [1, 2]


def test_what_is_written_and_promoted_meanwhile_stays(lake: BranchingCatalog) -> None:
    abandoned(lake)
    put(lake, "old", "raw.a", numbers(5, 5), "merge", key=["id"])

    def work() -> None:
        lake.merge("old")
        put(lake, "new", "raw.a", numbers(6, 6), "merge", key=["id"])
        lake.tag("v1", "new")
        lake.delete("new")
        lake.delete("old")

    collect(lake, tell=between(work))
    assert (ids(lake, MAIN, "raw.a"), ids(lake, "v1", "raw.a")) == ([1, 2, 5], [1, 2, 5, 6])


class Interrupted(BaseException):
    """Stands for a process that is killed."""


def interrupt(monkeypatch: pytest.MonkeyPatch, lake: BranchingCatalog, after: int) -> None:
    """Let the removal of files end after some."""
    done: list[str] = []
    remove = type(open_warehouse(lake)).remove_file

    def removed(self: Warehouse, path: str) -> None:
        if len(done) >= after:
            raise Interrupted
        done.append(path)
        remove(self, path)

    monkeypatch.setattr(type(open_warehouse(lake)), "remove_file", removed)


@pytest.mark.parametrize("after", [0, 1, 4, 9])
def test_interrupted_anywhere_the_lake_is_whole_and_the_next_collection_ends_the_work(
    lake: BranchingCatalog, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    replaced(lake)
    for _ in range(3):
        put(lake, "run-1a2b3c4d", "raw.b", numbers(1, 1))
    lake.delete("run-1a2b3c4d")
    before, first = content(lake, log=False), lake.log()[-1].id
    with monkeypatch.context() as patch:
        interrupt(patch, lake, after)
        with pytest.raises(Interrupted):
            collect(lake)
    assert content(lake, log=False) == before
    collect(lake)
    assert stored(lake) == needed(lake, log=False)
    with pytest.raises(CatalogError, match="too old"):
        lake.restore(first)


def test_a_state_of_the_past_is_refused_or_whole_after_an_interruption(
    lake: BranchingCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(lake)
    with monkeypatch.context() as patch:
        interrupt(patch, lake, 2)
        with pytest.raises(Interrupted):
            collect(lake)
    try:
        lake.restore(lake.log()[-1].id)
    except CatalogError:
        assert ids(lake, MAIN, "raw.a") == [7]
    else:
        assert ids(lake, MAIN, "raw.a") == [1, 2]


def stubborn(monkeypatch: pytest.MonkeyPatch, lake: BranchingCatalog, ending: str) -> None:
    """Let files with an ending refuse to be removed."""
    remove = type(open_warehouse(lake)).remove_file

    def removed(self: Warehouse, path: str) -> None:
        if path.endswith(ending):
            raise PermissionError(13, "Permission denied")
        remove(self, path)

    monkeypatch.setattr(type(open_warehouse(lake)), "remove_file", removed)


def test_files_that_cannot_be_removed_are_all_reported(lake: BranchingCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    abandoned(lake)
    with monkeypatch.context() as patch:
        stubborn(patch, lake, ".parquet")
        done = collect(lake)
    assert set(done.failed.values()) == {"Permission denied"}
    assert all(path.endswith(".parquet") for path in done.failed)
    assert len(done.failed) > 1
    assert {f.path for f in collect(lake).removed} == set(done.failed)


def test_data_stays_as_long_as_metadata_cannot_be_removed(
    lake: BranchingCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(lake)
    stubborn(monkeypatch, lake, ".metadata.json")
    done = collect(lake)
    assert (done.removed, len(done.failed) > 0) == ((), True)
    lake.restore(lake.log()[-1].id)
    assert ids(lake, MAIN, "raw.a") == [1, 2]


# --- what is refused ----------------------------------------------------------------------------------------


def refused(lake: BranchingCatalog, *words: str) -> None:
    """Collect, which must be refused with all files in place."""
    files = stored(lake)
    with pytest.raises(CatalogError, match="nothing was removed") as caught:
        collect(lake)
    assert stored(lake) == files
    for word in words:
        assert word in str(caught.value)


def test_an_unreadable_manifest_stops_everything_and_is_named(lake: BranchingCatalog) -> None:
    abandoned(lake)
    table = lake.open(MAIN).load_table("raw.a")
    head = table.current_snapshot()
    assert head is not None
    (manifest,) = head.manifests(table.io)
    with table.io.new_output(manifest.manifest_path).create(overwrite=True) as file:
        file.write(b"no Avro")
    refused(lake, manifest.manifest_path, "cannot be read")


def test_missing_metadata_stops_everything_and_is_named(lake: BranchingCatalog) -> None:
    abandoned(lake)
    table = lake.open(MAIN).load_table("raw.a")
    table.io.delete(table.metadata_location)
    refused(lake, table.metadata_location, "does not exist")


def test_a_table_outside_the_warehouse_stops_everything_and_is_named(
    lake: BranchingCatalog, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from support.lakes import open_embedded

    abandoned(lake)
    other = open_embedded(tmp_path_factory.mktemp("other"))
    put(other, "fix", "raw.x", numbers(1, 1))
    outside = other.pointers("fix")["raw.x"]
    lake.create("fix")
    try:
        lake.open("fix").register_table("raw.x", outside)
    except OSError:
        pytest.fail("the lake cannot read a local file")
    refused(lake, outside, "outside the warehouse")
    lake.delete("fix")
    assert collect(lake).removed


def test_a_missing_data_file_is_reported_and_does_not_stop_the_rest(lake: BranchingCatalog) -> None:
    abandoned(lake)
    (file,) = lake.open(MAIN).load_table("raw.a").scan().plan_files()
    lake.open(MAIN).load_table("raw.a").io.delete(file.file.file_path)
    done = collect(lake)
    assert done.missing == (open_warehouse(lake).relative(file.file.file_path),)
    assert done.removed


def test_files_that_are_no_tables_are_none_of_our_business(lake: BranchingCatalog) -> None:
    abandoned(lake)
    warehouse = open_warehouse(lake)
    others = ["landing/orders.csv", "landing/2026/orders.csv", "landing/2026/07/data.parquet", "README.md"]
    for name in others:
        with warehouse.io.new_output(f"{warehouse.place}/{name}").create() as file:
            file.write(b"x")
    collect(lake)
    assert all(warehouse.exists(name) for name in others)


def test_a_warehouse_of_two_catalogs_is_left_alone(lake: BranchingCatalog) -> None:
    """To each of them the files of the other are garbage."""
    abandoned(lake)
    warehouse = open_warehouse(lake)
    sign_warehouse({**warehouse.io.properties, "warehouse": warehouse.place}, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    refused(lake, "Another catalog", "catalog-20260101")


def test_rows_are_as_before_when_everything_happened(lake: BranchingCatalog) -> None:
    abandoned(lake)
    collect(lake)
    put(lake, "fix", "raw.a", numbers(9, 9), "merge", key=["id"])
    collect(lake)
    lake.merge("fix")
    collect(lake)
    assert [row["id"] for row in read(lake, MAIN, "raw.a")] == [1, 2, 9]


# --- ages ---------------------------------------------------------------------------------------------------


def test_ages_are_days_hours_or_minutes() -> None:
    ages = [parse_age(value) for value in ("7d", "12h", "30m", "0d")]
    assert ages == [dt.timedelta(days=7), dt.timedelta(hours=12), dt.timedelta(minutes=30), dt.timedelta()]


@pytest.mark.parametrize("age", ["soon", "7", "-1d", "", "1d12h", "9999999d"])
def test_an_age_that_is_none_is_refused_with_an_example(age: str) -> None:
    with pytest.raises(UsageError, match="is not a duration") as caught:
        parse_age(age)
    assert "7d, 12h, 30m" in caught.value.fix


def test_the_files_of_long_properties_stay_with_the_states_that_name_them(lake: BranchingCatalog) -> None:
    texts = {"main": "m" * 9_000, "dev": "d" * 9_000}
    put(lake, "setup", "raw.a", numbers(1, 1), properties={"long": texts["main"]})
    lake.merge("setup")
    lake.delete("setup")
    put(lake, "dev", "raw.a", numbers(2, 2), properties={"long": "lost" * 3_000})
    put(lake, "dev", "raw.a", numbers(3, 3), properties={"long": texts["dev"]})
    collect(lake)
    for ref, text in texts.items():
        table = lake.load("raw.a", lake.pointers(ref)["raw.a"])
        assert long_values(table.metadata, table.io)["long"] == text
    assert sum(path.endswith(".property") for path in stored(lake)) == 2
