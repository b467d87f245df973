"""Jobs that do what `cascade run` does. Modules: `cascade_operations.jobs`."""

from collections.abc import Iterator

import dagster as dg
import pytest

from cascade.catalog import MAIN
from cascade.config import Settings
from cascade.framework.definitions import build_definitions, problems_of
from cascade.framework.instance import open_instance
from cascade.lakehouse import Lakehouse
from cascade_alerts.findings import run_findings
from support.projects import make_project

FILES = {
    "workflows/shop.py": '''\
"""Tables whose partitions are of two kinds, and jobs for them."""

from cascade import cascade_ingestion, pipeline_job, pipeline_schedule
from cascade.ingestion import static

LETTERS = static(["a", "b"])


@cascade_ingestion(unique_key="id", partitions=LETTERS, partition_column="id", group="shop")
def letters(partition_date: str):
    return [{"id": partition_date}]


@cascade_ingestion(unique_key="id", partitions=static(["1", "2", "3"]), partition_column="id", group="shop")
def digits(partition_date: str):
    return [{"id": partition_date}]


@cascade_ingestion(unique_key="id", partitions="none", max_retries=0)
def wrong():
    return [{"id": 1 / 0}]


shop = pipeline_job("shop", "group:shop")
nightly = pipeline_schedule("nightly", "0 5 * * *", ["letters", "digits"])
failing = pipeline_job("failing", "wrong")
''',
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    root = make_project(tmp_path_factory.mktemp("jobs") / "project", FILES)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield Settings(project_dir=root, schedules="running")


def execute(settings: Settings, name: str) -> dg.DagsterRun:
    """Run a job as Dagster does, and return the job's run."""
    job = build_definitions(settings).resolve_job_def(name)
    with open_instance(settings) as instance:
        done = job.execute_in_process(instance=instance, raise_on_error=False)
        run = instance.get_run_by_id(done.run_id)
    assert run is not None
    return run


def test_a_job_runs_assets_with_partitions_of_two_kinds_and_promotes_them(settings: Settings) -> None:
    assert execute(settings, "shop").status is dg.DagsterRunStatus.SUCCESS
    main = Lakehouse(settings, MAIN)
    rows = {
        name: main.query(f"select id from raw.{name} order by id")["id"].to_pylist() for name in ("letters", "digits")
    }
    assert rows == {"letters": ["a", "b"], "digits": ["1", "2", "3"]}
    before = main.catalog.pointers(MAIN)
    assert execute(settings, "nightly").status is dg.DagsterRunStatus.SUCCESS
    assert main.catalog.pointers(MAIN) == before


def test_what_fails_fails_the_job_and_people_are_told_by_the_run_that_failed(settings: Settings) -> None:
    run = execute(settings, "failing")
    assert run.status is dg.DagsterRunStatus.FAILURE
    with open_instance(settings) as instance:
        records = instance.get_run_records()
        found = [(record.dagster_run.run_id, run_findings(record, instance, settings)) for record in records]
        failures = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    assert ["division by zero" in str(entry.dagster_event) for entry in failures] == [True]
    told = [(run_id, problem.event) for run_id, one in found for problem in one.values() if problem]
    assert [event for _, event in told] == ["run_failed"]
    assert told[0][0] != run.run_id


def test_a_job_and_a_schedule_of_all_are_ready_and_off(settings: Settings) -> None:
    definitions = build_definitions(settings)
    assert problems_of(definitions).warnings == []  # no job is said not to promote
    ready = definitions.resolve_schedule_def("cascade_pipeline_schedule")
    assert (ready.job.name, ready.default_status.value) == ("cascade_pipeline", "STOPPED")
    assert definitions.resolve_schedule_def("nightly_schedule").default_status.value == "RUNNING"
