"""What compose says is read; what is missing is told with the way out. No engine runs here: see the client's own tests.

Modules: `cascade_services.containers`, `cascade_services.native.stack`.
"""

from pathlib import Path

import pytest

from cascade.errors import ConfigurationError, ServiceError
from cascade_services.containers import Container, compose, list_containers, read_containers
from cascade_services.native.stack import with_needs

# As compose 2.21 and later print it, an object a line; before, one array.
LINES = """\
{"Service":"trino","State":"running","Health":"healthy","Status":"Up 2 hours (healthy)","Image":"trinodb/trino:476",\
"Publishers":[{"URL":"127.0.0.1","TargetPort":8080,"PublishedPort":8080},{"TargetPort":9000,"PublishedPort":0}]}
{"Service":"bucket","State":"exited","Health":"","Status":"Exited (0) 2 hours ago","Image":"versity/versitygw:v1.8.0"}
"""
FOUND = (
    Container("trino", "running", "healthy", "Up 2 hours (healthy)", "trinodb/trino:476", (8080,)),
    Container("bucket", "exited", "", "Exited (0) 2 hours ago", "versity/versitygw:v1.8.0"),
)


@pytest.mark.parametrize("written", [LINES, "[" + ",".join(LINES.splitlines()) + "]"], ids=["lines", "array"])
def test_containers_are_read_as_every_client_prints_them(written: str) -> None:
    assert read_containers(written) == FOUND
    assert read_containers("") == ()


def test_a_project_without_the_file_is_told_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no compose\.yaml") as caught:
        compose(tmp_path, "up")
    assert "copier update" in caught.value.fix


def client(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_without_a_client_or_an_engine_the_way_without_containers_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "compose.yaml").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServiceError, match="no compose client") as caught:
        list_containers(tmp_path)
    assert "cascade services start --native" in caught.value.fix
    client(tmp_path, "docker", '[ "$2" = version ] || { echo "no daemon" >&2; exit 1; }')
    with pytest.raises(ServiceError, match="No container engine answers: no daemon") as caught:
        list_containers(tmp_path)
    assert "cascade services start --native" in caught.value.fix


def test_a_docker_without_compose_is_no_client_and_the_next_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "compose.yaml").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    client(tmp_path, "docker", "exit 1")
    client(tmp_path, "podman", 'echo "$@"')
    compose(tmp_path, "up", "--wait", "trino")
    assert capfd.readouterr().out == "compose up --wait trino\n"
    client(tmp_path, "podman", '[ "$2" = up ] && { echo "trino is unhealthy" >&2; exit 3; }; exit 0')
    with pytest.raises(ServiceError, match=r"`podman compose up` ended with exit status 3") as caught:
        compose(tmp_path, "up")
    assert "cascade services logs" in caught.value.fix


@pytest.mark.parametrize(
    ("named", "with_them"),
    [
        ([], ("postgres", "s3", "nessie", "trino")),
        (["trino"], ("postgres", "s3", "nessie", "trino")),
        (["nessie"], ("postgres", "nessie")),
        (["s3"], ("s3",)),
    ],
)
def test_a_server_comes_with_what_it_needs(named: list[str], with_them: tuple[str, ...]) -> None:
    assert with_needs(named) == with_them
