"""Dagster's storage moves to PostgreSQL by a setting alone, in every process that opens it."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
from dagster_postgres import PostgresEventLogStorage
from dagster_shared.serdes import serialize_value

from cascade.config import Settings, load_settings
from cascade.errors import ConfigurationError, ServiceError
from cascade.framework.instance import open_instance
from cascade_embedded.storage import SqliteEvents
from cascade_operations.run import run_pipeline
from cascade_servers.postgres import server
from cascade_servers.postgres import storage as postgres_storage
from support.marts import in_background
from support.partition_events import told
from support.postgres import Postgres

ROOT = Path(__file__).resolve().parents[2]


@dg.asset
def thing() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"n": 1})


# A process of Dagster that knows nothing of Cascade: what it opens is what `dagster.yaml` names. It runs a hundred
# partitions of an asset with a check, and prints how many statements changed the database.
_RANGE = """
import sys
import dagster as dg
import sqlalchemy as sa
from dagster._core.instance.ref import InstanceRef

days = dg.DailyPartitionsDefinition("2024-01-01", end_date="2025-01-01")
policy = dg.BackfillPolicy.single_run()

@dg.asset(partitions_def=days, backfill_policy=policy, check_specs=[dg.AssetCheckSpec("good", asset="daily")])
def daily():
    yield dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])

changes = []

def see(connection, cursor, sql, values, context, many):
    if sql.startswith(("INSERT", "UPDATE")):
        changes.append(sql)

assert not [name for name in sys.modules if name.startswith("cascade")]
with dg.DagsterInstance.from_ref(InstanceRef.from_dir(".")) as instance:
    sa.event.listen(sa.Engine, "before_cursor_execute", see)
    job = dg.Definitions(assets=[daily]).resolve_implicit_global_asset_job_def()
    first, last = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
    assert job.execute_in_process(instance=instance, tags={first: "2024-01-01", last: "2024-04-09"}).success
    assert len(instance.get_materialized_partitions(daily.key)) == 100
    check = dg.AssetCheckKey(daily.key, "good")
    [once] = instance.event_log_storage.get_asset_check_execution_history(check, limit=1000)
    assert (once.partition, once.evaluation.passed) == (None, True)
print(len(changes))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the template's `dagster.yaml`."""
    for name in [n for n in os.environ if n.startswith(("CASCADE_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
    shutil.copy(ROOT / "template" / "dagster.yaml", tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.cascade]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def on_postgres(project: Path, postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """The same project, with the setting; and a database without tables."""
    monkeypatch.setenv("CASCADE_DAGSTER_URL", postgres_server.url("cascade_dagster"))
    yield load_settings()
    with postgres_server.connect(database="dagster") as superuser:
        superuser.execute("DROP OWNED BY cascade_dagster")
    postgres_server.make_roles()


def materialized(instance: dg.DagsterInstance) -> int:
    return len(instance.fetch_materializations(thing.key, limit=100).records)


def test_without_the_setting_it_is_sqlite_below_the_project(project: Path) -> None:
    with open_instance(load_settings()) as instance:
        assert type(instance.event_log_storage) is SqliteEvents
        assert dg.materialize([thing], instance=instance).success
        assert materialized(instance) == 1
    assert (project / ".dagster" / "history" / "runs" / "index.db").is_file()


@pytest.mark.parametrize("storage", ["sqlite", "postgresql"])
def test_what_a_run_tells_of_many_partitions_is_stored_at_once(
    project: Path, storage: str, request: pytest.FixtureRequest
) -> None:
    """In each process that Dagster starts, the daemon's and those of the UI: the instance brings it."""
    if storage == "postgresql":
        request.getfixturevalue("on_postgres")
    command = [sys.executable, "-W", "ignore", "-c", _RANGE]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100


def test_events_that_postgresql_stores_at_once_say_what_single_ones_say(
    on_postgres: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as singly, dg.instance_for_test() as dagsters_own:
        singly.setenv("DAGSTER_EVENT_BATCH_SIZE", "0")
        expected = told(dagsters_own)
    with open_instance(on_postgres) as instance:
        assert isinstance(instance.event_log_storage, postgres_storage.PostgresEvents)
        assert told(instance) == expected


def test_sqlite_closes_files_of_runs_that_are_over(project: Path) -> None:
    with open_instance(load_settings()) as instance:
        for _ in range(12):
            dg.materialize([thing], instance=instance)
        assert materialized(instance) == 12
        events = instance.event_log_storage
        assert isinstance(events, SqliteEvents)
        assert len(events._engines) <= 8
        assert all(len(instance.all_logs(run.run_id)) > 5 for run in instance.get_runs())


def test_with_the_setting_it_is_postgresql_in_this_process_and_in_others(
    project: Path, on_postgres: Settings, postgres_server: Postgres
) -> None:
    with open_instance(on_postgres) as instance:
        assert isinstance(instance.event_log_storage, PostgresEventLogStorage)
        assert dg.materialize([thing], instance=instance).success
        # As a run of the UI does: another process, given the reference to the instance.
        script = (
            "import sys, dagster as dg\n"
            "from dagster._core.instance.ref import InstanceRef\n"
            "from dagster_shared.serdes import deserialize_value\n"
            "with dg.DagsterInstance.from_ref(deserialize_value(sys.stdin.read(), InstanceRef)) as instance:\n"
            "    print(len(instance.get_runs()), type(instance.event_log_storage).__name__)\n"
        )
        reference = serialize_value(instance.get_ref())
        done = subprocess.run([sys.executable, "-c", script], input=reference, capture_output=True, text=True)
        assert done.stdout.split() == ["1", "PostgresEvents"], done.stderr
        assert postgres_server.passwords["POSTGRES_DAGSTER_PASSWORD"] not in reference
    with open_instance(on_postgres) as instance:
        assert materialized(instance) == 1
    assert not (project / ".dagster" / "history").exists()


def test_dagster_commands_open_the_same_storage(on_postgres: Settings) -> None:
    with open_instance(on_postgres) as instance:
        run_id = dg.materialize([thing], instance=instance).run_id
    command = [str(Path(sys.executable).with_name("dagster")), "run", "list"]
    shown = subprocess.run(command, env={**os.environ, "DAGSTER_HOME": os.getcwd()}, capture_output=True, text=True)
    assert run_id in shown.stdout, shown.stderr


def test_processes_that_open_it_first_make_its_tables_once(on_postgres: Settings) -> None:
    def open_it() -> int:
        with dg.DagsterInstance.from_ref(InstanceRef.from_dir(os.getcwd())) as instance:
            return len(instance.get_runs())

    assert [wait() for wait in [in_background(open_it) for _ in range(4)]] == [0] * 4


def test_a_server_that_restarted_is_used_again(on_postgres: Settings, postgres_server: Postgres) -> None:
    with open_instance(on_postgres) as instance:
        dg.materialize([thing], instance=instance)
        postgres_server.server.restart()
        assert dg.materialize([thing], instance=instance).success
        assert materialized(instance) == 2


@pytest.fixture
def going(
    on_postgres: Settings, postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], None]]:
    """What ends the server; it is back after the test, in which nobody waits for it for a minute."""
    with open_instance(on_postgres):
        patience = server.patience_with("127.0.0.1", postgres_server.port)
        monkeypatch.setattr(patience, "seconds", 0.6)
        yield postgres_server.server.stop
        postgres_server.server.start()


def test_a_server_that_is_gone_is_told_in_a_sentence_and_waited_for_once(
    on_postgres: Settings,
    going: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dagster alone tells of five attempts, each time that it asks, and then of a function of its own."""
    with open_instance(on_postgres) as instance:
        instance.get_runs()
        going()
        sleep, me, pauses = time.sleep, threading.get_ident(), list[int]()

        def pause(seconds: float) -> None:
            pauses[-1] += threading.get_ident() == me
            sleep(seconds)

        monkeypatch.setattr(time, "sleep", pause)
        for _ in range(3):
            pauses.append(0)
            with pytest.raises(ServiceError, match="PostgreSQL cannot be used: nobody listens there") as caught:
                instance.get_runs()
    assert "`dagster_url`" in str(caught.value)
    assert pauses[0] > 0
    assert pauses[1:] == [0, 0]
    assert not caplog.records


_WORKFLOW = """
from pathlib import Path
import time
from cascade.ingestion import cascade_ingestion, none

@cascade_ingestion(partitions=none(), max_retries=0)
def first():
    Path("asks").touch()
    while Path("asks").exists():
        time.sleep(0.02)
    return [{"id": 1}]

@cascade_ingestion(partitions=none(), max_retries=0)
def second():
    return [{"id": 1}]
"""


def test_a_run_whose_server_goes_for_good_ends_with_a_sentence_and_its_summary(
    project: Path, on_postgres: Settings, going: Callable[[], None]
) -> None:
    (project / "workflows").mkdir()
    (project / "workflows/loads.py").write_text(_WORKFLOW)
    asked = threading.Thread(
        target=lambda: (_until(project / "asks"), going(), (project / "asks").unlink()), daemon=True
    )
    asked.start()
    outcome = run_pipeline(on_postgres)
    asked.join()
    assert not outcome.success
    assert outcome.promotion is None
    (said,) = outcome.failures
    assert "PostgreSQL cannot be used: nobody listens there" in said
    assert "`dagster_url`" in said


def _until(file: Path) -> None:
    while not file.exists():
        time.sleep(0.02)


def test_a_project_of_before_keeps_its_sqlite(project: Path) -> None:
    (project / "dagster.yaml").write_text("storage:\n  sqlite:\n    base_dir: .dagster\n")
    with open_instance(load_settings()) as instance:
        assert type(instance.event_log_storage) is SqliteEventLogStorage
        assert dg.materialize([thing], instance=instance).success


def test_a_project_of_before_with_the_setting_is_told_what_to_change(project: Path, on_postgres: Settings) -> None:
    (project / "dagster.yaml").write_text("storage:\n  sqlite:\n    base_dir: .dagster\n")
    with pytest.raises(ConfigurationError, match=r"cascade\.framework\.storage"), open_instance(on_postgres):
        pass


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("cascade_dagster:", "cascade_dagster:x", "user or password is wrong"),
        ("/dagster", "/marts", "the role may not do this"),
        ("/dagster", "/nothing", "does not exist"),
        ("127.0.0.1:", "127.0.0.1:1", "cannot be used"),
    ],
    ids=["password", "privilege", "database", "port"],
)
def test_a_database_that_cannot_be_used_is_told_with_the_setting(
    on_postgres: Settings, monkeypatch: pytest.MonkeyPatch, old: str, new: str, said: str
) -> None:
    assert on_postgres.dagster_url
    url = on_postgres.dagster_url.get_secret_value()
    monkeypatch.setenv("CASCADE_DAGSTER_URL", url.replace(old, new))
    with pytest.raises(ServiceError, match=said) as caught, open_instance(load_settings()):
        pass
    assert "`dagster_url`" in str(caught.value)
    password = sa.make_url(url).password
    assert password
    assert password not in str(caught.value)


def test_a_server_that_is_too_old_is_told(on_postgres: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_storage, "OLDEST", 99)
    with pytest.raises(ServiceError, match="too old") as caught, open_instance(on_postgres):
        pass
    assert "`dagster_url`" in str(caught.value)
