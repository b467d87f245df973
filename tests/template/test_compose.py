"""compose.yaml of a generated project: the real compose understands it, and it keeps what it promises."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from cascade.config import Settings
from cascade_maintain.settings import MaintainSettings
from cascade_servers.settings import NessieSettings, TrinoSettings
from support.copies import Run, commit_all
from support.generated import BIN, REPOSITORY

Document = dict[str, Any]

# Made for its purpose, then it ends.
ONE_SHOT = {"bucket"}
SERVERS = {"bucket", "s3", "postgres", "nessie", "trino"}
# Which secrets a service sees: its own, no more.
LAKE = {"CASCADE_S3_ACCESS_KEY", "CASCADE_S3_SECRET_KEY"}
SECRETS = {
    "web": {"POSTGRES_DAGSTER_PASSWORD"},
    "daemon": {"POSTGRES_DAGSTER_PASSWORD"},
    "code": {"POSTGRES_CATALOG_PASSWORD", "POSTGRES_DAGSTER_PASSWORD", "POSTGRES_PUBLISHER_PASSWORD", *LAKE},
    "postgres": {
        "POSTGRES_PASSWORD",
        *(f"POSTGRES_{role}_PASSWORD" for role in ("CATALOG", "DAGSTER", "NESSIE", "PUBLISHER", "READER")),
    },
    "bucket": set(),
    "s3": LAKE,
    "nessie": {"POSTGRES_NESSIE_PASSWORD"},
    "trino": LAKE,
}
# Who talks to whom; `internet` is the way out.
NETWORKS = {
    "web": {"state"},
    "daemon": {"state"},
    "code": {"internet", "lake", "state"},
    "postgres": {"state"},
    "bucket": set(),
    "s3": {"lake"},
    "nessie": {"lake", "state"},
    "trino": {"lake"},
}


@pytest.fixture(
    scope="module",
    params=[{"containers": "true"}, {"engine": "trino", "project_name": "Weather_Hub-2", "ci": "none"}],
    ids=["default answers", "other answers"],
)
def project(request: pytest.FixtureRequest, generate: Callable[..., Path], run: Run) -> Path:
    """A project whose `.env` is complete."""
    project = generate(**request.param)
    run(BIN / "cascade", "services", "env", cwd=project)
    return project


@pytest.fixture(scope="module")
def compose(run: Run) -> Callable[..., Document]:
    """What the real compose makes of the project's file."""

    def compose(project: Path, *services: str, **variables: str) -> Document:
        command = (BIN / "docker-compose", "config", "--format", "json", *services)
        document: Document = json.loads(run(*command, cwd=project, **variables).stdout)
        return document

    return compose


@pytest.fixture(scope="module")
def services(project: Path, compose: Callable[..., Document]) -> dict[str, Document]:
    """Every service as compose will start it."""
    found: dict[str, Document] = compose(project)["services"]
    return found


@pytest.fixture(scope="module")
def env(project: Path) -> dict[str, str]:
    """`.env` as it was written, addresses not filled in."""
    lines = (project / ".env").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_all_services_are_there(services: dict[str, Document]) -> None:
    assert set(services) == {*SERVERS, "web", "daemon", "code"}


def test_compose_understands_every_subset(
    generate: Callable[..., Path], compose: Callable[..., Document], run: Run
) -> None:
    """Whatever is asked for comes with what it needs, and nothing else."""
    project = generate(containers="true")
    run(BIN / "cascade", "services", "env", cwd=project)
    whole = compose(project)["services"]

    def needs(names: set[str]) -> set[str]:
        more = names | {needed for name in names for needed in whole[name].get("depends_on", {})}
        return more if more == names else needs(more)

    subsets = [subset for size in range(1, len(whole) + 1) for subset in itertools.combinations(sorted(whole), size)]
    with ThreadPoolExecutor(max_workers=4) as threads:
        for subset, found in zip(subsets, threads.map(lambda names: compose(project, *names), subsets), strict=True):
            assert set(found["services"]) == needs(set(subset)), subset
    assert len(subsets) == 255
    assert needs({"trino"}) == SERVERS
    assert needs({"postgres"}) == {"postgres"}


def test_it_follows_the_specification(project: Path, run: Run) -> None:
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml", cwd=project)


def test_compose_lint_finds_nothing(project: Path, run: Run) -> None:
    """With `.env` beside it; what it is told to leave has its reason in `.compose-lint.yml`."""
    done = run(BIN / "compose-lint", "check", "--format", "json", "compose.yaml", cwd=project)
    report = json.loads(done.stdout)
    assert not [found for found in report["findings"] if not found["suppressed"]]
    assert not report["errors"]
    left = yaml.safe_load((project / ".compose-lint.yml").read_text("utf-8"))["rules"]
    assert {rule: list(kept["exclude_services"]) for rule, kept in left.items()} == {
        "CL-0019": ["nessie"],
        "CL-0022": ["trino"],
    }


def test_hadolint_finds_nothing(project: Path, run: Run) -> None:
    assert json.loads(run(BIN / "hadolint", "--format", "json", "Dockerfile", cwd=project).stdout) == []


def test_ports_are_on_loopback_and_can_be_moved(project: Path, compose: Callable[..., Document]) -> None:
    moved = {f"{name}_PORT": str(20000 + i) for i, name in enumerate(("DAGSTER", "POSTGRES", "S3", "NESSIE", "TRINO"))}
    for variables in ({}, moved):
        found = compose(project, **variables)["services"]
        ports = [port for service in found.values() for port in service.get("ports", [])]
        assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
        published = [port["published"] for port in ports]
        assert len(published) == len(set(published)) == len(moved)
        assert not variables or set(published) == set(moved.values())


def test_every_variable_is_explained_and_written(project: Path, env: dict[str, str]) -> None:
    """What is no secret has a default; a secret is asked for when it is missing."""
    named = re.findall(r"\$\{(\w+)([^}]*)\}", (project / "compose.yaml").read_text("utf-8"))
    # What a comment shows is an example.
    named = [(name, rest) for name, rest in named if name != "API_KEY"]
    settings = {f"CASCADE_{name.upper()}" for name in _SETTINGS}
    assert {name for name, _ in named} <= set(env) | settings
    for name, rest in named:
        secret = name.endswith(("_KEY", "_PASSWORD"))
        assert rest == ":?is not in .env; run cascade services env" if secret else rest.startswith(":-"), name
    assert "services env" in (project / ".env.example").read_text("utf-8")


def test_without_env_it_says_what_to_do(generate: Callable[..., Path], run: Run) -> None:
    done = run(BIN / "docker-compose", "config", cwd=generate(containers="true"), check=False)
    assert done.returncode != 0
    assert "POSTGRES_PASSWORD is missing a value: is not in .env; run cascade services env" in done.stderr


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_service_gets_its_own_secrets_only(name: str, services: dict[str, Document], env: dict[str, str]) -> None:
    """And none of them on a command line, or in a label that anybody can read."""
    secrets = {key: value for key, value in env.items() if re.fullmatch(r"[0-9a-f]{48}", value)}
    assert len(secrets) == 8
    given = json.dumps(services[name].get("environment", {}))
    assert {key for key, value in secrets.items() if value in given} == SECRETS[name]
    rest = json.dumps({key: value for key, value in services[name].items() if key != "environment"})
    assert not [key for key, value in secrets.items() if value in rest]


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_service_is_contained(name: str, services: dict[str, Document]) -> None:
    service = services[name]
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["CHOWN"] if name == "bucket" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["init"] is True
    assert int(service["mem_limit"]) > 0
    assert 0 < service["cpus"] <= 2
    assert service["pids_limit"] > 0
    assert service["logging"]["options"] == {"max-file": "3", "max-size": "10m"}
    assert "privileged" not in service
    if name in ONE_SHOT:
        assert service["restart"] == "no"
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD"
    assert set(service.get("networks") or {}) == NETWORKS[name]


def test_what_a_service_depends_on_is_ready_first(services: dict[str, Document]) -> None:
    for service in services.values():
        for name, needed in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if name in ONE_SHOT else "service_healthy"
            assert (needed["condition"], needed["required"]) == (expected, True)


def test_the_way_out_is_the_first_by_name(project: Path, compose: Callable[..., Document]) -> None:
    """Docker takes the first network by name for the way out; the others translate no addresses, so nothing leaves."""
    networks = compose(project)["networks"]
    names = sorted(network["name"] for network in networks.values())
    assert names[0] == networks["internet"]["name"]
    for name in ("lake", "state"):
        assert networks[name]["driver_opts"] == {"com.docker.network.bridge.enable_ip_masquerade": "false"}


def test_mounted_files_exist_and_stay_as_they_are(project: Path, services: dict[str, Document]) -> None:
    mounts = [mount for service in services.values() for mount in service.get("volumes", [])]
    folder = [mount for mount in mounts if mount["type"] == "bind"]
    assert {Path(mount["source"]).relative_to(project).as_posix() for mount in folder} == {
        "services/nessie/application.properties",
        "services/postgres",
        "services/trino",
    }
    assert all(Path(mount["source"]).exists() and mount["read_only"] for mount in folder)
    assert {mount["source"] for mount in mounts if mount["type"] == "volume"} == {
        "postgres",
        "s3",
        "dagster",
        "scratch",
    }


def test_every_variable_of_the_mounted_files_is_given(project: Path, services: dict[str, Document]) -> None:
    """A server that finds none of its variables does not start."""
    for service, folder, pattern in (
        ("trino", "services/trino", r"\$\{ENV:(\w+)\}"),
        ("nessie", "services/nessie", r"\$\{(\w+)\}"),
        ("postgres", "services/postgres", r"\\getenv \w+ (\w+)"),
    ):
        files = [path.read_text("utf-8") for path in (project / folder).rglob("*") if path.is_file()]
        named = {name for text in files for name in re.findall(pattern, text)}
        assert named, service
        assert named <= set(services[service]["environment"]), service


def test_images_are_of_the_versions_that_are_tested(services: dict[str, Document]) -> None:
    """PostgreSQL's is compared where its programs are installed: tests/integration."""
    place = REPOSITORY / "extensions/services/src/cascade_services/native/downloads.py"
    spec = importlib.util.spec_from_file_location("downloads", place)
    assert spec is not None
    assert spec.loader is not None
    tested = importlib.util.module_from_spec(spec)
    sys.modules["downloads"] = tested
    spec.loader.exec_module(tested)
    assert {name: service["image"].partition("@")[0] for name, service in services.items() if "image" in service} == {
        "bucket": f"versity/versitygw:{tested.VERSITYGW_VERSION}",
        "s3": f"versity/versitygw:{tested.VERSITYGW_VERSION}",
        "nessie": f"ghcr.io/projectnessie/nessie:{tested.NESSIE_VERSION}",
        "trino": f"trinodb/trino:{tested.TRINO_VERSION}",
        "postgres": services["postgres"]["image"].partition("@")[0],
    }


def test_containers_know_the_project_by_the_same_name(project: Path) -> None:
    """Schedules that were switched on stay on, wherever the daemon runs."""
    ours = yaml.safe_load((project / "workspace.yaml").read_text("utf-8"))["load_from"][0]["python_file"]
    theirs = yaml.safe_load((project / "services/dagster/workspace.yaml").read_text("utf-8"))["load_from"][0]
    assert theirs["grpc_server"] == {"host": "code", "port": 4000, "location_name": ours["location_name"]}


def test_host_and_containers_name_the_same_databases(services: dict[str, Document], project: Path, run: Run) -> None:
    """The same roles, passwords and databases: only the host's name and port differ."""
    show = "from cascade.config import load_settings as s; import json; n = ('catalog_url', 'dagster_url', 'marts_url')"
    printed = "print(json.dumps({x: getattr(s(), x).get_secret_value() for x in n}))"
    ours = json.loads(run(BIN / "python", "-c", f"{show}; {printed}", cwd=project).stdout)
    inside = services["code"]["environment"]
    for name, url in ours.items():
        assert url.replace("@127.0.0.1:", "@postgres:") == inside[f"CASCADE_{name.upper()}"]


def _write(project: Path, **settings: str) -> None:
    """Append to `.env`: the last one wins, for compose as for the settings."""
    lines = "".join(f"{name}={value}\n" for name, value in settings.items())
    (project / ".env").write_text((project / ".env").read_text("utf-8") + lines, "utf-8")


@pytest.fixture
def own(project: Path, tmp_path: Path, run: Run) -> Path:
    """A copy of the project, whose `.env` a test may change."""
    shutil.copytree(project, tmp_path / "own", symlinks=True)
    return tmp_path / "own"


# As the environment names them.
_SETTINGS = [
    *(name for name in Settings.model_fields if name != "plugins"),
    *(f"maintain__{name}" for name in MaintainSettings.model_fields),
    *(f"nessie__{name}" for name in NessieSettings.model_fields),
    *(f"trino__{name}" for name in TrinoSettings.model_fields),
]

# What a container has in its own place, or finds elsewhere than this machine does.
_OF_CONTAINERS = {
    "engine": "trino",
    "nessie__url": "http://nessie:19120/api/v2",
    "trino__url": "http://trino:8080",
    "s3_endpoint": "http://s3:7070",
}


def test_every_setting_of_env_reaches_the_container_that_runs_everything(
    own: Path, compose: Callable[..., Document]
) -> None:
    """Schedules in the container tick in the same time zone as those on this machine."""
    given = {name: f"my-{name}" for name in _SETTINGS}
    _write(own, **{f"CASCADE_{name.upper()}": value for name, value in given.items()})
    inside = compose(own, "code")["services"]["code"]["environment"]
    urls = {
        name
        for name in given
        if f"CASCADE_{name.upper()}" in inside and "@postgres:5432/" in inside[f"CASCADE_{name.upper()}"]
    }
    assert urls == {"catalog_url", "dagster_url", "marts_url"}
    # Where the project and its data are is the image's matter.
    wanted = {name: value for name, value in given.items() if name not in {"project_dir", "data_dir", *urls}}
    wanted |= _OF_CONTAINERS
    assert {name: inside.get(f"CASCADE_{name.upper()}") for name in wanted} == wanted


def test_a_setting_that_env_does_not_have_stays_the_default(services: dict[str, Document]) -> None:
    inside = services["code"]["environment"]
    assert inside["CASCADE_TIMEZONE"] is None
    assert inside["CASCADE_MAINTAIN__NIGHTLY"] == "true"
    assert inside["CASCADE_SCHEDULES"] == "running"


OWN = {
    "s3": {
        "CASCADE_WAREHOUSE": "s3://mine/lake",
        "S3_INSIDE": "https://s3.example.org",
        "CASCADE_S3_REGION": "eu-central-1",
        "CASCADE_S3_PATH_STYLE": "false",
    },
    "postgres": {"POSTGRES_INSIDE": "db.example.org:5433"},
}
GONE = {"s3": {"s3", "bucket"}, "postgres": {"postgres"}}


@pytest.mark.parametrize("mine", [("s3",), ("postgres",), ("s3", "postgres")], ids="+".join)
def test_servers_of_ones_own_take_the_place_of_ours(
    mine: tuple[str, ...], own: Path, services: dict[str, Document], compose: Callable[..., Document]
) -> None:
    """As the files in `services` say: nothing of ours is started or named any more, and the way to them is open."""
    files = ":".join(["compose.yaml", *(f"services/own-{name}.yaml" for name in mine)])
    _write(own, COMPOSE_FILE=files, **{key: value for name in mine for key, value in OWN[name].items()})
    found = compose(own)["services"]
    assert set(found) == set(services) - {gone for name in mine for gone in GONE[name]}
    text = json.dumps(found)
    if "s3" in mine:
        assert "s3:7070" not in text
        for name in ("code", "trino"):
            inside = found[name]["environment"]
            assert inside["CASCADE_S3_ENDPOINT"] == "https://s3.example.org"
            assert {key: inside[key] for key in OWN["s3"] if key in inside} == {
                key: value for key, value in OWN["s3"].items() if key != "S3_INSIDE"
            }
            assert "internet" in found[name]["networks"]
    if "postgres" in mine:
        assert "postgres:5432" not in text
        assert text.count("db.example.org:5433") == 6
        for name in ("web", "daemon", "code", "nessie"):
            assert "internet" in found[name]["networks"]
    for service in found.values():
        assert set(service.get("depends_on", {})) <= set(found)


def test_the_pages_say_how_much_memory_the_containers_may_take(services: dict[str, Document]) -> None:
    page = (REPOSITORY / "docs/how-to/start-the-servers.md").read_text("utf-8")
    told = re.search(r"(\d+) GB of memory for everything,\s+(\d+) GB for the servers alone", page)
    assert told is not None
    for gigabytes, names in ((told[1], set(services)), (told[2], SERVERS)):
        limits = sum(int(services[name]["mem_limit"]) for name in names - ONE_SHOT)
        assert int(gigabytes) - 1 < limits / 2**30 <= int(gigabytes)


def test_git_never_sees_a_secret(project: Path, env: dict[str, str], run: Run) -> None:
    commit_all(run, project, "start")
    assert run("git", "ls-files", ".env", cwd=project).stdout == ""
    secrets = [value.encode() for value in env.values() if re.fullmatch(r"[0-9a-f]{48}", value)]
    for name in run("git", "ls-files", "-z", cwd=project).stdout.split("\0"):
        if name:
            content = (project / name).read_bytes()
            assert not [secret for secret in secrets if secret in content], name


def test_the_image_takes_no_secret_and_no_data_in(project: Path) -> None:
    ignored = (project / ".dockerignore").read_text("utf-8").splitlines()
    assert {".env", ".git/", ".venv/", ".cascade/", ".dagster/"} <= set(ignored)


def test_secrets_survive_an_update(release: Path, run: Run, tmp_path: Path) -> None:
    """An update does not touch `.env`; a key that it brings is added by the next call."""
    place, project = tmp_path / "cascade", tmp_path / "my-project"
    run("git", "clone", "--quiet", release, place, cwd=tmp_path)
    command = (BIN / "copier", "copy", "--quiet", "--defaults", "--data", "containers=true", "--vcs-ref", "v0.1.0")
    run(*command, place, project, cwd=tmp_path)
    run(BIN / "cascade", "services", "env", cwd=project)
    before = (project / ".env").read_text("utf-8")
    commit_all(run, project, "start")
    example = place / "template/services/env.example"
    example.write_text(example.read_text("utf-8").replace("TRINO_PORT=8080\n", "TRINO_PORT=8080\nLATER_PORT=1\n"))
    commit_all(run, place, "second release")
    run("git", "tag", "v0.2.0", cwd=place)
    run(BIN / "copier", "update", "--defaults", cwd=project)
    assert (project / ".env").read_text("utf-8") == before
    done = run(BIN / "cascade", "services", "env", "--json", cwd=project)
    assert json.loads(done.stdout)["written"] == ["LATER_PORT"]
    assert (project / ".env").read_text("utf-8").startswith(before)
