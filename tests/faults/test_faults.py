"""What may break, breaks: workers are killed, servers restart, credentials are wrong, disks are full.

No row is lost or doubled, nothing is half promoted, and each error names the service and the setting.
"""

import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cascade.catalog import MAIN, BranchingCatalog, storage
from cascade.config import build_settings
from cascade.engine import query
from cascade.errors import CascadeError, CatalogError, ServiceError
from cascade_operations.records import RunReport
from cascade_operations.run import run_pipeline
from cascade_servers.nessie import client as nessie_client
from cascade_servers.trino import server as trino_server
from cascade_services.native.downloads import programs
from cascade_services.native.processes import free_ports
from cascade_services.native.s3 import make_bucket, s3
from support.generated import Project, generate, stranger
from support.lakes import as_settings, counter, event, finish, ids, numbers, open_with, promoted, put, read, start
from support.projects import make_project
from support.servers.lakes import fresh_lake
from support.servers.stack import Stack

Settings = dict[str, str]
OpenLake = Callable[[], BranchingCatalog]

WRITERS = 2
#: A restart is shorter than this by far; what takes longer hangs.
SECONDS = 600

pytestmark = pytest.mark.usefixtures("stack")


@pytest.fixture(scope="module", autouse=True)
def _own_machine() -> None:
    """The machine stays as it is: programs of servers are kept in the developer's home."""


@pytest.fixture
def environment(stack: Stack) -> dict[str, str]:
    """A lakehouse with nothing in it: all settings of a project."""
    return stack.environment | fresh_lake(stack, "nessie")


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    """The same, by the names of the settings."""
    return as_settings(environment)


@pytest.fixture
def lake(settings: Settings, tmp_path: Path) -> BranchingCatalog:
    return open_with(settings, tmp_path)


# --- servers restart --------------------------------------------------------------------------------------


def _append(open_lake: OpenLake, writer: int, done: Any, counted: Any) -> None:
    """Append row by row; when a write fails, look whether it is there, and repeat it if not."""
    lake, number = open_lake(), writer * 1_000_000
    while not done.is_set():
        try:
            put(lake, "dev", "raw.a", numbers(number, number))
        except ServiceError:
            if not _arrived(lake, number, done):
                continue
        number += 1
        counted.release()


def _arrived(lake: BranchingCatalog, number: int, done: Any) -> bool:
    while True:
        try:
            return number in ids(lake, "dev", "raw.a")
        except ServiceError:
            assert not done.is_set()


def _promote(open_lake: OpenLake, done: Any) -> None:
    lake = open_lake()
    while not done.is_set():
        try:
            lake.merge("dev")
        except ServiceError:
            continue


def _count(open_lake: OpenLake, done: Any) -> None:
    """Rows are never fewer than they were: neither a lost one nor half an answer."""
    lake, most = open_lake(), 0
    while not done.is_set():
        try:
            (row,) = query(lake, "dev", "SELECT count(*) AS n, count(DISTINCT id) AS different FROM raw.a").to_pylist()
        except ServiceError:
            continue
        assert row["different"] == row["n"] >= most
        most = row["n"]


@pytest.mark.parametrize("server", ["nessie", "postgres", "s3", "trino"])
def test_restarts_of_a_server_under_load_lose_and_double_nothing(
    stack: Stack, settings: Settings, tmp_path: Path, server: str, whole: bool
) -> None:
    """Five with `--whole`."""
    open_lake = partial(open_with, settings, tmp_path)
    done, counted, acknowledged = event(), counter(), 0
    put(open_lake(), "dev", "raw.a", numbers(WRITERS * 1_000_000, WRITERS * 1_000_000))
    writers = [start(_append, open_lake, writer, done, counted) for writer in range(WRITERS)]
    others = [start(_promote, open_lake, done), start(_count, open_lake, done)]
    for _ in range(5 if whole else 1):
        for _ in range(4 * WRITERS):
            assert counted.acquire(timeout=SECONDS), "the writers do not go on"
            acknowledged += 1
        stack.restart(server)
    done.set()
    assert finish([*writers, *others], seconds=SECONDS) == [0] * (WRITERS + 2)
    while counted.acquire(block=False):
        acknowledged += 1
    lake = open_lake()
    found = ids(lake, "dev", "raw.a")
    assert len(found) == len(set(found)) == acknowledged + 1
    for writer in range(WRITERS):
        mine = [number - writer * 1_000_000 for number in found if number // 1_000_000 == writer]
        assert mine == list(range(len(mine)))
    lake.merge("dev")
    assert ids(lake, MAIN, "raw.a") == found


# --- servers are gone for good ----------------------------------------------------------------------------

_LOADS = """
import time
from pathlib import Path
from cascade.ingestion import cascade_ingestion, none
from cascade.quality import cascade_quality, custom_sql

@cascade_ingestion(partitions=none(), max_retries=0)
def a():
    Path("asks").touch()
    while Path("asks").exists():
        time.sleep(0.02)
    return [{"id": 1}]

@cascade_ingestion(partitions=none(), max_retries=0)
def b():
    return [{"id": 1}]

@cascade_ingestion(partitions=none(), max_retries=0)
def c():
    return [{"id": 1}]

@cascade_quality(asset="raw/b", checks=[custom_sql("none", "select * from raw.b where id <> 1")])
def of_b() -> None: ...
"""


GONE = {
    "nessie": "raw/a, raw/b, raw/c: Nessie does not answer",
    "s3": "raw/a, raw/b, raw/c: S3 cannot be used: it does not answer",
    "trino": "Trino does not answer",
}


@pytest.mark.parametrize("server", ["nessie", "trino"])
def test_a_run_whose_server_goes_for_good_waits_once_and_ends_with_its_summary(
    stack: Stack, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setattr(nessie_client.patience_with(settings["nessie.url"]), "seconds", 0.5)
    monkeypatch.setattr(trino_server, "RESTART_SECONDS", 0.5)
    mine = {name: value for name, value in settings.items() if name not in ("dagster_url", "marts_url")}
    report = _run_until_gone(tmp_path / "project", mine, partial(stack.kill, server), monkeypatch)
    stack.servers[server].start()
    _assert_told(report, GONE[server])


def test_a_run_whose_object_store_goes_for_good_waits_once_and_ends_with_its_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the engine `embedded`, which is enough to see it."""
    (port,) = free_ports(1)
    keys = {"access_key": "adaada", "secret_key": "lovelace"}
    server = s3(tmp_path, program=programs().versitygw, port=port, **keys)
    server.start()
    mine = {"s3_endpoint": f"http://127.0.0.1:{port}", **{f"s3_{name}": key for name, key in keys.items()}}
    make_bucket("mine", endpoint=mine["s3_endpoint"], **keys)
    monkeypatch.setattr(storage, "S3_ATTEMPTS", 3)
    report = _run_until_gone(tmp_path / "project", mine | {"warehouse": "s3://mine/lake"}, server.kill, monkeypatch)
    assert {"s3://mine"} == storage.SILENT_BUCKETS
    _assert_told(report, GONE["s3"])


def _run_until_gone(
    root: Path, settings: Settings, end: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> RunReport:
    """Run the pipeline; a server ends while the first asset loads."""
    monkeypatch.chdir(make_project(root, {"workflows/loads.py": _LOADS}))

    def end_when_asked() -> None:
        while not (root / "asks").exists():
            time.sleep(0.02)
        end()
        (root / "asks").unlink()

    asked = threading.Thread(target=end_when_asked, daemon=True)
    asked.start()
    report = run_pipeline(build_settings(root, settings))
    asked.join()
    return report


def _assert_told(report: RunReport, told: str) -> None:
    assert not report.success
    assert report.promotion is None
    assert [failure for failure in report.failures if told in failure], report.failures
    assert sum(told.partition(": ")[2] in failure for failure in report.failures) == 1, report.failures
    assert not [check for check in report.checks if not check.passed and check.check == "none"]


# --- workers are killed -----------------------------------------------------------------------------------

_WORKFLOW = '''\
"""Events that come in the order of their numbers, and a table of which every run replaces all rows."""

from pathlib import Path

import dlt
from cascade.ingestion import cascade_ingestion, none

UPTO = Path(__file__).parents[2] / "upto"


@cascade_ingestion(partitions=none(), write="append", max_retries=0)
def events():
    """What came since the last time: a row that is appended twice is there twice."""

    @dlt.resource
    def new_events(at=dlt.sources.incremental("id", initial_value=0)):
        yield [{"id": n} for n in range(at.last_value + 1, int(UPTO.read_text()) + 1)]

    return new_events


@cascade_ingestion(partitions=none(), unique_key="id", max_retries=0)
def guests():
    """All of them, each time."""
    upto = int(UPTO.read_text())
    return [{"id": n, "upto": upto} for n in range(1, upto + 1)]
'''


@pytest.fixture
def project(environment: dict[str, str], tmp_path: Path) -> Project:
    """A generated project on the servers, with workflows whose right result is known at every moment."""
    own = stranger(tmp_path) | environment
    root = generate(tmp_path / "my-project", own)
    shutil.rmtree(root / "transforms")
    for file in [*(root / "workflows/quality").glob("weather*"), *(root / "workflows/ingestion").glob("weather*")]:
        file.unlink()
    (root / "workflows/ingestion/events.py").write_text(_WORKFLOW)
    return Project(root, own)


def _killed_at(project: Project, line: int, delay: float) -> bool:
    """Run the pipeline and kill it a moment after a line of its progress; say whether it was killed."""
    command = project.start("run")
    assert command.stderr
    try:
        for _ in range(line):
            if not command.stderr.readline():
                break
        command.wait(delay)
    except subprocess.TimeoutExpired:
        command.kill()
        return True
    finally:
        command.communicate()
    assert command.returncode == 0
    return False


def test_kills_of_a_run_lose_and_double_nothing(project: Project, lake: BranchingCatalog, whole: bool) -> None:
    """Twenty with `--whole`."""
    kills = 20 if whole else 4
    chance, killed, promoted_upto = random.Random(20131231), 0, 0
    upto = project.root / "upto"
    for number in range(1, 10 * kills):
        upto.write_text(str(number))
        killed += _killed_at(project, chance.randint(1, 9), chance.uniform(0, 0.4))
        # Both tables moved together, or neither did.
        pointers = lake.pointers(MAIN)
        events, guests = (read(lake, MAIN, name) if name in pointers else [] for name in ("raw.events", "raw.guests"))
        assert [row["id"] for row in events] == [row["id"] for row in guests] == list(range(1, len(events) + 1))
        assert {row["upto"] for row in guests} == {len(guests)} - {0}
        assert len(events) in (promoted_upto, number)
        promoted_upto = len(events)
        if killed == kills:
            break
    assert killed == kills
    done = project.cascade("run")
    assert done.returncode == 0, done.stderr
    assert ids(lake, MAIN, "raw.events") == ids(lake, MAIN, "raw.guests") == list(range(1, number + 1))


# --- what is wrong is told --------------------------------------------------------------------------------


def _told(error: CascadeError, settings: Settings, *words: str) -> None:
    """The message names the service and the setting, and none of the secrets."""
    text = str(error)
    for word in words:
        assert word in text
    secrets = [value for name, value in settings.items() if name.endswith("_key")]
    urls = [value for name, value in settings.items() if name.endswith("_url") and "@" in value]
    secrets += [url.partition("@")[0].rpartition(":")[2] for url in urls]
    assert not [secret for secret in secrets if secret in text]


def _nobody_at() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("nessie.url", "http://{nobody}/api/v2", "Nessie does not answer"),
        ("s3_endpoint", "http://{nobody}", "S3 cannot be used: it does not answer"),
        ("catalog_url", "postgresql://ada:guess@{nobody}/cascade", "PostgreSQL cannot be used: nobody listens there"),
        ("catalog_url", "{catalog_url}x", "PostgreSQL cannot be used: the database, role or table does not exist"),
        ("s3_access_key", "somebody", "S3 cannot be used: it refuses the credentials"),
        ("s3_secret_key", "guess", "S3 cannot be used: it refuses the credentials"),
    ],
    ids=["no-nessie", "no-s3", "no-postgresql", "no-database", "access-key", "secret-key"],
)
def test_a_service_that_cannot_be_used_is_named_with_its_setting(
    lake: BranchingCatalog, settings: Settings, setting: str, value: str, told: str
) -> None:
    promoted(lake, "raw.a", numbers(1, 3))
    wrong = settings | {setting: value.format(nobody=_nobody_at(), **settings)}
    with pytest.raises(ServiceError) as caught:
        put(open_with(wrong, lake.settings.data_path / "wrong"), "dev", "raw.b", numbers(1, 1))
    _told(caught.value, wrong, f"`{setting}`", told)
    assert set(lake.pointers(MAIN)) == {"raw.a"}
    assert "raw.b" not in lake.pointers("dev" if lake.exists("dev") else MAIN)


def test_a_bucket_that_is_not_there_is_told_with_its_setting(settings: Settings, tmp_path: Path) -> None:
    wrong = settings | {"warehouse": "s3://nowhere/at/all"}
    with pytest.raises(ServiceError) as caught:
        put(open_with(wrong, tmp_path), "dev", "raw.a", numbers(1, 1))
    _told(caught.value, wrong, "`warehouse`", "S3 cannot be used: there is no such bucket")


@pytest.mark.parametrize("place", ["s3://nowhere", "{warehouse}x", "{warehouse}/deeper", "s3://warehouse"])
def test_another_place_than_that_of_the_tables_is_noticed(
    lake: BranchingCatalog, settings: Settings, tmp_path: Path, place: str
) -> None:
    """New tables would go elsewhere, and the janitor would find all files of the old ones superfluous, or none."""
    promoted(lake, "raw.a", numbers(1, 3))
    put(lake, "dev", "raw.a", numbers(4, 4))
    wrong = settings | {"warehouse": place.format(**settings)}
    elsewhere, before = open_with(wrong, tmp_path / "wrong"), lake.pointers(MAIN)
    for work in (lambda: elsewhere.create_if_missing("run-1"), lambda: elsewhere.merge("dev")):
        with pytest.raises(CatalogError) as caught:
            work()
        _told(caught.value, wrong, "`warehouse`", f"{settings['warehouse']}/raw/a", wrong["warehouse"])
    assert lake.pointers(MAIN) == before
    assert not lake.exists("run-1")


def test_no_trino_is_told_with_its_setting(lake: BranchingCatalog, settings: Settings, tmp_path: Path) -> None:
    promoted(lake, "raw.a", numbers(1, 3))
    wrong = settings | {"trino.url": f"http://{_nobody_at()}"}
    with pytest.raises(ServiceError) as caught:
        query(open_with(wrong, tmp_path / "wrong"), MAIN, "SELECT count(*) AS n FROM raw.a")
    _told(caught.value, wrong, "Trino", "`trino.url`")


def test_a_wrong_password_is_told_with_its_setting(lake: BranchingCatalog, settings: Settings, tmp_path: Path) -> None:
    user, _, place = settings["catalog_url"].partition("@")
    wrong = settings | {"catalog_url": f"{user.rpartition(':')[0]}:guess@{place}"}
    with pytest.raises(ServiceError) as caught:
        put(open_with(wrong, tmp_path / "wrong"), "dev", "raw.b", numbers(1, 1))
    _told(caught.value, wrong, "PostgreSQL", "user or password is wrong", "`catalog_url`")


@pytest.mark.parametrize("command", ["branch list", "query"])
def test_the_command_line_tells_it_in_three_lines(project: Project, command: str) -> None:
    more = ["SELECT 1 AS one"] if command == "query" else []
    done = project.cascade(*command.split(), *more, CASCADE_NESSIE__URL=f"http://{_nobody_at()}/api/v2")
    assert done.returncode == 1
    assert "Nessie does not answer" in done.stderr
    assert "setting `nessie.url`" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def full_soon(settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """The settings with another object store, whose disk has 3 MB."""
    (port,) = free_ports(1)
    mine = {"s3_endpoint": f"http://127.0.0.1:{port}", "s3_access_key": "adaada", "s3_secret_key": "lovelace"}
    keys = {"access_key": mine["s3_access_key"], "secret_key": mine["s3_secret_key"]}
    # Its folder is mounted in a name space of its own: no right is needed for it, and nobody has to unmount it.
    mount = f'mount -t tmpfs -o size=3m tmpfs "$2" && exec "{programs().versitygw}" "$@"'
    small = tmp_path / "small-versitygw"
    small.write_text(f"#!/bin/sh\nexec unshare --map-root-user --mount sh -c '{mount}' sh \"$@\"\n")
    small.chmod(0o755)
    server = s3(tmp_path, program=small, port=port, **keys)
    server.start()
    make_bucket("small", endpoint=mine["s3_endpoint"], **keys)
    yield settings | mine | {"warehouse": "s3://small/lake"}
    server.kill()


def test_a_full_disk_of_the_object_store_is_told_and_loses_nothing(full_soon: Settings, tmp_path: Path) -> None:
    lake = open_with(full_soon, tmp_path / "lake")
    promoted(lake, "raw.a", numbers(1, 3))
    put(lake, "dev", "raw.a", numbers(4, 4))
    before = lake.pointers("dev")
    much = [{"id": number, "noise": random.randbytes(1 << 20).hex()} for number in range(5, 13)]
    with pytest.raises(ServiceError) as caught:
        put(lake, "dev", "raw.much", much)
    _told(caught.value, full_soon, "S3 cannot be used: its disk is full", "`s3_endpoint`")
    assert lake.pointers("dev") == before
    assert (ids(lake, MAIN, "raw.a"), ids(lake, "dev", "raw.a")) == ([1, 2, 3], [1, 2, 3, 4])
