"""The promises of `cascade lift`: rows, history and state arrive as they were, all tables at once or none.

With `--on-servers` the target is Nessie, S3 and Trino. Modules: `cascade_maintain.relocate`.
"""

import contextlib
import datetime as dt
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pandera.pandas as pap
import pytest
from pyiceberg.table import Table

from cascade.catalog import MAIN, BranchingCatalog, open_catalog
from cascade.config import Settings, build_settings
from cascade.engine import query
from cascade.errors import CascadeError, CatalogError, DamagedFileError, LeaseHeldError, UsageError
from cascade.iceberg.head import KEPT_STATES, past
from cascade.iceberg.properties import long_values
from cascade.ingestion import cascade_ingestion, daily
from cascade.lakehouse import Lakehouse
from cascade_maintain.lift import Lift, lift_lake
from cascade_maintain.verify import verify_files
from cascade_operations.events import Counted, Event
from support.garbage import needed, rows_of, stored
from support.ingestion import DAY, NEXT, THIRD, Lake, Laptop
from support.lakes import as_settings, finish, mark_deleted, marking, numbers, promoted, put, settings_in, start
from support.projects import Command, make_project

pytestmark = pytest.mark.on_servers("nessie")


TABLES = ["quarantine.raw__measured", "raw.keyed", "raw.marked", "raw.measured", "raw.merged"]


class Days(pap.DataFrameModel):
    """Rows with a time, whose number is not negative."""

    id: pd.Int64Dtype
    n: pd.Int64Dtype = pap.Field(ge=0)
    at: pd.DatetimeTZDtype = pap.Field(dtype_kwargs={"unit": "us", "tz": "UTC"})


class Wider(Days):
    """The same with one more column."""

    note: str = pap.Field(nullable=True)


def days(model: type[Days]) -> dg.AssetsDefinition:
    """Return an asset with a row set aside every day."""

    @cascade_ingestion(
        partitions=daily(start=DAY, end="2013-07-04"),
        partition_column="at",
        unique_key="id",
        validation_schema=model,
        on_invalid="quarantine",
        schema_policy="additive",
        max_retries=0,
    )
    def measured(partition_date: str) -> Any:
        day = dt.datetime.fromisoformat(partition_date).replace(tzinfo=dt.UTC)
        note = {"note": "ü"} if model is Wider else {}
        return [{"id": day.day * 10 + n, "n": n - 1, "at": day + dt.timedelta(hours=n), **note} for n in range(4)]

    return measured


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """A lake with a past; nothing that lifts it changes it."""
    laptop = Laptop(tmp_path_factory.mktemp("laptop"))
    catalog = laptop.lakehouse.catalog
    for model, loaded in ((Days, (DAY,)), (Days, (DAY, NEXT)), (Wider, (THIRD,))):
        laptop.succeed(days(model), *loaded)
        catalog.merge("test")
    for n in range(KEPT_STATES + 3):
        put(catalog, "test", "raw.keyed", numbers(n, n + 2), "merge", key=["id"])
        catalog.merge("test")
    promoted(catalog, "raw.marked", numbers(1, 9))
    promoted(catalog, "raw.merged", numbers(1, 9))
    with marking():  # as merges into large files do
        promoted(catalog, "raw.merged", numbers(8, 10), mode="merge", key=["id"])
    catalog.create("mark")
    marked = catalog.open("mark").load_table("raw.marked")
    (task,) = marked.scan().plan_files()
    mark_deleted(marked, [(task.file.file_path, 0), (task.file.file_path, 4)])
    catalog.merge("mark")
    put(catalog, "mark", "raw.open", numbers(1, 1))
    return laptop


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The settings of the target."""
    return settings_in(tmp_path, data_dir=tmp_path / "there")


@pytest.fixture
def target(settings: Settings) -> BranchingCatalog:
    return open_catalog(settings)


def lift(laptop: Laptop, settings: Settings, **options: Any) -> Lift:
    return lift_lake(settings, laptop.settings.data_path, **options)


def states(catalog: BranchingCatalog, name: str) -> list[Table]:
    """Return a table of `main`, and its earlier states that list other snapshots."""
    return [*past(catalog, name, catalog.load(name, catalog.pointers(MAIN)[name]))]


def history(catalog: BranchingCatalog, name: str) -> dict[int, Any]:
    """Return the rows of each snapshot of a table, with the columns that it had."""
    return {
        snapshot.snapshot_id: (rows, snapshot.schema_id)
        for state in reversed(states(catalog, name))
        for snapshot, rows in zip(state.metadata.snapshots, rows_of(state), strict=True)
    }


def test_rows_history_and_state_arrive_as_they_were(
    laptop: Laptop, settings: Settings, target: BranchingCatalog
) -> None:
    """Also the snapshots that only earlier metadata lists; and nothing arrives that nobody needs."""
    done = lift(laptop, settings)
    assert [table.table for table in done.tables] == TABLES
    assert done.branches == ("mark",)
    for table in done.tables:
        (before, *_), (after, *more) = states(laptop.lakehouse.catalog, table.table), states(target, table.table)
        assert history(target, table.table) == history(laptop.lakehouse.catalog, table.table)
        assert long_values(after.metadata, after.io) == long_values(before.metadata, before.io)
        assert (after.schemas(), after.specs(), more) == (before.schemas(), before.specs(), [])
        assert len(after.snapshots()) == table.snapshots
    assert len(states(laptop.lakehouse.catalog, "raw.keyed")) == 2
    (moved,) = target.log()
    assert [change.table for change in moved.changes] == TABLES
    assert stored(target) == needed(target, log=True)
    assert not verify_files(target).damaged


def test_the_engine_of_the_target_reads_all_tables_now_and_as_they_were(
    laptop: Laptop, settings: Settings, target: BranchingCatalog
) -> None:
    lift(laptop, settings)

    def rows(catalog: BranchingCatalog, table: str, at: int | None = None) -> list[dict[str, Any]]:
        found = query(catalog, MAIN, f"SELECT id, count(*) AS n FROM {table} GROUP BY id ORDER BY id", at=at)
        return [dict(row) for row in found.to_pylist()]

    for table in ("raw.keyed", "raw.marked", "raw.measured", "raw.merged"):
        oldest = min(states(target, table)[0].snapshots(), key=lambda one: one.timestamp_ms).snapshot_id
        for at in (None, oldest):
            assert rows(target, table, at) == rows(laptop.lakehouse.catalog, table, at)
    assert [row["id"] for row in rows(target, "raw.marked")] == [2, 3, 4, 6, 7, 8, 9]


def test_nothing_is_loaded_again_and_what_is_written_next_stands_on_what_was_lifted(
    laptop: Laptop, settings: Settings, target: BranchingCatalog, tmp_path: Path
) -> None:
    lift(laptop, settings)
    there = Lake(tmp_path, project_dir=tmp_path)
    there.settings, there.lakehouse = settings, Lakehouse(settings, "test")
    asset = days(Wider)
    assert there.loaded(asset, MAIN) == [DAY, NEXT, THIRD]
    assert there.load(asset, DAY, NEXT, THIRD, missing_only=True).skipped == 3
    before = target.pointers(MAIN)
    assert target.merge("test") is None
    there.succeed(asset, NEXT)
    target.merge("test")
    assert [change.table for change in target.log()[0].changes] == ["quarantine.raw__measured", "raw.measured"]
    assert target.pointers(MAIN)["raw.keyed"] == before["raw.keyed"]
    assert there.query("SELECT id, n FROM raw.measured ORDER BY id") == laptop.query(
        "SELECT id, n FROM raw.measured ORDER BY id"
    )
    again = lift(laptop, settings)
    assert {table.is_there for table in again.tables} == {True}


# --- interrupted, shown, refused ------------------------------------------------------------------------------


def _killed(values: dict[str, str], folder: Path, laptop: Path, after: int) -> None:
    """Lift, and die without a word when so many tables are copied."""
    told = 0

    def tell(event: Event) -> None:
        nonlocal told
        told += isinstance(event, Counted)
        if told == after:
            os._exit(9)

    lift_lake(build_settings(folder, {"data_dir": folder / "there", **values}), laptop, tell=tell)


@pytest.mark.parametrize("after", [1, len(TABLES)])
def test_after_a_kill_nothing_is_seen_and_the_next_one_ends_the_work(
    after: int, laptop: Laptop, settings: Settings, target: BranchingCatalog, tmp_path: Path
) -> None:
    killed = start(_killed, as_settings(os.environ), tmp_path, laptop.settings.data_path, after)
    assert finish([killed]) == [9]
    assert target.pointers(MAIN) == {}
    shown = lift(laptop, settings, dry_run=True).tables
    assert [table.files_there == table.files for table in shown] == [n < after for n in range(len(TABLES))]
    lift(laptop, settings)
    assert {name: history(target, name) for name in TABLES} == {n: history(laptop.lakehouse.catalog, n) for n in TABLES}
    assert stored(target) == needed(target, log=True)
    assert [branch.name for branch in target.branches()] == [MAIN]


def test_a_dry_run_does_nothing_and_a_second_lift_neither(
    laptop: Laptop, settings: Settings, target: BranchingCatalog
) -> None:
    """Also when the target has moved on since."""
    assert [table.is_there for table in lift(laptop, settings, dry_run=True).tables] == [False] * len(TABLES)
    assert (target.pointers(MAIN), stored(target)) == ({}, set())
    lift(laptop, settings)
    promoted(target, "raw.keyed", numbers(90, 91))
    before = target.pointers(MAIN)
    assert [table.is_there for table in lift(laptop, settings).tables] == [True] * len(TABLES)
    assert target.pointers(MAIN) == before


@contextlib.contextmanager
def _same_names(_laptop: Laptop, target: BranchingCatalog) -> Iterator[None]:
    for table in ("raw.keyed", "raw.marked"):
        promoted(target, table, numbers(1, 1))
    yield


@contextlib.contextmanager
def _run_there(_laptop: Laptop, target: BranchingCatalog) -> Iterator[None]:
    with target.lease(MAIN, "cascade run"):
        yield


@contextlib.contextmanager
def _run_here(laptop: Laptop, _target: BranchingCatalog) -> Iterator[None]:
    with laptop.lakehouse.catalog.lease(MAIN, "cascade run"):
        yield


@contextlib.contextmanager
def _changed(laptop: Laptop, _target: BranchingCatalog) -> Iterator[Path]:
    """Change a bit of a file."""
    name = laptop.lakehouse.catalog.pointers(MAIN)["raw.keyed"]
    task, *_ = laptop.lakehouse.catalog.load("raw.keyed", name).scan().plan_files()
    path = Path(task.file.file_path)
    content = path.read_bytes()
    path.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    yield path
    path.write_bytes(content)


@contextlib.contextmanager
def _gone(laptop: Laptop, target: BranchingCatalog) -> Iterator[Path]:
    with _changed(laptop, target) as path:
        path.unlink()
        yield path


REFUSED: dict[str, tuple[Any, type[CascadeError], str]] = {
    "same names": (_same_names, CatalogError, "nothing was lifted: raw.keyed, raw.marked."),
    "a run at the target": (_run_there, LeaseHeldError, "cascade run, process"),
    "a run on the laptop": (_run_here, LeaseHeldError, "cascade run, process"),
    "damaged file": (_changed, DamagedFileError, "it has changed since it was written"),
    "missing file": (_gone, CatalogError, "Files of raw.keyed cannot be read"),
}


@pytest.mark.parametrize(("happens", "error", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_lifted_is_refused_with_its_name(
    happens: Any,
    error: type[CascadeError],
    says: str,
    laptop: Laptop,
    settings: Settings,
) -> None:
    target = open_catalog(settings)
    with happens(laptop, target) as path:
        before = target.pointers(MAIN)
        with pytest.raises(error, match=re.escape(says)) as caught:
            lift(laptop, settings)
        assert target.pointers(MAIN) == before
        assert path is None or path.name in caught.value.where


@pytest.mark.parametrize(
    ("folder", "says"), [("empty", "There is no lake in this folder"), ("lake", "lead to the lake that is to be")]
)
def test_a_lake_that_is_not_there_and_the_same_lake_are_refused(folder: str, says: str, tmp_path: Path) -> None:
    here = Settings(project_dir=tmp_path, data_dir=tmp_path / "lake")
    open_catalog(here)
    with pytest.raises(UsageError, match=says):
        lift_lake(here, tmp_path / folder)
    assert not (tmp_path / "empty").exists()


# --- the command ----------------------------------------------------------------------------------------------

_WORKFLOW = '''\
"""Three days."""

from cascade.ingestion import cascade_ingestion, daily


@cascade_ingestion(partitions=daily(start="2013-07-01", end="2013-07-03"), unique_key="id", max_retries=0)
def events(partition_date: str):
    """A number of each day."""
    return [{"id": int(partition_date[-2:])}]
'''


def test_a_project_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not on `main` is named; the next run loads nothing, computes nothing and promotes nothing."""
    cascade = Command(capsys)
    monkeypatch.chdir(make_project(tmp_path / "project", {"workflows/events.py": _WORKFLOW}))
    servers = {name: value for name, value in os.environ.items() if name.startswith("CASCADE_")}
    for name in servers:
        monkeypatch.delenv(name)
    assert cascade("run").code == 0
    assert cascade("branch", "create", "july", "--tag").code == 0
    for name, value in (servers or {"CASCADE_DATA_DIR": "elsewhere"}).items():
        monkeypatch.setenv(name, value)
    source = () if servers else ("--from", ".cascade")
    said = cascade("lift", *source)
    assert (said.code, "Would lift 1 table" in said.out, "Next: `cascade lift --yes`" in said.out) == (0, True, True)
    assert "Not lifted, for only `main` is: july." in said.out
    assert cascade("query", "SELECT * FROM raw.events").code == 1
    done = json.loads(cascade("lift", "--yes", "--json", *source).out)
    assert [(table["table"], table["snapshots"], table["is_there"]) for table in done["tables"]] == [
        ("raw.events", 1, False)
    ]
    before = json.loads(cascade("branch", "log", "--json").out)
    assert json.loads(cascade("run", "--json").out)["up_to_date"] == ["raw/events"]
    assert json.loads(cascade("branch", "log", "--json").out) == before
    rows = json.loads(cascade("query", "SELECT id FROM raw.events ORDER BY id", "--json").out)
    assert rows == [{"id": 1}, {"id": 2}, {"id": 3}]
