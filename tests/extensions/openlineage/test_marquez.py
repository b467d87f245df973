"""The service `marquez` as the real clients read it: included by a project's compose file, looked at by compose-lint.

Marquez itself is in no registry of packages, and does not run here.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cascade.plugins import get_service
from cascade_services.schema import read_service
from support.generated import BIN, REPOSITORY

FOLDER = REPOSITORY / "extensions/openlineage/src/cascade_openlineage"
SERVICE: dict[str, Any] = yaml.safe_load((FOLDER / "service.yaml").read_text("utf-8"))
MAIN = {
    "name": "shop",
    "services": {"postgres": {"image": "postgres:18.4", "networks": ["state"]}},
    "networks": {"state": {}},
}
SECRETS = ("POSTGRES_PASSWORD", "POSTGRES_MARQUEZ_PASSWORD")


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What compose will start, when a project's file includes the fragment."""
    root = tmp_path_factory.mktemp("project")
    (root / "marquez.yaml").write_text(yaml.safe_dump(SERVICE["compose"]))
    values = [f"{name}={name.lower()}" for name in SECRETS] + ["MARQUEZ_PORT=5020", "MARQUEZ_WEB_PORT=3020"]
    (root / ".env").write_text("\n".join(values) + "\n")
    include = [{"path": "marquez.yaml", "project_directory": str(FOLDER), "env_file": str(root / ".env")}]
    (root / "compose.yaml").write_text(yaml.safe_dump({"include": include, **MAIN}))
    command = [BIN / "docker-compose", "config", "--format", "json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_says_of_itself_what_a_service_says() -> None:
    found = read_service(get_service("marquez").definition(), where="service.yaml")
    assert not found.enabled
    assert found.container_names == ("marquez-database", "marquez", "marquez-web")


def test_compose_puts_it_beside_the_project_on_loopback_alone(merged: dict[str, Any]) -> None:
    services = merged["services"]
    assert services.keys() == {"postgres", "marquez-database", "marquez", "marquez-web"}
    ports = [port for each in services.values() for port in each.get("ports", ())]
    assert {(port["host_ip"], port["published"]) for port in ports} == {("127.0.0.1", "5020"), ("127.0.0.1", "3020")}
    mounted = {Path(volume["source"]) for each in services.values() for volume in each.get("volumes", ())}
    assert mounted == {FOLDER / "files"}


def test_each_container_gets_its_own_secrets_only(merged: dict[str, Any]) -> None:
    given = {
        name: {secret for secret in SECRETS if secret.lower() in map(str, (each.get("environment") or {}).values())}
        for name, each in merged["services"].items()
    }
    assert given == {
        "postgres": set(),
        "marquez-database": {*SECRETS},
        "marquez": {"POSTGRES_MARQUEZ_PASSWORD"},
        "marquez-web": set(),
    }


def test_compose_lint_finds_nothing_of_weight(tmp_path: Path) -> None:
    """Two images have no digest, which is not known here; the page says so."""
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump({**SERVICE["compose"], "networks": {"state": {}}}))
    command = [BIN / "compose-lint", "check", "--format", "json", "compose.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    report = json.loads(done.stdout)
    assert not report["errors"]
    heavy = [found for found in report["findings"] if found["severity"] in ("critical", "high", "medium")]
    assert {found["service"] for found in heavy} <= {"marquez", "marquez-web"}
    assert all("digest" in found["message"].lower() for found in heavy), heavy


def test_its_database_is_made_by_the_image_of_the_project() -> None:
    template = (REPOSITORY / "template/compose.yaml.jinja").read_text("utf-8")
    assert f"image: {SERVICE['compose']['services']['marquez-database']['image']}\n" in template


def test_its_file_reads_what_the_container_is_given() -> None:
    text = (FOLDER / "files/marquez.yml").read_text("utf-8")
    yaml.safe_load(text)
    environment = SERVICE["compose"]["services"]["marquez"]["environment"]
    assert {part.partition("}")[0] for part in text.split("${")[1:]} <= environment.keys()
