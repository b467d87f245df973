"""The promises of `cascade_operations.run`: what runs of a project leave behind, and what they say.

Modules: `cascade_operations.launch`, `cascade_operations.resume`, `cascade_operations.selection`,
`cascade_operations.watch`.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import dagster as dg
import pytest

from cascade.config import Settings
from cascade.errors import DefinitionError, UsageError
from cascade.framework.definitions import build_definitions, guards_of
from cascade.framework.instance import open_instance
from cascade.lakehouse import Lakehouse
from cascade.publish import promote_branch
from cascade_operations.branches import create_branch, delete_branch
from cascade_operations.events import AssetMaterialized, Event, NotLoaded, StepRetrying
from cascade_operations.records import RunReport
from cascade_operations.run import materialize, run_pipeline
from support.projects import Command, make_project

_WORKFLOW = '''\
"""A table whose rows are checked."""

import pandera.polars as pa
from cascade.ingestion import cascade_ingestion, none


class Guests(pa.DataFrameModel):
    """Who is expected."""

    id: int


@cascade_ingestion(unique_key="id", partitions=none(), validation_schema=Guests, max_retries=0)
def guests():
    """Two guests."""
    return [{"id": 1}, {"id": 2}]
'''

_BAD = '''\
"""Assets that fail, each in its own way."""

import json

import dagster as dg
import dlt
import pandera.polars as pa
from cascade.errors import ServiceError
from cascade.ingestion import cascade_ingestion, none

OPTIONS = {"unique_key": "id", "partitions": none(), "max_retries": 1, "retry_delay_seconds": 0.01}


@cascade_ingestion(**OPTIONS)
def wrong_key():
    return [{"id": 1}["idd"]]


@cascade_ingestion(**OPTIONS)
def wrong_key_in_dlt():
    @dlt.resource
    def rows():
        yield {"id": 1}["idd"]

    return rows()


@cascade_ingestion(**OPTIONS)
def source_away():
    raise RuntimeError("the source is away")


@dg.asset(key_prefix="raw")
def not_json():
    json.loads("{")


@dg.asset(key_prefix="raw")
def explained():
    try:
        wrong_key_of_mine()
    except NameError as error:
        raise ValueError("there is no rate for EUR") from error


@dg.asset(key_prefix="raw")
def server_away():
    try:
        raise OSError("connection refused")
    except OSError as error:
        raise ServiceError("Trino does not answer.", where="trino_url", fix="start it.") from error


@dg.asset(key_prefix="raw")
def server_still_away():
    raise ServiceError("Trino does not answer.", where="trino_url", fix="start it.")


@dg.asset(key_prefix="raw")
def own_words():
    raise dg.Failure("The shop is closed on Sundays.")


class Guests(pa.DataFrameModel):
    """Nobody is older than 150."""

    id: int
    age: int = pa.Field(le=150)


@cascade_ingestion(**OPTIONS, validation_schema=Guests)
def grim():
    return [{"id": 1, "age": 1985}]
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project of two files, and the working folder."""
    files = {"workflows/ingestion/guests.py": _WORKFLOW, "workflows/ingestion/bad.py": _BAD}
    root = make_project(tmp_path_factory.mktemp("project"), files)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield root


# --- the branch of a run ----------------------------------------------------------------------------------


def _by_command(settings: Settings) -> None:
    assert materialize(settings, ["guests"]).success


def _in_the_ui(settings: Settings) -> None:
    """As the UI materializes an asset: without a tag of ours."""
    key = dg.AssetKey(["raw", "guests"])
    job = build_definitions(settings).resolve_implicit_job_def_def_for_assets([key])
    assert job is not None
    with open_instance(settings) as instance:
        assert job.execute_in_process(instance=instance, asset_selection=[key]).success


def _by_a_run(settings: Settings) -> None:
    """On a branch that is named with what is run."""
    asked = settings.model_copy(update={"branch": "dev"})
    report = run_pipeline(asked, select=["guests"], branch=settings.branch)
    assert (report.success, report.branch, report.promotion) == (True, settings.branch, None)


@pytest.mark.parametrize(("branch", "write"), [("ada", _by_command), ("eve", _in_the_ui), ("fay", _by_a_run)])
def test_a_branch_is_promoted_by_somebody_whose_settings_name_another(
    branch: str, write: Callable[[Settings], None], project: Path
) -> None:
    write(Settings(project_dir=project, branch=branch))
    settings = Settings(project_dir=project, branch="ben")
    lake = Lakehouse(settings, "ben").catalog
    start = lake.log(limit=1)[0].id if lake.log(limit=1) else 0
    with open_instance(settings) as instance:
        entry = promote_branch(lake, branch, instance, guards_of(build_definitions(settings)))
    assert entry is not None
    assert [change.table for change in entry.changes] == ["raw.guests"]
    lake.restore(start)


def test_what_is_no_branch_is_not_written(project: Path) -> None:
    settings = Settings(project_dir=project)
    create_branch(settings, "v1", tag=True)
    for name, fix in (("v1", "cascade branch create NAME --from v1"), ("main", "`cascade run` without --branch")):
        for ask in (partial(run_pipeline, settings), partial(materialize, settings, ["guests"])):
            with pytest.raises(UsageError, match=f"Nothing was run on {name}") as refused:
                ask(branch=name)
            assert fix in refused.value.fix
    delete_branch(settings, "v1")


# --- what a failure says ----------------------------------------------------------------------------------


def _at(line: str) -> str:
    """Say where a line stands."""
    (number,) = [n for n, text in enumerate(_BAD.splitlines(), 1) if text.strip() == line]
    return f"\n  where: workflows/ingestion/bad.py:{number}"


FAILURES = {
    "wrong_key": "KeyError: 'idd'" + _at('return [{"id": 1}["idd"]]'),
    "wrong_key_in_dlt": "KeyError: 'idd'" + _at('yield {"id": 1}["idd"]'),
    "source_away": "RuntimeError: the source is away" + _at('raise RuntimeError("the source is away")'),
    "not_json": "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    + _at('json.loads("{")'),
    "explained": "ValueError: there is no rate for EUR"
    + _at('raise ValueError("there is no rate for EUR") from error'),
    "server_away": "Trino does not answer.\n  where: trino_url\n  fix: start it.",
    "server_still_away": "Trino does not answer.\n  where: trino_url\n  fix: start it.",
    "own_words": "The shop is closed on Sundays." + _at('raise dg.Failure("The shop is closed on Sundays.")'),
}


@pytest.fixture(scope="module")
def failed(project: Path) -> tuple[RunReport, list[Event]]:
    """A run in which everything fails, and what it told on its way."""
    told: list[Event] = []
    return materialize(Settings(project_dir=project), list(FAILURES), tell=told.append), told


@pytest.mark.parametrize("asset", FAILURES)
def test_a_failure_says_what_went_wrong_and_where(asset: str, failed: tuple[RunReport, list[Event]]) -> None:
    """The first error of ours, else the type, the text and the last line in the project."""
    why = FAILURES[asset]
    together = ", ".join(f"raw/{name}" for name, said in sorted(FAILURES.items()) if said == why)
    assert f"{together}: {why}" in failed[0].failures
    assert sum(why in failure for failure in failed[0].failures) == 1


def test_the_failure_in_dagster_names_the_line_too(project: Path, failed: tuple[RunReport, list[Event]]) -> None:
    with open_instance(Settings(project_dir=project)) as instance:
        entries = instance.all_logs(failed[0].run_ids[0], of_type=dg.DagsterEventType.STEP_FAILURE)
    events = {entry.step_key: entry.dagster_event for entry in entries}
    event = events["raw__wrong_key"]
    assert event is not None
    told = event.step_failure_data.user_failure_data
    assert told is not None
    assert told.description == "KeyError: 'idd'"
    line = _at('return [{"id": 1}["idd"]]').rpartition(":")[2]
    assert told.metadata["where"].value == f"{project}/workflows/ingestion/bad.py:{line}"


def test_only_what_a_repetition_may_mend_is_retried_and_the_reason_is_told(
    failed: tuple[RunReport, list[Event]],
) -> None:
    retried = [event for event in failed[1] if isinstance(event, StepRetrying)]
    assert retried == [StepRetrying("raw/source_away", "RuntimeError: the source is away")]


def test_the_summary_of_a_failure_says_it_once_and_names_the_run(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = Command(capsys)("materialize", "raw/grim")
    assert said.code == 1
    assert (said.out + said.err).count("less_than_or_equal_to(150)") == 1, said
    assert "FAILED: raw/grim contract\n" in said.out
    with open_instance(Settings(project_dir=project)) as instance:
        assert (
            f"Log: http://127.0.0.1:3000/runs/{instance.get_runs(limit=1)[0].run_id} (the UI: `cascade dev`)"
            in said.err
        )


_DESTROYS = '''\
from functools import partial
from pathlib import Path

import dagster as dg


@dg.asset(key_prefix="raw")
def destroys():
    """Breaks what Dagster keeps its events in."""
    for file in Path(".dagster").rglob("*.db"):
        file.write_bytes(b"no database" * 1000)
'''


def test_when_dagsters_storage_is_gone_the_summary_is_printed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(make_project(tmp_path / "project", {"workflows/destroys.py": _DESTROYS}))
    said = Command(capsys)("run", "--select", "destroys", "--no-promote")
    assert said.code == 1
    assert "The run failed: main is unchanged and nothing was written." in said.err
    assert "DatabaseError" in said.err
    assert "Traceback" not in said.err


# --- what cannot be promoted ------------------------------------------------------------------------------

_MARK = """
import dagster as dg
from functools import partial
from pathlib import Path

@dg.asset
def mark():
    Path("ran").touch()
"""


@pytest.fixture
def torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A project with a good file and a broken one."""
    files = {"workflows/good.py": _MARK, "workflows/broken.py": "import nowhere"}
    monkeypatch.chdir(make_project(tmp_path, files))
    return Settings(project_dir=Path.cwd())


def test_a_run_that_could_not_be_promoted_is_refused_before_it_begins(torn: Settings) -> None:
    with pytest.raises(DefinitionError) as refused:
        run_pipeline(torn)
    assert "workflows/broken.py:1: ModuleNotFoundError: No module named 'nowhere'" in refused.value.what
    assert str(refused.value).count("fix:") == 1
    assert "--no-promote" in refused.value.fix
    assert not (torn.project_dir / "ran").exists()


def test_what_is_not_promoted_runs_and_names_what_is_missing(torn: Settings) -> None:
    said: list[Event] = []
    done = run_pipeline(torn, promote=False, tell=said.append)
    assert done.success, done.failures
    assert (torn.project_dir / "ran").exists()
    (missing,) = [event for event in said if isinstance(event, NotLoaded)]
    assert missing.problem.startswith("workflows/broken.py:1: ")


# --- which partitions -------------------------------------------------------------------------------------

_RHYTHMS = """
import dagster as dg

def noted(context):
    with open("order.txt", "a") as file:
        file.write(context.asset_key.path[-1] + " ")

@dg.asset(partitions_def=dg.HourlyPartitionsDefinition("2024-01-01-00:00", end_date="2024-01-03-00:00"))
def hours(context) -> None: noted(context)

@dg.asset(deps=[hours])
def between(context) -> None: noted(context)

@dg.asset(partitions_def=dg.MonthlyPartitionsDefinition("2024-01-01", end_date="2024-02-01"), deps=[between])
def amounts(context) -> None: noted(context)

@dg.asset(deps=[amounts])
def after(context) -> None: noted(context)

@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["nl"]))
def lands() -> None: ...
"""


@pytest.fixture
def rhythms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Assets whose partitions are of three kinds."""
    monkeypatch.chdir(make_project(tmp_path, {"workflows/all.py": _RHYTHMS}))
    return Settings(project_dir=Path.cwd())


def test_a_time_means_the_partitions_of_each_kind_and_what_is_read_comes_first(rhythms: Settings) -> None:
    report = run_pipeline(rhythms, select=["+after"], partition="2024-01", promote=False)
    assert report.failures == ()
    assert report.partitions == {"amounts": "2024-01-01", "hours": "2024-01-01-00:00..2024-01-02-23:00"}
    order = Path("order.txt").read_text("utf-8").split()
    assert list(dict.fromkeys(order)) == ["hours", "between", "amounts", "after"]


def test_a_partition_that_only_some_assets_have_names_them(rhythms: Settings) -> None:
    with pytest.raises(UsageError, match=r"There is no partition '2024-01-02'") as refused:
        run_pipeline(rhythms, partition="2024-01-02", promote=False)
    assert refused.value.where.startswith("amounts, ")
    assert refused.value.fix.startswith("2024-01-02 lies in partition 2024-01-01; ")
    assert refused.value.fix.endswith("; or run only those that have it: --select hours.")


_RANGE = """
from cascade.ingestion import cascade_ingestion, daily

@cascade_ingestion(unique_key="id", partitions=daily(start="2024-01-01", end="2024-01-03"))
def days(partition_date: str):
    return [{"id": partition_date}]
"""


def test_a_load_of_a_range_is_told_once_with_the_rows_of_all_its_partitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster has an event for each partition, and only the last one tells of the whole load."""
    monkeypatch.chdir(make_project(tmp_path, {"workflows/days.py": _RANGE}))
    said: list[Event] = []
    report = run_pipeline(Settings(project_dir=Path.cwd()), tell=said.append)
    assert said.count(AssetMaterialized("raw/days", 3)) == 1
    assert report.assets[0].load is not None
    assert report.assets[0].load.extracted == 3


# --- nothing new ------------------------------------------------------------------------------------------

_ONCE = """
from functools import partial
from pathlib import Path
from cascade.ingestion import cascade_ingestion, none

@cascade_ingestion(unique_key="id", partitions=none(), freshness_hours=(1, 2))
def guests():
    return [] if Path("asked").exists() else [{"id": 1}]
"""


def test_a_source_with_nothing_new_promotes_nothing_and_was_looked_at_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Freshness of a table without partitions counts from the last look: see `freshness_hours`."""
    monkeypatch.chdir(make_project(tmp_path, {"workflows/guests.py": _ONCE}))
    settings = Settings(project_dir=Path.cwd())
    first = run_pipeline(settings)
    assert first.promotion is not None
    Path("asked").touch()
    said = Command(capsys)("run")
    assert said.code == 0
    assert (
        said.out
        == "\nRows per step\n  raw/guests                  1  (nothing new)\n\n"
        + "There is nothing new; main is unchanged.\n"
    )
    (move,) = Lakehouse(settings, "main").catalog.log()
    assert move.id == first.promotion.id
    with open_instance(settings) as instance:
        looked = instance.get_latest_materialization_event(dg.AssetKey(["raw", "guests"]))
    assert looked is not None
    assert looked.run_id not in first.run_ids


# --- what a failure stops ---------------------------------------------------------------------------------

_STOPPED = '''\
"""Two assets with partitions of two kinds, and a check that refuses what one of them loads."""

from cascade.ingestion import cascade_ingestion, static
from cascade.quality import cascade_quality


@cascade_ingestion(unique_key="id", partitions=static(["a"]), partition_column="part")
def away(partition_date: str):
    return [{"id": 1}["number"]]


@cascade_ingestion(unique_key="id", partitions=static(["b"]), partition_column="part")
def there(partition_date: str):
    return [{"id": 1, "part": "b"}]


@cascade_quality(asset="raw/there")
def never() -> bool:
    """Nothing is good enough."""
    return False
'''


def test_a_failure_stops_neither_partitions_of_another_kind_nor_does_resuming_help_what_a_check_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_project(tmp_path, {"workflows/rhythms.py": _STOPPED}))
    settings = Settings(project_dir=tmp_path)
    report = run_pipeline(settings)
    assert [done.asset for done in report.assets] == ["raw/there"]
    assert report.failures[0].startswith("raw/away: KeyError: 'number'")
    with pytest.raises(UsageError, match="would not be loaded again: `never` of raw/there"):
        run_pipeline(settings, resume=report.branch)
    for name in ("main", "run-00000000"):
        with pytest.raises(UsageError, match=rf"(?s)`{name}` is not the branch of a run.*name one of {report.branch}"):
            run_pipeline(settings, resume=name)
