"""Services are listed, checked and started. The engine is a script that answers for it; files are merged for real.

Modules: `cascade_services.running`, `cascade_services.commands`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from cascade.config import load_settings
from cascade.errors import CascadeError, ConfigurationError, ServiceError, UsageError
from cascade_services import running
from cascade_services.chosen import choose, env_lines
from cascade_services.env import complete_env
from support.generated import BIN
from support.projects import Command

AddService = Callable[..., None]

BOARD = """
name: board
title: Board
description: Shows the marts.
category: api
needs: [postgres]
ports: {BOARD_PORT: {default: 18088, meaning: The pages}}
settings:
  BOARD_KEY: {secret: true, description: Signs cookies.}
  BOARD_ROWS: {type: integer, default: 10, description: How many.}
health: http://127.0.0.1:${BOARD_PORT}/health
links: {Board: "http://127.0.0.1:${BOARD_PORT}"}
compose:
  services:
    board:
      image: board:6.1@sha256:0000000000000000000000000000000000000000000000000000000000000000
      ports: ["127.0.0.1:${BOARD_PORT:?is not in .env; run cascade services env}:8088"]
      environment: {KEY: "${BOARD_KEY:?is not in .env; run cascade services env}"}
"""
# As `docker compose`: what needs an engine is answered from files, everything else is for the real client.
CLIENT = """\
#!/bin/sh
shift
for word; do
  case "$word" in
    ls) exit 0 ;;
    ps) cat {folder}/ps 2>/dev/null; exit 0 ;;
    logs) printf 'one\\ntwo\\n'; exit 0 ;;
    up | stop) echo "$@" >> {folder}/said; cp {folder}/after {folder}/ps 2>/dev/null && exit 1; exit 0 ;;
  esac
done
exec {client} "$@"
"""


@pytest.fixture
def engine(project: Path) -> Path:
    """The folder of what the engine answers: `ps` now, `after` once something was started."""
    folder = project.parent / "bin"
    (folder / "docker").write_text(CLIENT.format(folder=folder, client=BIN / "docker-compose"))
    (folder / "docker").chmod(0o755)
    return folder


@pytest.fixture
def board(project: Path, add_service: AddService) -> Path:
    """The project with a package that is enabled, and ports that nobody else has."""
    add_service("board", BOARD)
    (project / "cascade.yaml").write_text("services: {board: {enabled: true}}\n")
    keys = ("DAGSTER_PORT", "POSTGRES_PORT", "S3_PORT", "NESSIE_PORT", "TRINO_PORT", "BOARD_PORT")
    with _held(len(keys)) as ports:
        (project / ".env").write_text("".join(f"{key}={port}\n" for key, port in zip(keys, ports, strict=True)))
    complete_env(project, env_lines(choose(project)))
    return project


@contextlib.contextmanager
def _held(count: int) -> Iterator[list[int]]:
    """Hold ports for as long as the block lasts."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
            one.listen()
        yield [one.getsockname()[1] for one in sockets]


def _change(project: Path, key: str, value: object) -> None:
    with (project / ".env").open("a") as env:
        env.write(f"{key}={value}\n")
    os.environ.pop(key, None)  # where an earlier command of this test left it


def _made(folder: Path, file: str, *containers: tuple[str, str, str, str], port: int = 0) -> None:
    keys = ("Service", "State", "Health", "Status")
    held = {"Publishers": [{"PublishedPort": port}]}
    (folder / file).write_text("\n".join(json.dumps(dict(zip(keys, one, strict=True)) | held) for one in containers))


def test_the_list_works_without_docker_and_says_so(
    board: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], add_service: AddService
) -> None:
    add_service("broken", "name: broken")
    monkeypatch.setenv("PATH", str(board))
    command = Command(capsys)
    document = {one["name"]: one for one in json.loads(command("services", "list", "--json").out)}
    assert document["board"]["version"] == "6.1"
    assert document["board"]["state"] == "unknown"
    assert document["board"]["links"] == {"Board": f"http://127.0.0.1:{document['board']['ports'][0]}"}
    assert document["trino"]["version"] == "476"
    assert document["broken"]["state"] == "broken"
    assert "`title`: Field required" in document["broken"]["reason"]
    said = command("services", "list")
    assert "States of containers are unknown. There is no compose client here" in said.err
    assert re.search("^board +board-pack 1.0 +unknown ", said.out, re.MULTILINE)


def test_states_are_those_of_containers(board: Path, engine: Path) -> None:
    _made(
        engine,
        "ps",
        ("trino", "running", "healthy", "Up 2 hours (healthy)"),
        ("bucket", "exited", "", "Exited (0) 2 hours ago"),
        ("s3", "running", "starting", "Up 1 second"),
        ("web", "running", "healthy", "Up 1 hour (healthy)"),
        ("code", "running", "unhealthy", "Up 1 hour (unhealthy)"),
    )
    states = {one.name: one.state for one in running.list_services(load_settings(board), tell=pytest.fail)}
    assert (states["trino"], states["s3"], states["dagster"], states["board"]) == (
        "healthy",
        "starting",
        "unhealthy",
        "stopped",
    )


def test_the_rendered_file_is_whole_and_has_no_secret(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _change(board, "CASCADE_NESSIE__TOKEN", "geheim")
    with (board / "cascade.yaml").open("w") as file:
        file.write("services:\n  board: {enabled: true}\n  mail: {type: inline, image: 'mail:1', env_file: .env}\n")
    Command(capsys)("services", "render", "--output", str(tmp_path / "all.yaml"))
    text = (tmp_path / "all.yaml").read_text("utf-8")
    assert {"board", "trino", "mail"} < yaml.safe_load(text)["services"].keys()
    values = [line.partition("=")[2] for line in (board / ".env").read_text().splitlines()]
    secrets = [value for value in values if len(value) == 48 or value == "geheim"]
    assert len(secrets) == 10
    assert not [secret for secret in secrets if secret in text]


def test_ports_are_told_with_what_moves_them(board: Path) -> None:
    found = {one.service: one for one in running.list_ports(load_settings(board))}
    assert (found["board"].variable, found["board"].meaning, found["board"].state) == (
        "BOARD_PORT",
        "The pages",
        "free",
    )
    with _held(1) as (port,):
        _change(board, "TRINO_PORT", port)
        found = {one.service: one for one in running.list_ports(load_settings(board))}
        assert (found["trino"].port, found["trino"].state) == (port, "taken")
        assert found["trino"].instead


def test_everything_that_is_wrong_is_told_together(
    board: Path, engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _made(
        engine,
        "ps",
        ("trino", "running", "unhealthy", "Up 1 hour (unhealthy)"),
        ("board", "running", "healthy", "Up 1 hour (healthy)"),
        ("bucket", "exited", "", "Exited (0) 2 hours ago"),
        ("web", "exited", "", "Exited (143) 2 hours ago"),
        ("daemon", "exited", "", "Exited (1) 2 hours ago"),
        ("extra", "running", "", "Up 2 hours"),
    )
    _change(board, "BOARD_ROWS", "geheim")
    done = Command(capsys)("services", "doctor", "--json")
    assert done.code == 1
    told = [one["what"] for one in json.loads(done.out)]
    assert len(told) == 4
    assert told[0] == "BOARD_ROWS of board is not of type integer"
    assert told[1].startswith("trino is unhealthy (Up 1 hour (unhealthy)); its last lines:\n    one\n    two")
    assert told[2].startswith("daemon is exited (Exited (1) 2 hours ago); its last lines:\n    one\n    two")
    assert told[3].startswith("board runs, but http://127.0.0.1:")
    (board / "cascade.yaml").write_text("services: {board: {enabled: false}}\n")
    done = Command(capsys)("services", "doctor")
    assert "board runs, and board is not enabled" in done.err


def test_doctor_is_content(board: Path, engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Command(capsys)("services", "doctor").out == "well    services\n"


def test_doctor_tells_a_wrong_table_and_a_missing_engine(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No container engine answers" in Command(capsys)("services", "doctor").err
    (board / ".env").write_text((board / ".env").read_text().replace("BOARD_KEY", "OTHER_KEY"))
    os.environ.pop("BOARD_KEY", None)
    assert ".env lacks keys of board: BOARD_KEY (Signs cookies)" in Command(capsys)("services", "doctor").err
    (board / "cascade.yaml").write_text("services: {trino: {mem_limit: [1]}}\n")
    told = Command(capsys)("services", "doctor").err
    assert "No container engine answers" in told
    assert "The compose client refuses" in told
    (board / "cascade.yaml").write_text("services: {bord: {enabled: true}}\n")
    assert "(is it `board`?)" in Command(capsys)("services", "doctor").err


def test_a_start_writes_what_env_lacks_and_names_what_is_started(
    board: Path, engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (board / ".env").write_text((board / ".env").read_text().replace("BOARD_KEY", "OTHER_KEY"))
    done = Command(capsys)("services", "start")
    assert "BOARD_KEY" in done.err
    assert "board" in done.out
    assert (engine / "said").read_text().endswith("packages.yaml up --detach --build --wait --remove-orphans\n")
    Command(capsys)("services", "start", "s3", "board")
    assert (engine / "said").read_text().endswith("up --detach --build --wait s3 bucket board\n")
    Command(capsys)("services", "stop", "dagster")
    assert (engine / "said").read_text().endswith("stop web daemon code\n")


def test_before_anything_starts_all_that_is_wrong_is_told(board: Path, engine: Path) -> None:
    with pytest.raises(UsageError, match="no service bord"):
        running.start(load_settings(board), ["bord"], tell=print)
    with _held(1) as (port,):
        _change(board, "S3_PORT", port)
        _change(board, "BOARD_PORT", 25)
        _change(board, "TRINO_PORT", 25)
        with pytest.raises(ServiceError, match="Nothing is started") as caught:
            running.start(load_settings(board), tell=print)
    for part in (f"port {port} of s3 is held by another program", "port 25 of trino is given to board, too"):
        assert part in str(caught.value)
    assert "write S3_PORT=" in caught.value.fix
    assert "write TRINO_PORT=" in caught.value.fix
    assert not (engine / "said").exists()


def test_ports_that_our_own_containers_hold_are_no_trouble(board: Path, engine: Path) -> None:
    """An interrupted start goes on."""
    with _held(1) as (port,):
        _change(board, "S3_PORT", port)
        _made(engine, "ps", ("s3", "running", "healthy", "Up 1 hour (healthy)"), port=port)
        assert {one.service: one.state for one in running.list_ports(load_settings(board))}["s3"] == "ours"
        running.start(load_settings(board), tell=print)
    assert "up --detach" in (engine / "said").read_text()


def test_a_start_that_fails_tells_which_container_and_its_last_lines(board: Path, engine: Path) -> None:
    _made(engine, "after", ("board", "exited", "", "Exited (3) 1 second ago"), ("s3", "running", "healthy", "Up"))
    with pytest.raises(ServiceError) as caught:
        running.start(load_settings(board), tell=print)
    assert "board is exited (Exited (3) 1 second ago); its last lines:\n    one\n    two" in caught.value.what
    assert "s3 is" not in caught.value.what


def test_an_old_client_is_named_with_the_version_that_is_needed(board: Path, engine: Path) -> None:
    (engine / "docker").write_text('#!/bin/sh\necho "2.23.3"\n')
    with pytest.raises(ServiceError, match=r"`docker compose` is of version 2\.23\.3; 2\.35\.0 or later is needed"):
        running.render(load_settings(board))


def test_a_client_that_refuses_is_quoted(board: Path, engine: Path) -> None:
    (board / "cascade.yaml").write_text("services: {trino: {mem_limit: [1]}}\n")
    with pytest.raises(ConfigurationError, match=r"The compose client refuses: .*mem_limit"):
        running.render(load_settings(board))


def test_thirty_services_are_rendered(project: Path, add_service: AddService) -> None:
    """In a second: see the changelog for the measured time."""
    names = [f"board{i}" for i in range(30)]
    for i, name in enumerate(names):
        add_service(name, BOARD.replace("board", name).replace("BOARD", name.upper()).replace("18088", str(18100 + i)))
    (project / "cascade.yaml").write_text("services:\n" + "".join(f"  {name}: {{enabled: true}}\n" for name in names))
    assert len(yaml.safe_load(running.render(load_settings(project)))["services"]) == 38


def test_servers_without_containers_are_not_run_beside(
    board: Path, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_native", lambda settings: {"trino": "ready"})
    with pytest.raises(CascadeError, match="Servers run on this machine without containers: trino"):
        running.start(load_settings(board), tell=print)
