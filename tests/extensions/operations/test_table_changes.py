"""The promises of `cascade table …` and of a full refresh: on a branch, promoted as a whole, nothing half-done.

With `--on-servers` the catalog is Nessie. Modules: `cascade_operations.tables`, `cascade_operations.table_records`,
`cascade_operations.check_states`.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import cascade_operations as operations
from cascade.catalog import MAIN, BranchingCatalog, open_catalog
from cascade.config import Settings
from cascade.engine import query
from cascade.errors import CascadeError, LeaseHeldError, UsageError
from cascade.framework.definitions import build_definitions
from cascade.framework.instance import open_instance
from cascade_operations.events import Emptied, Event, Loading, NewBranch
from cascade_operations.owners import find_owners, orphans, owners_of
from cascade_operations.table_changes import loaded_tables
from support.lakes import numbers, promoted, put, read, settings_in
from support.projects import make_project

pytestmark = pytest.mark.on_servers("nessie")

_ORDERS = '''\
"""Orders of two days, one of them a bad one, with a check."""

from pathlib import Path

import pandera.polars as pa
from cascade.ingestion import cascade_ingestion, daily
from cascade.quality import cascade_quality, not_null


class Orders(pa.DataFrameModel):
    """An order."""

    id: str = pa.Field(description="Its number")
    n: int = pa.Field(gt=0)


@cascade_ingestion(
    table_name="NAME", partitions=daily(start="2024-01-01", end="2024-01-02"), unique_key="id", on_invalid="quarantine",
    validation_schema=Orders, max_retries=0,
)
def orders(partition_date: str):
    """A good one and a bad one a day."""
    n = int((Path(__file__).parents[1] / "n").read_text())
    return [{"id": partition_date, "n": n}, {"id": f"{partition_date}-bad", "n": -1}]


@cascade_quality(asset="raw.NAME", checks=[not_null("id")], blocking=True)
def named():
    """Each has a number."""
'''

_EVENTS = '''\
"""What comes since the last time."""

from pathlib import Path

import dlt
from cascade.ingestion import cascade_ingestion


@cascade_ingestion(partitions="none", write="append", max_retries=0)
def events():
    """Rows above the cursor."""
    n = int((Path(__file__).parents[1] / "n").read_text())

    @dlt.resource
    def new(at=dlt.sources.incremental("id", initial_value=0)):
        yield [{"id": i, "kind": KIND} for i in range(at.last_value + 1, n + 1)]

    return new
'''

_TOTALS = '''\
"""A mart."""

from cascade_transform.decorator import cascade_transform


@cascade_transform(table="marts.totals", reads=["raw.orders"])
def totals(orders):
    """How many orders there are."""
    return [{"orders": orders.num_rows}]
'''

_FILES = {"orders": _ORDERS.replace("NAME", "orders"), "events": _EVENTS.replace("KIND", "1"), "totals": _TOTALS}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of the project, and where it is kept as it is after one run."""
    folder = tmp_path_factory.mktemp("tables")
    return folder / "project", folder / "kept"


@pytest.fixture
def settings(places: tuple[Path, Path], lake_kind: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A project that has run once: again for each test on servers, elsewhere a copy of it."""
    root, kept = places
    shutil.rmtree(root, ignore_errors=True)
    _forget()
    if kept.is_dir() and lake_kind == "embedded":
        shutil.copytree(kept, root)
    else:
        make_project(root, {**{f"workflows/{name}.py": text for name, text in _FILES.items()}, "n": "2"})
    monkeypatch.chdir(root)
    found = settings_in(root)
    if not kept.is_dir() or lake_kind != "embedded":
        assert operations.run_pipeline(found).success
        shutil.copytree(root, kept, dirs_exist_ok=True)
    return found


@pytest.fixture
def lake(settings: Settings) -> BranchingCatalog:
    return open_catalog(settings)


def _forget() -> None:
    """Let the next command read the workflows again, as a new process does."""
    for module in [module for module in sys.modules if module.partition(".")[0] == "workflows"]:
        del sys.modules[module]


def _write(settings: Settings, name: str, text: str | None) -> None:
    """Change a workflow file, or remove it."""
    _forget()
    file = settings.workflows_path / f"{name}.py"
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    shutil.rmtree(settings.workflows_path / "__pycache__", ignore_errors=True)


def _rows(lake: BranchingCatalog, table: str, ref: str = MAIN) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith("_")} for row in read(lake, ref, table)]


def _head(lake: BranchingCatalog, table: str) -> Any:
    return lake.load(table, lake.pointers(MAIN)[table])


def _branches(lake: BranchingCatalog) -> list[str]:
    return [branch.name for branch in lake.branches()]


# --- list, show, history ------------------------------------------------------------------------------------


def test_a_list_says_what_makes_each_table(settings: Settings, lake: BranchingCatalog) -> None:
    promoted(lake, "silver.old", numbers(1, 3))
    found = {one.table: one for one in operations.list_tables(settings)}
    assert {name: (one.owner, one.rows, one.checks) for name, one in found.items()} == {
        "marts.totals": ("workflow", 1, 0),
        "quarantine.raw__orders": ("quarantine", 2, 0),
        "raw.events": ("workflow", 2, 0),
        "raw.orders": ("workflow", 2, 2),
        "silver.old": ("orphan", 3, 0),
    }
    assert all(one.bytes and one.snapshots == 1 and one.snapshot for one in found.values())


def test_a_list_loads_definitions_only_after_a_file_has_changed(settings: Settings) -> None:
    told: list[Event] = []
    assert {one.owner for one in operations.list_tables(settings, tell=told.append)} == {"workflow", "quarantine"}
    assert told == []  # the run has noted it
    _write(settings, "totals", None)
    owners = {one.table: one.owner for one in operations.list_tables(settings, tell=told.append)}
    assert told == [Loading("workflows and models")]
    assert owners["marts.totals"] == "orphan"
    assert owners["raw.orders"] == "workflow"


def test_while_a_file_cannot_be_used_no_table_is_called_an_orphan(settings: Settings, lake: BranchingCatalog) -> None:
    _write(settings, "totals", "1 / 0")
    assert {one.table: one.owner for one in operations.list_tables(settings)}["marts.totals"] == "unknown"
    with pytest.raises(CascadeError, match="Which tables are orphans is unknown"):
        operations.drop_tables(settings, unowned=True)
    assert "marts.totals" in lake.pointers(MAIN)


def test_a_table_is_shown_with_its_columns_and_what_is_loaded(settings: Settings) -> None:
    found = operations.show_table(settings, "raw/orders")
    assert [(c.name, c.type, c.description) for c in found.columns][:2] == [
        ("id", "string", "Its number"),
        ("n", "long", None),
    ]
    assert (found.key, found.partitions, found.quarantined) == (("id",), ("2024-01-01..2024-01-02",), 2)
    assert found.readers == ("marts/totals",)
    assert found.cursor is None
    assert '"id"' in str(operations.show_table(settings, "raw.events").cursor)


def test_a_table_is_shown_with_the_last_results_of_its_checks(settings: Settings, lake: BranchingCatalog) -> None:
    def states() -> list[tuple[str, str, bool]]:
        found = operations.show_table(settings, "raw.orders", tell=told.append)
        return [(one.check, one.state, one.current) for one in found.checks]

    told: list[Event] = []
    # The contract has set rows aside.
    assert states() == [("contract", "warned", True), ("not_null_id", "passed", True)]
    promoted(lake, "raw.orders", [{"id": "x", "n": 1}])  # by no run
    assert states() == [("contract", "warned", False), ("not_null_id", "passed", False)]
    (run,) = {one.run for one in operations.table_history(settings, "raw.orders") if one.run}
    found = operations.show_table(settings, "raw.orders").checks
    assert all(one.blocking for one in found)
    assert {(one.branch, one.at is None) for one in found} == {(f"run-{run[:8]}", False)}
    assert told == []
    shutil.rmtree(settings.project_dir / ".dagster")
    assert states() == [("contract", "never ran", False), ("not_null_id", "never ran", False)]
    (settings.project_dir / ".dagster").write_text("no folder")
    assert states() == [("contract", "unknown", False), ("not_null_id", "unknown", False)]
    assert "results of checks, from Dagster's records" in str(told)


def test_a_history_names_runs_and_what_they_did(settings: Settings) -> None:
    (settings.project_dir / "n").write_text("3")
    operations.run_pipeline(settings, select=["raw/events"])
    operations.reset_table(settings, "raw.events")
    newest, *others = operations.table_history(settings, "raw.events")
    assert (newest.operation, newest.rows, newest.removed) == ("reset", 0, 3)
    assert [(one.operation, one.rows, one.added) for one in others] == [("append", 3, 1), ("append", 2, 2)]
    assert all(one.run and one.branch == f"run-{one.run[:8]}" for one in others)
    assert operations.table_history(settings, "raw.events", limit=1) == (newest,)


@pytest.mark.parametrize(
    "sql", ["show tables", "SHOW TABLES FROM raw", "describe raw.orders", "show columns from raw.orders"]
)
def test_sql_shows_tables_and_columns(sql: str, lake: BranchingCatalog) -> None:
    found = query(lake, MAIN, sql).to_pylist()
    assert any("orders" in row.values() or "id" in row.values() for row in found), found


# --- drop ---------------------------------------------------------------------------------------------------


def test_a_dropped_table_leaves_main_its_quarantine_and_the_marts(settings: Settings, lake: BranchingCatalog) -> None:
    lake.tag("v1")
    before = lake.pointers(MAIN)
    planned = operations.drop_tables(settings, ["marts.totals", "raw.orders"], dry_run=True)
    assert lake.pointers(MAIN) == before
    done = operations.drop_tables(settings, ["marts.totals", "raw.orders"])
    assert [one.table for one in done.tables] == ["marts.totals", "raw.orders", "quarantine.raw__orders"]
    assert done.tables == planned.tables
    assert done.move is not None
    assert set(done.move.tables) == {one.table for one in done.tables}
    assert lake.pointers(MAIN).keys() == {"raw.events"}
    assert _branches(lake) == [MAIN, "v1"]
    assert lake.pointers("v1") == before
    operations.restore(settings, done.move.id - 1)
    assert lake.pointers(MAIN) == before


def test_a_dropped_mart_is_not_in_the_file_that_reports_read(settings: Settings) -> None:
    if settings.marts_url is not None:
        return  # tests/extensions/servers asks PostgreSQL
    import duckdb

    def marts() -> list[Any]:
        with duckdb.connect(str(settings.marts_path), read_only=True) as connection:
            return connection.sql("select table_name from duckdb_tables() where schema_name = 'marts'").fetchall()

    assert marts() == [("totals",)]
    operations.drop_tables(settings, ["marts.totals"])
    assert marts() == []


def test_orphans_are_dropped_when_it_is_asked_for(settings: Settings, lake: BranchingCatalog) -> None:
    _write(settings, "events", None)
    assert operations.run_pipeline(settings).success
    assert "raw.events" in lake.pointers(MAIN)
    owners = owners_of(build_definitions(settings))
    assert orphans(owners, lake.pointers(MAIN)) == ("raw.events",)
    assert owners == find_owners(settings)
    done = operations.drop_tables(settings, unowned=True)
    assert [(one.table, one.owner) for one in done.tables] == [("raw.events", "orphan")]
    assert lake.pointers(MAIN).keys() == {"marts.totals", "quarantine.raw__orders", "raw.orders"}


def test_without_promotion_the_result_stays_on_a_branch(settings: Settings, lake: BranchingCatalog) -> None:
    before = lake.pointers(MAIN)
    done = operations.drop_tables(settings, ["raw.events"], promote=False)
    assert (lake.pointers(MAIN), done.move, done.branch_kept) == (before, None, True)
    assert "raw.events" not in lake.pointers(str(done.branch))
    assert operations.promote(settings, str(done.branch)).move is not None
    assert "raw.events" not in lake.pointers(MAIN)


# --- rename -------------------------------------------------------------------------------------------------


def test_a_renamed_table_keeps_rows_history_partitions_and_cursor(settings: Settings, lake: BranchingCatalog) -> None:
    """Its checks run, nothing is loaded again, and the rows set aside go with it."""
    _write(settings, "orders", _ORDERS.replace("NAME", "sales"))
    _write(settings, "totals", _TOTALS.replace("orders", "sales"))
    before, aside = _head(lake, "raw.orders"), _rows(lake, "quarantine.raw__orders")
    done = operations.rename_table(settings, "raw.orders", "raw.sales")
    assert done.report is not None
    assert (done.report.success, {check.check for check in done.report.checks}) == (True, {"contract", "not_null_id"})
    after = _head(lake, "raw.sales")
    assert (after.metadata.table_uuid, after.properties) == (before.metadata.table_uuid, before.properties)
    assert after.current_snapshot() == before.current_snapshot()
    assert _rows(lake, "quarantine.raw__sales") == aside
    assert not lake.pointers(MAIN).keys() & {"raw.orders", "quarantine.raw__orders"}
    report = operations.run_pipeline(settings)
    assert (report.success, report.up_to_date) == (True, ("raw/sales",))


def test_a_table_that_nothing_makes_is_renamed_as_well(settings: Settings, lake: BranchingCatalog) -> None:
    _write(settings, "events", None)
    before = _head(lake, "raw.events")
    done = operations.rename_table(settings, "raw.events", "archive.events")
    assert (done.report, done.move is not None) == (None, True)
    after = _head(lake, "archive.events")
    assert (after.properties, after.current_snapshot()) == (before.properties, before.current_snapshot())
    _write(
        settings,
        "events",
        _EVENTS.replace("KIND", "1").replace('partitions="none"', 'namespace="archive", partitions="none"'),
    )
    (settings.project_dir / "n").write_text("3")
    assert operations.run_pipeline(settings).success
    assert [row["id"] for row in _rows(lake, "archive.events")] == [1, 2, 3]  # the cursor came along


# --- reset --------------------------------------------------------------------------------------------------


def test_a_reset_forgets_rows_partitions_and_cursor_together(settings: Settings, lake: BranchingCatalog) -> None:
    for table in ("raw.orders", "raw.events"):
        done = operations.reset_table(settings, table)
        assert done.report is not None
        assert (done.report.success, done.move is not None) == (True, True), done
        assert (_rows(lake, table), operations.show_table(settings, table).partitions) == ([], ())
    assert _rows(lake, "quarantine.raw__orders") == []
    assert operations.show_table(settings, "raw.events").cursor is None
    assert _rows(lake, "marts.totals") == [{"orders": 2}]  # for the next run
    (settings.project_dir / "n").write_text("1")
    assert operations.run_pipeline(settings).success
    assert [row["n"] for row in _rows(lake, "raw.orders")] == [1, 1]
    assert [row["id"] for row in _rows(lake, "raw.events")] == [1]
    assert len(_rows(lake, "quarantine.raw__orders")) == 2


def test_after_a_reset_a_column_may_have_another_type(settings: Settings, lake: BranchingCatalog) -> None:
    """A table that was first loaded without a contract has a way back."""
    _write(settings, "events", _EVENTS.replace("KIND", "'a'").replace('"kind"', '"kind": "x", "more"'))
    (settings.project_dir / "n").write_text("3")
    assert not operations.run_pipeline(settings, select=["raw/events"]).success
    assert operations.reset_table(settings, "raw.events").move is not None
    assert operations.run_pipeline(settings, select=["raw/events"]).success
    assert [row["kind"] for row in _rows(lake, "raw.events")] == ["x"] * 3
    assert len(operations.table_history(settings, "raw.events")) == 3


# --- full refresh -------------------------------------------------------------------------------------------


def test_a_full_refresh_loads_everything_again_and_no_reader_sees_less(
    settings: Settings, lake: BranchingCatalog
) -> None:
    seen = []

    def look(_event: Event) -> None:
        seen.append((len(_rows(lake, "raw.orders")), len(_rows(lake, "raw.events")), _rows(lake, "marts.totals")))

    (settings.project_dir / "n").write_text("1")
    planned = operations.plan_refresh(settings, select=["raw/orders+", "raw/events"])
    assert [one.table for one in planned.tables if one.owner != "quarantine"] == [
        "marts.totals",
        "raw.events",
        "raw.orders",
    ]
    report = operations.run_pipeline(settings, select=["raw/orders+", "raw/events"], full_refresh=True, tell=look)
    assert report.success, report.failures
    assert report.partitions == {"raw/orders": "2024-01-01..2024-01-02"}
    assert {each[:2] for each in seen} <= {(2, 2), (2, 1)}
    assert [row["n"] for row in _rows(lake, "raw.orders")] == [1, 1]
    assert [row["id"] for row in _rows(lake, "raw.events")] == [1]
    assert report.promotion is not None
    assert {"raw.orders", "raw.events", "marts.totals"} <= {*report.promotion.tables}


def test_a_full_refresh_that_fails_leaves_main_as_it_is(settings: Settings, lake: BranchingCatalog) -> None:
    (settings.project_dir / "n").write_text("none")
    before = lake.pointers(MAIN)
    report = operations.run_pipeline(settings, select=["raw/orders"], full_refresh=True)
    assert (report.success, report.branch_kept, lake.pointers(MAIN)) == (False, True, before)


def test_a_full_refresh_says_which_branches_cannot_be_promoted_afterwards(
    settings: Settings, lake: BranchingCatalog
) -> None:
    put(lake, "fix", "raw.events", [{"id": 9, "kind": 1}])
    put(lake, "other", "raw.more", numbers(1, 1))
    assert operations.plan_refresh(settings).conflicts == ("fix",)
    told: list[Event] = []
    operations.run_pipeline(settings, select=["raw/events"], full_refresh=True, tell=told.append)
    assert Emptied(("raw.events",), ("fix",)) in told


def test_a_materialization_refreshes_its_branch(settings: Settings, lake: BranchingCatalog) -> None:
    (settings.project_dir / "n").write_text("1")
    before = lake.pointers(MAIN)
    told: list[Event] = []
    for _ in range(2):  # a mistyped name would be a new branch, too
        assert operations.materialize(settings, ["raw/events"], full_refresh=True, tell=told.append).success
    assert [event for event in told if isinstance(event, NewBranch)] == [NewBranch("dev")]
    assert ([row["id"] for row in _rows(lake, "raw.events", "dev")], lake.pointers(MAIN)) == ([1], before)


# --- refusals -----------------------------------------------------------------------------------------------

_REFUSED: dict[str, tuple[Callable[[Settings], object], str]] = {
    "a branch": (lambda s: operations.drop_tables(s, ["main"]), "`main` is a branch, not a table"),
    "a namespace": (lambda s: operations.drop_tables(s, ["raw"]), "did you mean raw.events or raw.orders"),
    "a short name": (lambda s: operations.show_table(s, "orders"), r"did you mean raw\.orders\?"),
    "nearly a name": (lambda s: operations.drop_tables(s, ["raw.oders"]), r"did you mean raw\.orders"),
    "an unknown name": (lambda s: operations.table_history(s, "x.y"), "name one of its tables: marts.totals, "),
    "a path": (lambda s: operations.drop_tables(s, ["../x"]), "'../x' is not the name of a table"),
    "a new name that is a path": (
        lambda s: operations.rename_table(s, "raw.events", "raw.../../x"),
        "is not the name of a table",
    ),
    "a taken name": (lambda s: operations.rename_table(s, "raw.events", "raw.Orders"), "main has a table raw.orders"),
    "the same name": (lambda s: operations.rename_table(s, "raw.events", "raw.events"), "called so already"),
    "a name still in use": (lambda s: operations.rename_table(s, "raw.events", "raw.e"), "still makes raw.events"),
    "rows set aside": (lambda s: operations.rename_table(s, "quarantine.raw__orders", "raw.bad"), "go with their"),
    "reset of a quarantine": (lambda s: operations.reset_table(s, "quarantine.raw__orders"), "quarantine drop"),
    "reset of an orphan": (lambda s: operations.reset_table(s, "silver.old"), "cascade table drop silver.old"),
    "partitions": (
        lambda s: operations.run_pipeline(s, select=["raw/orders"], partition="2024-01-01", full_refresh=True),
        "loads all partitions of raw.orders, not 2024-01-01",
    ),
}


@pytest.mark.parametrize("asked", _REFUSED)
def test_what_cannot_be_done_is_refused_with_a_way_out(asked: str, settings: Settings, lake: BranchingCatalog) -> None:
    promoted(lake, "silver.old", numbers(1, 1))
    work, said = _REFUSED[asked]
    before = lake.pointers(MAIN)
    with pytest.raises(CascadeError, match=said) as refused:
        work(settings)
    assert refused.value.fix
    assert (lake.pointers(MAIN), _branches(lake)) == (before, [MAIN])


_ACTIONS: dict[str, Callable[[Settings], object]] = {
    "drop": lambda settings: operations.drop_tables(settings, ["raw.events"]),
    "rename": lambda settings: operations.rename_table(settings, "silver.old", "silver.new"),
    "reset": lambda settings: operations.reset_table(settings, "raw.events"),
    "full refresh": lambda s: operations.run_pipeline(s, select=["raw/events"], full_refresh=True),
}


@pytest.mark.parametrize("action", _ACTIONS)
def test_while_a_command_works_towards_main_nothing_is_done(
    action: str, settings: Settings, lake: BranchingCatalog
) -> None:
    promoted(lake, "silver.old", numbers(1, 1))
    before = lake.pointers(MAIN)
    with lake.lease(MAIN, "a run of ada"), pytest.raises(LeaseHeldError, match="a run of ada"):
        _ACTIONS[action](settings)
    assert (lake.pointers(MAIN), _branches(lake)) == (before, [MAIN])


@pytest.mark.parametrize("action", ["drop", "reset"])
def test_while_a_run_of_the_ui_writes_a_table_it_is_left_alone(
    action: str, settings: Settings, lake: BranchingCatalog
) -> None:
    before = lake.pointers(MAIN)
    events, orders = (
        dg.DagsterRun(
            "job", status=dg.DagsterRunStatus.STARTED, asset_selection=frozenset({dg.AssetKey(["raw", name])})
        )
        for name in ("events", "orders")
    )
    with open_instance(settings) as instance:
        instance.add_run(events)
        with pytest.raises(UsageError, match=rf"run {events.run_id[:8]} has not ended, and writes raw\.events"):
            _ACTIONS[action](settings)
        assert (lake.pointers(MAIN), _branches(lake)) == (before, [MAIN])
        instance.delete_run(events.run_id)
        instance.add_run(orders)
        # A materialization on a branch that stays does not reach main, and nobody ends one that was killed.
        instance.add_run(dg.DagsterRun("__ASSET_JOB", status=events.status, asset_selection=events.asset_selection))
    _ACTIONS[action](settings)
    assert lake.pointers(MAIN) != before


def test_what_cannot_be_promoted_leaves_no_branch(settings: Settings, lake: BranchingCatalog) -> None:
    """A file that cannot be used may hold checks: nothing moves."""
    _write(settings, "totals", "1 / 0")
    before = lake.pointers(MAIN)
    with pytest.raises(CascadeError, match="its checks are unknown"):
        operations.drop_tables(settings, ["raw.events"])
    assert (lake.pointers(MAIN), _branches(lake)) == (before, [MAIN])


def test_a_refresh_is_about_tables_that_are_loaded(settings: Settings) -> None:
    definitions = build_definitions(settings)
    assert loaded_tables(definitions, None, ["raw.orders", "raw.x"]) == ["raw.orders"]
    assert loaded_tables(definitions, {dg.AssetKey(["raw", "events"])}, ["raw.orders", "raw.events"]) == ["raw.events"]


def test_a_plan_says_what_a_full_refresh_loads_and_what_nothing_makes(settings: Settings) -> None:
    _write(settings, "totals", None)
    put(open_catalog(settings), "fix", "raw.orders", [{"id": "x", "n": 1}])
    plan = operations.plan_run(settings, select=["raw/orders"], full_refresh=True)
    (orders,) = plan.assets
    assert (orders.asset, orders.missing, orders.why) == (
        "raw/orders",
        2,
        ("a full refresh makes it from the start",),
    )
    assert (plan.orphans, plan.conflicts) == (("marts.totals",), ("fix",))
    assert operations.plan_run(settings).up_to_date == ("raw/orders",)
