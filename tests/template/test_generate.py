"""Generating: whatever is answered, the files are whole, tidy and the owner's."""

from __future__ import annotations

import ast
import datetime as dt
import gzip
import os
import pty
import select
import subprocess
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from support.copies import Run, commit_all, tree
from support.generated import BIN, EXTENSIONS, REPOSITORY

DEFAULT: dict[str, str] = {}
OTHER = {
    "project_name": "Weather_Hub-2",
    "description": 'Wetter für "alle": \\o/, it\'s {{ free }}',
    "author_name": "Zoë O'Neil & Söhne",
    "engine": "trino",
    "ci": "none",
}
EXPECTED = {
    ".copier-answers.yml",
    ".env.example",
    ".github/workflows/ci.yml",
    ".gitignore",
    "README.md",
    "dagster.yaml",
    "data/weather.csv.gz",
    "definitions.py",
    "pyproject.toml",
    "tests/test_project.py",
    "tests/test_weather.py",
    "transforms/dbt/dbt_project.yml",
    "workflows/ingestion/weather.py",
    "workflows/quality/weather.py",
    "workflows/schemas/weather.py",
    "workspace.yaml",
}
CONTAINERS = {
    ".compose-lint.yml",
    ".dockerignore",
    "Dockerfile",
    "compose.yaml",
    "services/dagster/workspace.yaml",
    "services/env.example",
    "services/nessie/application.properties",
    "services/postgres/roles.sql",
    "services/trino/access-control.properties",
    "services/trino/catalog/main.properties",
    "services/trino/config.properties",
    "services/trino/rules.json",
}
NOTHING = {"example": "none"}


@pytest.fixture(
    scope="module", params=[DEFAULT, OTHER, NOTHING], ids=["default answers", "other answers", "no example"]
)
def answers(request: pytest.FixtureRequest) -> dict[str, str]:
    """What is answered."""
    return request.param


@pytest.fixture(scope="module")
def project(generate: Callable[..., Path], answers: dict[str, str]) -> Path:
    """The project that these answers make."""
    return generate(**answers)


def test_all_files_are_there(project: Path, answers: dict[str, str]) -> None:
    files, weather = set(tree(project)), {name for name in EXPECTED if "weather" in name}
    expected = EXPECTED - {".github/workflows/ci.yml"} if answers.get("ci") == "none" else EXPECTED
    expected |= CONTAINERS if "engine" in answers else set()
    expected -= weather if "example" in answers else set()
    assert expected <= files
    assert (project / ".github").exists() == (answers.get("ci") != "none")
    assert "engine" in answers or not CONTAINERS & files
    assert "example" not in answers or not [name for name in files if "weather" in name or "/models/" in name]


def test_git_and_the_image_leave_secrets_out(project: Path, run: Run) -> None:
    """What dlt reads its keys from as well: the tutorial says `git add -A`."""
    commit_all(run, project, "start")
    secrets = [".env", ".dlt/secrets.toml", ".dlt/dev.secrets.toml"]
    for name in [*secrets, ".dlt/config.toml"]:
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("")
    found = run("git", "status", "--porcelain", "--untracked-files=all", cwd=project).stdout.split()
    for name in [*secrets, ".dlt/config.toml"]:
        (project / name).unlink()
    assert found == ["??", ".dlt/config.toml"]
    if (project / ".dockerignore").exists():
        ignored = (project / ".dockerignore").read_text("utf-8").splitlines()
        assert {".env", "**/secrets.toml", "**/*.secrets.toml"} <= set(ignored)


class _ComposeLoader(yaml.SafeLoader):
    """Reads compose's own tags as well: `!reset` and `!override`, of files that are merged into another."""


_ComposeLoader.add_multi_constructor("!", lambda loader, tag, node: None)


def test_every_file_can_be_read_by_its_tool(project: Path) -> None:
    for name, content in tree(project).items():
        match Path(name).suffix:
            case ".yml" | ".yaml":
                yaml.load(content, _ComposeLoader)  # a safe one
            case ".toml":
                tomllib.loads(content.decode("utf-8"))
            case ".py":
                ast.parse(content)
            case ".gz":
                assert gzip.decompress(content).startswith(b"origin,")


def test_nothing_of_the_template_is_left(project: Path, answers: dict[str, str]) -> None:
    """Double braces belong to dbt alone; the rest is rendered."""
    for name, content in tree(project).items():
        if name.startswith("transforms/") or name.endswith(".gz"):
            continue
        text = content.decode("utf-8").replace(answers.get("description", "\0"), "")
        if name == ".copier-answers.yml":
            continue
        assert "{{" not in text.replace("{{ free }}", ""), name
        assert "{%" not in text, name
        assert text.endswith("\n"), name
        assert not text.endswith("\n\n"), name
    assert not [name for name in tree(project) if ".jinja" in name or "{" in name]


def test_the_files_carry_the_owners_words(project: Path, answers: dict[str, str]) -> None:
    name = answers.get("project_name", "my-project")
    manifest = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    package = name.lower().replace("-", "_")
    assert manifest["project"]["name"] == name
    assert manifest["project"]["description"] == answers.get("description", "A lakehouse made with Cascade")
    assert manifest["project"]["authors"] == [{"name": answers.get("author_name", "Data Team")}]
    assert manifest["tool"]["dg"]["project"]["code_location_name"] == package
    owners = [f"team:{answers.get('author_name', 'Data Team')}"]
    assert manifest["tool"]["cascade"] == {"engine": answers.get("engine", "embedded"), "owners": owners}
    workspace = yaml.safe_load((project / "workspace.yaml").read_text("utf-8"))
    assert workspace["load_from"][0]["python_file"]["location_name"] == package
    assert (project / "README.md").read_text("utf-8").startswith(f"# {name}\n")


def test_the_project_passes_its_own_linter(project: Path, run: Run) -> None:
    run(BIN / "ruff", "check", "--no-cache", cwd=project)
    run(BIN / "ruff", "format", "--check", "--no-cache", cwd=project)


def test_the_runtime_is_that_of_the_checkout(project: Path) -> None:
    """A local template without a release tag pins the folder beside it."""
    manifest = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    pins = {f"cascade-{name} @ file://{REPOSITORY}/extensions/{name}" for name in EXTENSIONS}
    pins.add(f"cascade-runtime @ file://{REPOSITORY}/runtime")
    assert pins <= set(manifest["project"]["dependencies"])


def test_the_folder_and_the_day_leave_no_trace(generate: Callable[..., Path]) -> None:
    """Rendered files must not depend on where and when: every update would see a change."""
    one, two = (tree(generate(folder, project_name="same")) for folder in ("one", "two"))
    # Uncommitted changes are committed by copier in a temporary clone, anew each time.
    for files in (one, two):
        files[".copier-answers.yml"] = b"\n".join(
            line for line in files[".copier-answers.yml"].splitlines() if not line.startswith(b"_commit")
        )
    assert one == two
    today = dt.datetime.now(dt.UTC).date().isoformat().encode()
    assert not [name for name, content in one.items() if today in content]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("shop-lake", "shop-lake"),
        ("Shop_Lake2", "Shop_Lake2"),
        ('2nd shop -- "größe" 1.', "nd-shop-gr-e-1"),
        ("☂", "my-project"),
    ],
)
def test_a_project_is_named_as_its_folder(folder: str, name: str, generate: Callable[..., Path]) -> None:
    manifest = tomllib.loads((generate(folder) / "pyproject.toml").read_text("utf-8"))
    assert manifest["project"]["name"] == name


def test_files_for_containers_come_when_the_question_is_answered_again(release: Path, run: Run, tmp_path: Path) -> None:
    project, source = tmp_path / "my-project", f"git+file://{release}"
    run(BIN / "copier", "copy", "--quiet", "--defaults", source, project, cwd=tmp_path)
    commit_all(run, project, "start")
    again = ("--vcs-ref", ":current:", "--defaults", "--data", "containers=true")
    run(BIN / "copier", "update", *again, cwd=project)
    changed = run("git", "status", "--porcelain", "--untracked-files=all", cwd=project).stdout.splitlines()
    assert {line[3:] for line in changed if line.startswith("??")} >= CONTAINERS
    assert [line for line in changed if not line.startswith("??")] == [" M .copier-answers.yml"]


def test_git_ignores_what_tools_write(generate: Callable[..., Path], run: Run) -> None:
    project = generate()
    commit_all(run, project, "start")
    for name in (".env", ".cascade/x", ".dagster/x", ".tmp_dagster_home_1/x", "transforms/dbt/target/x"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x")
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("project_name", "has spaces"),
        ("project_name", "../evil"),
        ("project_name", "9lives"),
        ("project_name", "-x"),
        ("project_name", "Dagster"),
        ("project_name", ""),
        ("description", ""),
        ("description", "two\nlines"),
        ("author_name", " "),
        ("engine", "spark"),
        ("ci", "jenkins"),
        ("example", "stocks"),
    ],
)
def test_a_wrong_answer_is_refused(question: str, answer: str, run: Run, tmp_path: Path) -> None:
    """The message names the question and gives an example; nothing is written."""
    command = (BIN / "copier", "copy", "--defaults", "--vcs-ref", "HEAD", "--data", f"{question}={answer}")
    done = run(*command, REPOSITORY, tmp_path / "x", cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert not (tmp_path / "x").exists()
    choice = question in ("engine", "ci", "example")
    assert choice or question in done.stderr
    assert choice or "for example" in done.stderr


def test_a_relative_template_is_refused_with_the_way_out(run: Run, tmp_path: Path) -> None:
    """`copier update` could not find the template again."""
    command = (BIN / "copier", "copy", "--defaults", "--vcs-ref", "HEAD", ".", tmp_path / "x")
    done = run(*command, cwd=REPOSITORY, check=False)
    assert done.returncode != 0
    assert 'copier copy "$PWD" ../my-project' in done.stderr
    assert not (tmp_path / "x").exists()


def test_enter_is_answer_enough(environment: dict[str, str], tmp_path: Path) -> None:
    """A newcomer at a terminal presses Enter at every question."""
    ours, theirs = pty.openpty()
    command = [BIN / "copier", "copy", "--vcs-ref", "HEAD", REPOSITORY, tmp_path / "my-project"]
    terminal = environment | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(command, cwd=tmp_path, env=terminal, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen, deadline = b"", time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if select.select([ours], [], [], 0.5)[0]:
            try:
                seen += os.read(ours, 65536)
            except OSError:  # the other side has closed its terminal
                break
            if b"\x1b[6n" in seen:  # it asks where the cursor is
                os.write(ours, b"\x1b[1;1R")
                seen = seen.replace(b"\x1b[6n", b"")
        else:
            os.write(ours, b"\r")
    assert process.wait(timeout=30) == 0, seen.decode("utf-8", "replace")[-2000:]
    os.close(ours)
    assert set(tree(tmp_path / "my-project")) >= EXPECTED


SCRIPT = """\
type: dagster.PythonScriptComponent
attributes:
  execution:
    path: script.py
  assets:
    - key: sync/done
"""


def test_what_dg_scaffolds_is_found_and_a_script_is_executed_by_a_run_alone(
    generate: Callable[..., Path], run: Run
) -> None:
    project = generate(example="none")
    path = os.pathsep.join((str(BIN), os.environ["PATH"]))
    run(BIN / "dg", "scaffold", "defs", "dagster.asset", "assets/stock.py", cwd=project, PATH=path)
    run(BIN / "dg", "scaffold", "defs", "dagster.PythonScriptComponent", "sync", cwd=project, PATH=path)
    component = project / "workflows" / "sync"
    assert [file.name for file in component.iterdir()] == ["defs.yaml"]
    (component / "defs.yaml").write_text(SCRIPT)
    (component / "script.py").write_text("open('executed', 'x').close()\n")
    said = run(BIN / "cascade", "validate", cwd=project).stdout
    assert "assets: cascade/promote, cascade/publish, stock, sync/done\n" in said
    assert not list(project.rglob("executed"))
    run(BIN / "cascade", "run", cwd=project)
    assert len(list(project.rglob("executed"))) == 1
