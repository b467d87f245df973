"""The lake's servers on one machine without containers: one command starts them, their data stays, errors are told.

Modules: `cascade_services.commands`, `cascade_services.native.launch`, `cascade_services.native.trino`.
"""

import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cascade.config import Settings, load_settings
from cascade.errors import ServiceError, UsageError
from cascade_operations import query
from cascade_services.env import complete_env, read_env
from cascade_services.native.processes import free_ports
from cascade_services.native.stack import NAMES, PORTS
from cascade_services.servers import list_native, read_logs, start_native, stop_native
from support.generated import BIN, REPOSITORY

TEMPLATE = REPOSITORY / "template"


@pytest.fixture
def settings() -> Iterator[Settings]:
    """A project with the template's files for servers, in a folder that PostgreSQL's user may enter."""
    root = Path(tempfile.mkdtemp(prefix="cascade-native-"))
    root.chmod(0o755)
    shutil.copytree(TEMPLATE / "services", root / "services")
    (root / "pyproject.toml").write_text("[tool.cascade]\n")
    ports = zip(PORTS.values(), free_ports(len(PORTS)), strict=True)
    (root / ".env").write_text("".join(f"{name}={port}\n" for name, port in ports))
    complete_env(root)
    found = load_settings(root)
    yield found
    stop_native(found)
    shutil.rmtree(root)


def states(settings: Settings) -> dict[str, str]:
    return {server.name: server.state for server in list_native(settings)}


def pids(settings: Settings) -> list[int | None]:
    return [server.pid for server in list_native(settings)]


def test_one_start_is_enough_and_what_was_written_outlives_a_stop_and_a_kill(settings: Settings) -> None:
    assert list_native(settings) == ()
    told: list[str] = []
    start_native(settings, tell=told.append)
    assert [line.partition(" answers at ")[0] for line in told] == ["PostgreSQL", "versitygw (S3)", "Nessie", "Trino"]
    assert states(settings) == dict.fromkeys(NAMES, "ready")
    assert query(settings, "select 1 as one").to_pylist() == [{"one": 1}]

    before = pids(settings)
    start_native(settings)
    assert pids(settings) == before

    assert settings.catalog_url is not None
    url = settings.catalog_url.get_secret_value()
    with psycopg.connect(url) as connection:
        connection.execute("create table kept as select 42 as answer")
    killed = pids(settings)[NAMES.index("s3")]
    assert killed is not None
    with os.fdopen(os.pidfd_open(killed)) as process:
        os.killpg(killed, signal.SIGKILL)
        assert select.select([process], [], [], 60)[0]  # it has ended
    assert states(settings) == dict.fromkeys(NAMES, "ready") | {"s3": "stopped"}
    start_native(settings, ["s3"])
    assert states(settings) == dict.fromkeys(NAMES, "ready")
    stop_native(settings)
    assert states(settings) == dict.fromkeys(NAMES, "stopped")
    start_native(settings, ["postgres"])
    assert states(settings) == dict.fromkeys(NAMES, "stopped") | {"postgres": "ready"}
    with psycopg.connect(url) as connection:
        assert connection.execute("select answer from kept").fetchall() == [(42,)]
    written = read_logs(settings, ["postgres"], lines=1000)["postgres"]
    assert written.count("--- PostgreSQL starts") == 2
    of_java = read_logs(settings, ["nessie", "trino"], lines=100_000)
    for lines in of_java.values():
        assert f"NOTE: Picked up JDK_JAVA_OPTIONS: {os.environ['JDK_JAVA_OPTIONS']}" in lines
    secrets = [value for name, value in read_env(settings.project_dir).items() if name.endswith(("PASSWORD", "_KEY"))]
    texts = [log.read_text("utf-8", "replace") for log in (settings.data_path / "servers").glob("*/*.log")]
    assert not [text for text in texts for secret in secrets if secret in text]


def test_a_start_that_was_killed_is_continued(settings: Settings) -> None:
    command = [BIN / "cascade", "services", "start", "--native", "s3", "postgres"]
    with subprocess.Popen(command, cwd=settings.project_dir, stderr=subprocess.PIPE, text=True) as started:
        assert started.stderr
        while states(settings).get("s3", "stopped") == "stopped":
            assert started.poll() is None, started.stderr.read()
        started.kill()
    kept = pids(settings)[NAMES.index("s3")]
    start_native(settings, ["s3", "postgres"])
    assert states(settings) == {"postgres": "ready", "s3": "ready", "nessie": "stopped", "trino": "stopped"}
    assert pids(settings)[NAMES.index("s3")] == kept


def test_ports_that_are_taken_are_all_told_before_anything_starts(settings: Settings) -> None:
    values = read_env(settings.project_dir)
    with (
        socket.create_server(("127.0.0.1", int(values["S3_PORT"]))),
        socket.create_server(("127.0.0.1", int(values["POSTGRES_PORT"]))),
        pytest.raises(ServiceError) as caught,
    ):
        start_native(settings, ["s3", "postgres"])
    for name in ("S3_PORT", "POSTGRES_PORT"):
        assert f"# {values[name]} is taken" in caught.value.fix
    assert set(states(settings).values()) == {"stopped"}


def test_another_password_than_the_data_was_made_with_is_told(settings: Settings) -> None:
    start_native(settings, ["postgres"])
    stop_native(settings)
    file = settings.project_dir / ".env"
    file.write_text(file.read_text() + "\nPOSTGRES_PASSWORD=another\n")
    # In a process of its own: `.env` is read once.
    command = [BIN / "cascade", "services", "start", "--native", "postgres"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES_", "CASCADE_"))}
    done = subprocess.run(command, cwd=settings.project_dir, env=clean, capture_output=True, text=True)
    assert done.returncode == 1
    assert "refuses the password POSTGRES_PASSWORD" in done.stderr


def test_a_name_of_no_server_is_refused(settings: Settings) -> None:
    with pytest.raises(UsageError, match="There is no server minio"):
        start_native(settings, ["minio"])
