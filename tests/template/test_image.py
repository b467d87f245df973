"""The image of a generated project: its build steps and its commands, run natively, as there is no Docker here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.test_utils import create_run_for_test

from cascade.config import load_settings
from cascade.framework.instance import open_instance
from support.copies import Run
from support.generated import BIN, EXTENSIONS, LIMIT_SECONDS

# What the build does beside our own packages is `uv sync`, which other tests do; these are enough here.
SYNC = "uv sync --locked --no-dev --all-extras --no-install-project"
OURS = ("cascade", *(f"cascade_{name}" for name in EXTENSIONS))
ONLY_OURS = " --only-install-package ".join([SYNC, "cascade-runtime", *(f"cascade-{name}" for name in EXTENSIONS)])


#: A run of a code server that was killed before ours starts.
KILLED_RUN = "00000000-0000-4000-8000-000000000001"


def build_step(project: Path, packages: Path) -> str:
    """The build's one long step; where its image has `/packages`, we have a folder."""
    text = (project / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    step = next(line for line in text.splitlines() if line.startswith("RUN --mount"))
    step = re.sub(r"--mount=\S+", "", step.removeprefix("RUN"))
    assert "ln -s /packages " in step
    assert SYNC in step
    return step.replace("ln -s /packages ", f"ln -s '{packages}' ").replace(SYNC, ONLY_OURS)


@pytest.fixture(params=["a release", "a folder"])
def template(request: pytest.FixtureRequest, release: Path, run: Run, tmp_path: Path) -> Path:
    """A template on this machine, with a release's tag and without: both pin the runtime to it."""
    place = tmp_path / "the template"
    tags = () if request.param == "a release" else ("--no-tags",)
    run("git", "clone", "--quiet", *tags, release, place, cwd=tmp_path)
    return place


@pytest.fixture
def project(template: Path, run: Run, tmp_path: Path) -> Path:
    """A project of it with its lock file, both as they are copied into the image."""
    project = tmp_path / "my-project"
    command = (BIN / "copier", "copy", "--quiet", "--defaults", "--data", "containers=true")
    run(*command, "--vcs-ref", "HEAD", template, project, cwd=tmp_path)
    run("uv", "lock", "--quiet", cwd=project)
    return project


def test_a_runtime_of_this_machine_is_brought_in(template: Path, project: Path, run: Run, tmp_path: Path) -> None:
    """compose names the folders that pyproject.toml is pinned to, and the build puts them in their places."""
    document = yaml.safe_load((project / "compose.yaml").read_text("utf-8"))
    build = document["services"]["code"]["build"]
    place = build["args"]["PACKAGES_FOLDER"]
    assert place == str(template)
    # From here on the template is only where the build sees it: what compose names, where the Dockerfile mounts it.
    packages = tmp_path / "packages"
    mounts = dict(re.findall(r"from=(\w+),target=/packages/([^,]+),rw", (project / "Dockerfile").read_text("utf-8")))
    assert build["additional_contexts"].keys() <= mounts.keys()
    for name, brought in build["additional_contexts"].items():
        shutil.copytree(brought, packages / mounts[name])
    template.rename(tmp_path / "elsewhere")
    run(
        *("sh", "-c", build_step(project, packages)),
        cwd=project,
        PACKAGES_FOLDER=place,
        UV_CACHE_DIR=str(tmp_path / "cache"),
    )
    Path(place).unlink()
    found = f"import importlib.util; print(*(importlib.util.find_spec(name).origin for name in {OURS}))"
    assert run(project / ".venv/bin/python", "-c", found, cwd=tmp_path).stdout.count(str(project)) == len(OURS)


def test_a_build_without_it_says_how(project: Path, run: Run, tmp_path: Path) -> None:
    """`docker build` alone sees nothing but the project."""
    done = run("sh", "-c", build_step(project, tmp_path), cwd=project, check=False, PACKAGES_FOLDER="")
    assert done.returncode == 1
    assert "pins cascade-runtime to a folder of this machine" in done.stderr
    assert "docker compose build" in done.stderr


def test_a_runtime_from_a_url_needs_nothing(release: Path, run: Run, tmp_path: Path) -> None:
    """git fetches it in the build."""
    (tmp_path / "gitconfig").write_text(f'[url "file://{release}"]\ninsteadOf = https://git.example.com/org/cascade\n')
    source, project = "git+https://git.example.com/org/cascade", tmp_path / "my-project"
    git = {"GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig")}
    command = (BIN / "copier", "copy", "--quiet", "--defaults", "--data", "containers=true")
    run(*command, source, project, cwd=tmp_path, **git)
    assert "build" in yaml.safe_load((project / "compose.yaml").read_text("utf-8"))["services"]["code"]
    assert "additional_contexts" not in (project / "compose.yaml").read_text("utf-8")
    run("uv", "lock", "--quiet", cwd=project, **git)
    cache = str(tmp_path / "cache")
    run("sh", "-c", build_step(project, tmp_path), cwd=project, PACKAGES_FOLDER="", UV_CACHE_DIR=cache, **git)
    assert (project / ".venv/bin/cascade").exists()


@pytest.fixture(scope="module")
def containers(
    generate: Callable[..., Path], environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, int]]:
    """`code` and `web` with the commands that their containers have; ports of their own."""
    project = generate(containers="true")
    # What their environment names in the image; and patience, for a busy machine.
    home = str(tmp_path_factory.mktemp("home"))
    variables = environment | {"DAGSTER_HOME": str(project), "HOME": home, "DAGSTER_GRPC_TIMEOUT_SECONDS": "280"}
    variables["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"
    with contextlib.chdir(project), open_instance(load_settings(project)) as instance:
        tags = {GRPC_INFO_TAG: json.dumps({"host": "127.0.0.1", "port": 4000})}
        create_run_for_test(instance, run_id=KILLED_RUN, status=dg.DagsterRunStatus.STARTED, tags=tags)
    services = yaml.safe_load((project / "compose.yaml").read_text("utf-8"))["services"]
    last = (project / "Dockerfile").read_text("utf-8").splitlines()[-1]
    code, web = json.loads(last.removeprefix("CMD ")), services["web"]["command"]
    ports = {"code": _free_port(), "web": _free_port()}
    workspace = project / "services/dagster/workspace.yaml"
    text = workspace.read_text("utf-8").replace("host: code", "host: 127.0.0.1")
    workspace.write_text(text.replace("port: 4000", f"port: {ports['code']}"))
    code = ["127.0.0.1" if part == "code" else part for part in code]
    commands = {
        "code": [str(ports["code"]) if part == "4000" else part.replace("0.0.0.0", "127.0.0.1") for part in code],
        "web": [str(ports["web"]) if part == "3000" else part.replace("0.0.0.0", "127.0.0.1") for part in web],
    }
    checks = {
        "code": [part.replace(":4000", f":{ports['code']}") for part in services["code"]["healthcheck"]["test"]],
        "web": [part.replace(":3000", f":{ports['web']}") for part in services["web"]["healthcheck"]["test"]],
    }
    with contextlib.ExitStack() as ended:
        for name, command in commands.items():
            log = ended.enter_context((project / f"{name}.log").open("w"))
            tool, *arguments = command
            process = subprocess.Popen(
                [str(BIN / tool), *arguments],
                cwd=project,
                env=variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            ended.callback(_end, process)
            check = [str(BIN / checks[name][1]), *checks[name][2:]]
            _wait(check, project, variables, process)
        yield ports


def test_the_ui_shows_what_the_code_server_holds(containers: dict[str, int]) -> None:
    """Health checks as compose makes them have passed; the location loads without an error."""
    query = (
        "{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError "
        "{ __typename ... on PythonError { message } } } } } }"
    )
    entries = _ask(containers["web"], query)["workspaceOrError"]["locationEntries"]
    assert entries == [{"name": "my_project", "locationOrLoadError": {"__typename": "RepositoryLocation"}}]


def test_a_run_that_ended_with_the_code_server_before_is_over(containers: dict[str, int]) -> None:
    """It would hold its place in the pool of promotions for ever."""
    query = f'{{ runOrError(runId: "{KILLED_RUN}") {{ ... on Run {{ status }} }} }}'
    assert _ask(containers["web"], query)["runOrError"] == {"status": "FAILURE"}


def _ask(port: int, query: str) -> Any:
    """Send one GraphQL request to Dagster's UI and return its answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)["data"]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _wait(check: list[str], project: Path, variables: dict[str, str], process: subprocess.Popen[bytes]) -> None:
    """Wait for the health check that compose would make."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        done = subprocess.run(check, cwd=project, env=variables, capture_output=True, text=True)
        if done.returncode == 0:
            return
        logs = {path.name: path.read_text()[-2000:] for path in project.glob("*.log")}
        assert process.poll() is None, logs
        assert time.monotonic() < deadline, (check, done.stderr[-1000:], logs)
        time.sleep(1)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the process that it serves the code from
        process.wait()
