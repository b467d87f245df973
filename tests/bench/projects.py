"""Cases: whole projects. Start-up, many tables, a long history, many partitions, and the example."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from measuring import OURS, Work, case

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
DAGSTER, PYTHON = "bare Dagster", "bare Python"

STARTUP, IMPORT = "cascade --help", "import cascade"
DEFINITIONS, VALIDATE, ONE = "definitions", "cascade validate", "cascade run --select, one table of many"
PROMOTE, GATE = "gate and promotion of one table", "gate of a check that has not run"
PARTITIONS, EXAMPLE = "Dagster's overhead of 10 assets in one run", "the example's backfill, imports taken out"
AGAIN = "the example again, nothing to do"

_ONCE = ("run", (1,), (1,))
_TABLES = ("tables", (10, 100, 1_000), (10, 100))
_HISTORY = ("runs before", (10, 100, 1_000), (10, 100))
_PARTITIONS = ("partitions", (10, 100, 365), (10, 100))
# What a command of the example imports.
_IMPORTS = "import dagster, dagster_dbt, dlt.sources.filesystem, pandera.polars, duckdb, pyiceberg.catalog.sql"

_MANY = """
from cascade.ingestion import cascade_ingestion, none
from cascade.quality import cascade_quality, not_null

def _table(number):
    @cascade_ingestion(table_name=f"t{number}", unique_key="id", partitions=none())
    def load():
        return [{"id": n} for n in range(10)]
    return load

tables = [_table(number) for number in range(COUNT)]
checks = [cascade_quality(asset=f"raw/t{number}", checks=[not_null("id")], blocking=True) for number in range(COUNT)]
"""
_PLAIN = """
import dagster as dg

def _table(number):
    @dg.asset(key=["raw", f"t{number}"])
    def load(): ...
    return load

def _check(number):
    @dg.asset_check(asset=dg.AssetKey(["raw", f"t{number}"]), name="not_null_id", blocking=True)
    def check(): ...
    return check

numbers = range(COUNT)
defs = dg.Definitions(assets=[*map(_table, numbers)], asset_checks=[*map(_check, numbers)])
defs.get_repository_def()
"""
_OURS = """
from cascade.config import load_settings
from cascade.framework.definitions import build_definitions
build_definitions(load_settings())
"""


def _command(*command: str, folder: Path | None = None) -> Callable[[], None]:
    """Return a function that runs a command and shows what it says only if it fails."""

    def run() -> None:
        done = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")

    return run


def _python(code: str, folder: Path | None = None) -> Callable[[], None]:
    return _command("python", "-W", "ignore", "-c", code, folder=folder)


def _project(folder: Path, tables: int) -> Path:
    """Write a project of so many tables, each with a check."""
    (folder / "workflows").mkdir(parents=True)
    (folder / "pyproject.toml").write_text("[tool.cascade]\n")
    (folder / "dagster.yaml").write_text((REPOSITORY / "template" / "dagster.yaml").read_text())
    (folder / "workflows" / "many.py").write_text(_MANY.replace("COUNT", str(tables)))
    return folder


@case(IMPORT, PYTHON, *_ONCE)
def import_python(folder: Path, _: int) -> Iterator[Work]:
    yield Work(_python("pass"), times=5)


@case(IMPORT, OURS, *_ONCE, bare=PYTHON)
def import_ours(folder: Path, _: int) -> Iterator[Work]:
    yield Work(_python("import cascade"), times=5)


@case(STARTUP, OURS, *_ONCE)
def help_ours(folder: Path, _: int) -> Iterator[Work]:
    yield Work(_command("cascade", "--help"), times=5)


@case(DEFINITIONS, DAGSTER, *_TABLES)
def definitions_dagster(folder: Path, tables: int) -> Iterator[Work]:
    yield Work(_python(_PLAIN.replace("COUNT", str(tables))), times=2)


@case(DEFINITIONS, OURS, *_TABLES, bare=DAGSTER)
def definitions_ours(folder: Path, tables: int) -> Iterator[Work]:
    yield Work(_python(_OURS, _project(folder / "project", tables)), times=2)


@case(VALIDATE, OURS, *_TABLES)
def validate_ours(folder: Path, tables: int) -> Iterator[Work]:
    yield Work(_command("cascade", "validate", folder=_project(folder / "project", tables)))


@case(ONE, OURS, *_TABLES)
def one_ours(folder: Path, tables: int) -> Iterator[Work]:
    run = _command("cascade", "run", "--select", "raw/t0", folder=_project(folder / "project", tables))
    run()
    yield Work(run)


@case(PROMOTE, OURS, *_TABLES)
def promote_ours(folder: Path, tables: int) -> Iterator[Work]:
    gate = _Gate(folder, tables)
    gate.promote(runs=1)
    yield Work(lambda: gate.promote(runs=10), number=10)


@case(f"{PROMOTE}, by history", OURS, *_HISTORY)
def promote_late_ours(folder: Path, runs: int) -> Iterator[Work]:
    gate = _Gate(folder, 10)
    gate.remember(runs)
    gate.promote(runs=1)
    yield Work(lambda: gate.promote(runs=10), number=10)


@case(GATE, OURS, *_HISTORY)
def gate_ours(folder: Path, runs: int) -> Iterator[Work]:
    gate = _Gate(folder, 10)
    gate.remember(runs)
    gate.write("unchecked")
    gate.refused("unchecked")
    yield Work(lambda: [gate.refused("unchecked") for _ in range(10)], number=10)


class _Gate:
    """A lakehouse of many tables with Dagster's storage beside it."""

    def __init__(self, folder: Path, tables: int) -> None:
        import dagster as dg
        import sqlalchemy as sa

        from cascade.config import Settings
        from cascade.framework.instance import open_instance
        from cascade.lakehouse import Lakehouse
        from cascade.publish import Guards

        self.dg, self.settings = dg, Settings(project_dir=_project(folder / "project", tables))
        self.catalog: Any = Lakehouse(self.settings, "setup").catalog
        self.instance = open_instance(self.settings).__enter__()  # until the process ends
        keys = [dg.AssetKey(["raw", f"t{number}"]) for number in range(tables)]
        self.key, self.check = keys[0], dg.AssetCheckKey(keys[0], "good")
        self.guards = Guards({key: [dg.AssetCheckKey(key, "good")] for key in keys})
        self.write("setup")
        location = self.catalog.pointers("setup")["raw.t0"]
        with self.catalog.database.engine.begin() as connection:  # the others are not opened by what is measured
            columns = ("catalog_name", "table_namespace", "table_name", "metadata_location", "iceberg_type")
            insert = f"insert into iceberg_tables ({', '.join(columns)}) values (:{', :'.join(columns)})"
            rows = [("setup", "raw", f"t{number}", location, "TABLE") for number in range(1, tables)]
            if rows:
                connection.execute(sa.text(insert), [dict(zip(columns, row, strict=True)) for row in rows])
        self.catalog.merge("setup")

    def write(self, branch: str) -> int:
        """Write to one table of a branch, and return the snapshot."""
        from support.lakes import put

        return put(self.catalog, branch, "raw.t0", [{"id": 1}]).snapshot_id

    def promote(self, runs: int) -> None:
        """Write, check and promote so many times."""
        from cascade.publish import promote_branch

        for number in range(runs):
            branch = f"run-{number:08x}"
            self.tell(branch, self.write(branch))
            if promote_branch(self.catalog, branch, self.instance, self.guards) is None:
                sys.exit("Nothing was promoted.")

    def refused(self, branch: str) -> None:
        """Try to promote what no check has looked at."""
        from cascade.errors import PromotionRefusedError
        from cascade.publish import promote_branch

        try:
            promote_branch(self.catalog, branch, self.instance, self.guards)
        except PromotionRefusedError:
            return
        sys.exit("It was promoted.")

    def remember(self, runs: int) -> None:
        """Let Dagster know so many runs on other branches that checked the table, one each hour of the past."""
        import sqlalchemy as sa

        for number in range(runs):
            self.tell(f"run-{number:08x}", number)
        storages = (
            ("asset_check_executions", self.instance.event_log_storage.index_connection()),
            ("runs", self.instance.run_storage.connect()),
        )
        for table, opened in storages:
            times = ("create_timestamp", "update_timestamp") if table == "runs" else ("create_timestamp",)
            earlier = ", ".join(f"{time} = datetime({time}, '-' || ({runs + 2} - id) || ' hours')" for time in times)
            with opened as connection:
                connection.execute(sa.text(f"update {table} set {earlier}"))

    def tell(self, branch: str, snapshot_id: int) -> None:
        """Let Dagster know a run that checked a snapshot of the table."""
        from cascade.evidence import snapshot_evidence
        from cascade.names import BRANCH_TAG

        dg, run = self.dg, self.instance.create_run_for_job(_job(), tags={BRANCH_TAG: branch})
        evaluation = dg.AssetCheckEvaluation(
            asset_key=self.key,
            check_name="good",
            passed=True,
            blocking=True,
            metadata=snapshot_evidence(snapshot_id, branch),
        )
        from dagster._core.events import DagsterEvent, DagsterEventType

        event = DagsterEvent(
            DagsterEventType.ASSET_CHECK_EVALUATION.value, "bench", event_specific_data=evaluation, step_key="check"
        )
        self.instance.report_dagster_event(event, run.run_id)


def _job() -> Any:
    import dagster as dg

    @dg.job
    def bench() -> None: ...

    return bench


@case(PARTITIONS, DAGSTER, *_PARTITIONS)
def partitions_dagster(folder: Path, partitions: int) -> Iterator[Work]:
    import dagster as dg

    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        yield from _ranges(instance, partitions)


@case(PARTITIONS, OURS, *_PARTITIONS, bare=DAGSTER)
def partitions_ours(folder: Path, partitions: int) -> Iterator[Work]:
    from cascade.config import Settings
    from cascade.framework.instance import open_instance

    with open_instance(Settings(project_dir=_project(folder / "project", 1))) as instance:
        yield from _ranges(instance, partitions)


def _ranges(instance: Any, partitions: int) -> Iterator[Work]:
    """Run ten assets that do nothing over a range of partitions."""
    import dagster as dg

    days = dg.DailyPartitionsDefinition("2013-01-01", end_date="2014-01-02")
    policy = dg.BackfillPolicy.single_run()

    def asset(number: int) -> dg.AssetsDefinition:
        @dg.asset(name=f"a{number}", partitions_def=days, backfill_policy=policy)
        def nothing() -> None: ...

        return nothing

    assets = [asset(number) for number in range(10)]
    job = dg.Definitions(assets=assets, executor=dg.in_process_executor).resolve_implicit_global_asset_job_def()

    def run(last: str) -> None:
        tags = {"dagster/asset_partition_range_start": "2013-01-01", "dagster/asset_partition_range_end": last}
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        if not job.execute_in_process(instance=instance, tags=tags, run_config=quiet).success:
            sys.exit("The run failed.")

    run("2013-01-01")
    yield Work(lambda: run(days.get_partition_keys()[partitions - 1]))


@case(EXAMPLE, OURS, "days", (7, 91, 364), (7, 364))
def example_ours(folder: Path, days: int) -> Iterator[Work]:
    project = _example(folder)
    last = _days("2013-01-01", days)[-1]
    run = _command("cascade", "run", "--partition", f"2013-01-01..{last}", folder=project)
    yield Work(run, making=_python(_IMPORTS))


@case(AGAIN, OURS, *_ONCE)
def example_again_ours(folder: Path, _: int) -> Iterator[Work]:
    run = _command("cascade", "run", folder=_example(folder))
    run()
    yield Work(run, making=_python(_IMPORTS), times=2)


def _example(folder: Path) -> Path:
    project = folder / "example"
    _command("copier", "copy", "--quiet", "--defaults", "--vcs-ref", "HEAD", str(REPOSITORY), str(project))()
    return project


def _days(first: str, number: int) -> Sequence[str]:
    import datetime as dt

    begin = dt.date.fromisoformat(first)
    return [str(begin + dt.timedelta(days=n)) for n in range(number)]
