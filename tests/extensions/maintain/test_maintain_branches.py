"""The promises of the janitor: which branches it drops, and which it leaves."""

import datetime as dt
import os
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.utils import make_new_run_id

from cascade.catalog import MAIN, BranchingCatalog
from cascade.config import Settings, build_settings
from cascade.engine import engine_of
from cascade.errors import CatalogError
from cascade.names import BRANCH_TAG
from cascade_maintain.branches import Cleaning, clean_branches, unfinished_since
from cascade_maintain.job import build_maintenance
from support.lakes import ids, numbers, promoted, put

AGE = dt.timedelta(days=7)
Status = dg.DagsterRunStatus


class Janitor:
    """A lakehouse, Dagster beside it, and a janitor that comes when the time has come."""

    def __init__(self, lake: BranchingCatalog, folder: Path) -> None:
        self.catalog = lake
        self.settings = Settings(project_dir=folder, data_dir=folder)
        self.instance = dg.DagsterInstance.ephemeral(tempdir=str(folder))

    def run(
        self, status: dg.DagsterRunStatus, *, branch: str = "", root: str = "", tags: dict[str, str] | None = None
    ) -> str:
        """Let Dagster know of a run, and return its id."""
        tagged = {**(tags or {}), **({BRANCH_TAG: branch} if branch else {})}
        tagged |= {"dagster/root_run_id": root} if root else {}
        run_id = make_new_run_id()
        again = {"root_run_id": root, "parent_run_id": root} if root else {}
        self.instance.add_run(dg.DagsterRun("all", run_id=run_id, status=status, tags=tagged, **again))
        return run_id

    def clean(self, *, days: float = 8, **options: object) -> Cleaning:
        """Clean up some days from now."""
        now = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
        return clean_branches(
            self.catalog,
            self.settings,
            self.instance,
            older_than=AGE,
            now=now,
            **options,  # type: ignore[arg-type]
        )


@pytest.fixture
def janitor(lake: BranchingCatalog, tmp_path: Path) -> Janitor:
    return Janitor(lake, tmp_path)


def names(lake: BranchingCatalog) -> set[str]:
    return {branch.name for branch in lake.branches()}


@pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILURE, Status.CANCELED])
def test_the_branch_of_a_run_that_ended_long_ago_goes(janitor: Janitor, status: dg.DagsterRunStatus) -> None:
    run_id = janitor.run(status)
    branch = f"run-{run_id[:8]}"
    put(janitor.catalog, branch, "raw.a", numbers(1, 1))
    assert list(janitor.clean(days=6).left) == [branch]
    assert "its run ended" in janitor.clean().removed[branch]
    assert names(janitor.catalog) == {MAIN}


@pytest.mark.parametrize("status", [Status.STARTED, Status.STARTING, Status.NOT_STARTED, Status.CANCELING])
def test_the_branch_of_a_run_that_goes_on_stays_however_old(janitor: Janitor, status: dg.DagsterRunStatus) -> None:
    run_id = janitor.run(status)
    janitor.catalog.create(f"run-{run_id[:8]}")
    cleaning = janitor.clean(days=400)
    assert (cleaning.removed, status.value in cleaning.left[f"run-{run_id[:8]}"]) == ({}, True)


def test_a_run_is_found_by_the_tag_that_names_its_branch(janitor: Janitor) -> None:
    janitor.catalog.create("run-00000000")
    run_id = janitor.run(Status.STARTED, branch="run-00000000")
    assert run_id in janitor.clean(days=400).left["run-00000000"]


def test_a_reexecution_that_goes_on_keeps_the_branch_of_the_first_run(janitor: Janitor) -> None:
    root = janitor.run(Status.FAILURE)
    janitor.catalog.create(f"run-{root[:8]}")
    again = janitor.run(Status.STARTED, root=root)
    assert again in janitor.clean(days=400).left[f"run-{root[:8]}"]


def test_the_branch_of_a_backfill_goes_when_backfill_and_runs_have_ended(janitor: Janitor) -> None:
    janitor.catalog.create("run-abcdefgh")
    backfill = PartitionBackfill(
        backfill_id="abcdefgh",
        status=BulkActionStatus.REQUESTED,
        from_failure=False,
        tags={},
        backfill_timestamp=dt.datetime.now(dt.UTC).timestamp(),
    )
    janitor.instance.add_backfill(backfill)
    assert "backfill" in janitor.clean(days=400).left["run-abcdefgh"]
    janitor.instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_FAILED))
    run_id = janitor.run(Status.STARTED, tags={"dagster/backfill": "abcdefgh"})
    assert run_id in janitor.clean(days=400).left["run-abcdefgh"]
    janitor.instance.report_run_canceled(janitor.instance.get_run_by_id(run_id))
    assert list(janitor.clean(days=400).removed) == ["run-abcdefgh"]


def test_a_branch_whose_run_nobody_knows_stays_four_times_as_long(janitor: Janitor) -> None:
    """Its run may go on elsewhere, on a machine with a Dagster of its own."""
    janitor.catalog.create("run-0123abcd")
    assert "not known" in janitor.clean(days=27).left["run-0123abcd"]
    assert list(janitor.clean(days=29).removed) == ["run-0123abcd"]


def test_main_tags_and_branches_of_people_stay(janitor: Janitor) -> None:
    promoted(janitor.catalog, "raw.a", numbers(1, 1))
    for name in ("dev", "fix-july", "run-july", "running"):
        janitor.catalog.create(name)
    janitor.catalog.tag("run-1a2b3c4d")
    cleaning = janitor.clean(days=4000)
    assert (cleaning.removed, cleaning.left) == ({}, {"run-july": "a user created it"})
    assert names(janitor.catalog) == {MAIN, "dev", "fix-july", "run-july", "run-1a2b3c4d", "running"}


def test_a_dry_run_drops_nothing_and_says_what_would_be(janitor: Janitor) -> None:
    branch = f"run-{janitor.run(Status.FAILURE)[:8]}"
    janitor.catalog.create(branch)
    dry = janitor.clean(dry_run=True)
    assert branch in names(janitor.catalog)
    assert janitor.clean().removed == dry.removed


def test_the_age_is_that_of_the_last_write(janitor: Janitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch may be old and still be worked on."""
    branch = f"run-{janitor.run(Status.FAILURE)[:8]}"
    put(janitor.catalog, branch, "raw.a", numbers(1, 1))
    late = dt.datetime.now(dt.UTC) + dt.timedelta(days=7)
    monkeypatch.setattr("cascade_maintain.branches.write_times", lambda lake, branch: [late])
    assert "24 hours ago" in janitor.clean().left[branch]


def test_what_the_engine_keeps_goes_too_and_its_failure_is_reported(
    janitor: Janitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that does not answer keeps nobody from dropping branches."""
    branch = f"run-{janitor.run(Status.FAILURE)[:8]}"
    janitor.catalog.create(branch)
    engine = engine_of(janitor.catalog.settings)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "drop_leftovers", lambda _: ["catalog run_1"])
        assert janitor.clean(dry_run=True).leftovers == ()
        assert janitor.clean(days=1).leftovers == ("catalog run_1",)

    def refuse(*_: object) -> None:
        raise CatalogError("Trino does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr("cascade_maintain.branches.delete_branch", refuse)
        cleaning = janitor.clean()
        assert "Trino does not answer" in cleaning.left[branch]
        assert cleaning.problems == (f"{branch}: Trino does not answer.",)
    monkeypatch.setattr(engine, "drop_leftovers", refuse)
    cleaning = janitor.clean()
    assert (list(cleaning.removed), cleaning.problems) == ([branch], ("Trino does not answer.",))


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_stay(janitor: Janitor) -> None:
    data = janitor.settings.data_path
    dead, alive, unknown = janitor.run(Status.FAILURE), janitor.run(Status.STARTED), "somebody"
    for name in (dead, alive, unknown):
        (data / "dbt" / "runs" / name).mkdir(parents=True)
        (data / "dbt" / "runs" / name / "manifest.json").write_text("{}")
    (data / "tmp").mkdir()
    (data / "tmp" / "duckdb_temp_storage-0.tmp").write_text("x")
    (data / "published.new").write_text("x")
    (data / "published.duckdb").write_text("x")
    assert janitor.clean(days=6).leftovers == ()
    expected = sorted([f"dbt/runs/{dead}", f"dbt/runs/{unknown}", "published.new", "tmp/duckdb_temp_storage-0.tmp"])
    assert sorted(janitor.clean(dry_run=True).leftovers) == expected
    assert sorted(janitor.clean().leftovers) == expected
    assert os.listdir(data / "dbt" / "runs") == [alive]
    assert (data / "published.duckdb").exists()
    assert janitor.clean().leftovers == ()


def test_the_oldest_run_that_may_still_write_is_known(janitor: Janitor) -> None:
    assert unfinished_since(janitor.instance) is None
    janitor.run(Status.SUCCESS)
    assert unfinished_since(janitor.instance) is None
    run_id = janitor.run(Status.STARTED)
    since = unfinished_since(janitor.instance)
    assert since is not None
    assert since < dt.datetime.now(dt.UTC) - dt.timedelta(minutes=9)
    assert unfinished_since(janitor.instance, but=run_id) is None


def test_the_job_does_both(janitor: Janitor) -> None:
    """Its schedule is stopped until somebody turns it on."""
    from cascade.lakehouse import Lakehouse

    settings = janitor.catalog.settings
    schedule = build_maintenance(settings)
    assert (schedule.name, schedule.default_status) == (
        "cascade_maintenance_schedule",
        dg.DefaultScheduleStatus.STOPPED,
    )
    promoted(janitor.catalog, "raw.a", numbers(1, 1))
    branch = f"run-{janitor.run(Status.FAILURE)[:8]}"
    put(janitor.catalog, branch, "raw.b", numbers(1, 1))
    resources = {"lakehouse": Lakehouse(settings, "dev")}
    job = dg.Definitions(jobs=[schedule.job], resources=resources).resolve_job_def("cascade_maintenance")
    ages = {"ops": {"maintain": {"config": {"branches": "0d", "files": "0d", "history": "0d"}}}}
    assert job.execute_in_process(instance=janitor.instance, run_config=ages).success
    assert names(janitor.catalog) == {MAIN}
    assert ids(janitor.catalog, MAIN, "raw.a") == [1]


@pytest.mark.parametrize("on", [False, True])
def test_the_lake_is_cleaned_every_night_where_the_setting_says_so(tmp_path: Path, on: bool) -> None:
    """In containers it does: nobody looks at branches of failed runs there."""
    schedule = build_maintenance(build_settings(tmp_path, {"maintain.nightly": on}))
    assert (schedule.default_status is dg.DefaultScheduleStatus.RUNNING) is on
