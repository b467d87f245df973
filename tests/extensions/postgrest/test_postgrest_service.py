"""The service as the real client reads it, included by a project's compose file.

Modules: `cascade_postgrest`.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import cascade_postgrest
from cascade_services.known import find_services
from support.generated import BIN, REPOSITORY

FOLDER = Path(cascade_postgrest.__file__).parent
SERVICE: dict[str, Any] = yaml.safe_load((FOLDER / "service.yaml").read_text("utf-8"))
ENV = {"POSTGRES_PASSWORD": "super", "POSTGREST_PASSWORD": "login", "POSTGREST_JWT_SECRET": "s" * 48}
POSTGRES = {"image": "postgres:18.4", "healthcheck": {"test": ["CMD", "true"]}, "networks": ["state"]}
MAIN = {"services": {"postgres": POSTGRES}, "networks": {"state": {}}}


@pytest.fixture
def merged(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "postgrest.yaml").write_text(yaml.safe_dump(SERVICE["compose"]))
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in ENV.items()))
    include = [{"path": "postgrest.yaml", "project_directory": str(FOLDER), "env_file": str(tmp_path / ".env")}]
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump({"include": include, **MAIN}))
    command = [BIN / "docker-compose", "config", "--format", "json"]
    done = subprocess.run(command, cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def test_the_client_merges_it_and_each_container_gets_its_own_secrets(merged: dict[str, Any]) -> None:
    roles, server = merged["postgrest-roles"], merged["postgrest"]
    assert Path(roles["volumes"][0]["source"]) == FOLDER / "files"
    assert "super" in roles["environment"].values()
    assert "super" not in json.dumps(server)
    assert server["environment"]["PGRST_JWT_SECRET"] == ENV["POSTGREST_JWT_SECRET"]
    assert server["environment"]["PGRST_DB_SCHEMAS"] == "api"
    assert [port["host_ip"] for port in server["ports"]] == ["127.0.0.1", "127.0.0.1"]
    assert [str(port["default"]) for port in SERVICE["ports"].values()] == [p["published"] for p in server["ports"]]


def test_roles_are_made_by_the_project_s_own_postgresql() -> None:
    template = (REPOSITORY / "template" / "compose.yaml.jinja").read_text("utf-8")
    assert f"image: {SERVICE['compose']['services']['postgrest-roles']['image']}\n" in template


def test_every_variable_is_one_that_env_gets(merged: dict[str, Any]) -> None:
    """Those of the project's own PostgreSQL are in its `.env` already."""
    given = {*SERVICE["ports"], *SERVICE["settings"], "POSTGRES_PASSWORD", "POSTGRES_INSIDE"}
    text = yaml.safe_dump(SERVICE["compose"])
    assert {part.partition("}")[0].partition(":")[0].partition("-")[0] for part in text.split("${")[1:]} == given
    known = find_services()["postgrest"]
    assert (known.problem, known.folder) == ("", FOLDER)
