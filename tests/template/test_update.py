"""Updating: a later release arrives without a conflict, and everything the user wrote is still there."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from support.copies import Run, commit_all, tree
from support.generated import BIN, EXTENSIONS, EXTRAS, share_bytecode

WORKFLOW = "workflows/ingestion/weather.py"
MODEL = "transforms/dbt/models/gold/weather_daily.sql"

# What a user does between two releases, in every zone: in this file, this text becomes that one.
EDITS = {
    WORKFLOW: ("Hourly observations at EWR", "Our own words: hourly observations at EWR"),
    MODEL: ("-- The weather of a day", "-- Our own words: the weather of a day"),
    "README.md": ("## Start", "## Our own start"),
    "tests/test_project.py": ("The project loads as a whole.", "Our own words."),
    "pyproject.toml": ("below this line.\n", "below this line.\n[tool.ours]\nkey = 1\n"),
    ".gitignore": ("go below this line\n", "go below this line\n/our-notes/\n"),
    ".env.example": ("go below this line.\n", "go below this line.\nOUR_KEY=\n"),
    "dagster.yaml": (
        "go below this line.\n",
        "go below this line.\nretention:\n  sensor:\n    purge_after_days: 7\n",
    ),
    "workspace.yaml": (
        "go below this line.\n",
        "go below this line.\n  # - python_file: our_other_location.py\n",
    ),
    "compose.yaml": ("their own limits.\n", "their own limits.\n  ours:\n    <<: *service\n    image: ours:1\n"),
    "Dockerfile": ("Your own steps go below this line.\n", "Your own steps go below this line.\nRUN ours\n"),
    ".dockerignore": ("go below this line.\n", "go below this line.\nour-notes/\n"),
    "services/env.example": ("in compose.yaml can use them.\n", "in compose.yaml can use them.\nOURS=<generated>\n"),
    "services/trino/config.properties": ("coordinator=true\n", "coordinator=true\nquery.max-run-time=1h\n"),
}


@pytest.fixture(scope="module")
def releases(release: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two releases; the second changes files of every zone and adds and removes some."""
    place = tmp_path_factory.mktemp("releases") / "cascade"
    run("git", "clone", "--quiet", release, place, cwd=release)
    template = place / "template"
    _replace(template / "pyproject.toml.jinja", '"pytest>=9,<10"', '"pytest>=9,<11"')
    _replace(template / "dagster.yaml", "  pools:\n", "  # A later release explains more.\n  pools:\n")
    _replace(template / ".env.example", "# CASCADE_BRANCH=dev\n", "# CASCADE_BRANCH=dev\n# CASCADE_NEW=1\n")
    _replace(template / "compose.yaml.jinja", "trinodb/trino:", "docker.io/trinodb/trino:")
    _replace(template / "Dockerfile", "ARG PYTHON=3.1", "ARG PYTHON=3.01")
    _replace(template / "services/env.example", "TRINO_PORT=8080", "TRINO_PORT=8080\nLATER_PORT=1")
    _replace(template / ".gitignore", ".cascade/\n", ".cascade/\n.cascade-cache/\n")
    _replace(template / WORKFLOW, '"""Hourly weather of', '"""The hourly weather of')
    _replace(template / MODEL, "group by", "-- A later release explains more.\ngroup by")
    (template / "tests/test_later.py").write_text('"""A later seed."""\n')
    (template / "LATER.md").write_text("A later file of the framework.\n")
    for package in ("runtime", *(f"extensions/{name}" for name in EXTENSIONS + EXTRAS)):
        manifest = place / package / "pyproject.toml"
        versions = r'(^version = "|"cascade-\w+==).*?"'
        manifest.write_text(re.sub(versions, r'\g<1>0.2.0"', manifest.read_text("utf-8"), flags=re.MULTILINE))
    commit_all(run, place, "second release")
    run("git", "tag", "v0.2.0", cwd=place)
    return place


@pytest.fixture(scope="module")
def updated(releases: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of the first release that its user changed, after `copier update`."""
    project = tmp_path_factory.mktemp("updated") / "my-project"
    run(*_copy(releases, project, "v0.1.0"), cwd=project.parent)
    commit_all(run, project, "start")
    for name, (before, after) in EDITS.items():
        _replace(project / name, before, after)
    (project / "workflows" / "ingestion" / "ours.py").write_text('"""Ours."""\n')
    (project / "data" / "README.md").unlink()
    (project / ".env").write_text("CASCADE_BRANCH=mine\n")
    # uv appends them, below our lines.
    run("uv", "add", "--frozen", "anyio>=4", "humanize>=4", cwd=project)
    run("uv", "add", "--frozen", "--dev", "pluggy>=1.6", cwd=project)
    commit_all(run, project, "our own work")
    run(BIN / "copier", "update", "--defaults", cwd=project)
    return project


def test_no_conflict_is_left(updated: Path) -> None:
    for name, content in tree(updated).items():
        assert b"<<<<<<<" not in content, name
        assert b">>>>>>>" not in content, name
        assert not name.endswith(".rej")


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_is_alive(name: str, updated: Path) -> None:
    assert EDITS[name][1] in (updated / name).read_text("utf-8")


def test_what_the_user_added_and_removed_stays_so(updated: Path) -> None:
    assert (updated / "workflows/ingestion/ours.py").read_text() == '"""Ours."""\n'
    assert not (updated / "data/README.md").exists()
    assert (updated / ".env").read_text() == "CASCADE_BRANCH=mine\n"


def test_seeds_are_not_looked_at(updated: Path, run: Run) -> None:
    """Workflows, models, tests, data and README are the user's: an update neither changes nor adds any."""
    changed = run("git", "status", "--porcelain", cwd=updated).stdout
    for seed in ("workflows", "transforms", "tests", "data", "README.md"):
        assert seed not in changed


def test_the_framework_moved(updated: Path, releases: Path) -> None:
    manifest = tomllib.loads((updated / "pyproject.toml").read_text("utf-8"))
    assert manifest["project"]["dependencies"] == [
        f"cascade-runtime @ git+file://localhost{releases}@v0.2.0#subdirectory=runtime",
        *(
            f"cascade-{name} @ git+file://localhost{releases}@v0.2.0#subdirectory=extensions/{name}"
            for name in EXTENSIONS
        ),
        "anyio>=4",
        "humanize>=4",
    ]
    for name in EXTRAS:
        (pinned,) = manifest["project"]["optional-dependencies"][name]
        assert pinned == f"cascade-{name} @ git+file://localhost{releases}@v0.2.0#subdirectory=extensions/{name}"
    assert {"pytest>=9,<11", "pluggy>=1.6"} <= set(manifest["dependency-groups"]["dev"])
    assert "_commit: v0.2.0" in (updated / ".copier-answers.yml").read_text("utf-8")
    assert "# A later release explains more." in (updated / "dagster.yaml").read_text("utf-8")
    assert "# CASCADE_NEW=1" in (updated / ".env.example").read_text("utf-8")
    assert "image: docker.io/trinodb/trino:" in (updated / "compose.yaml").read_text("utf-8")
    assert "ARG PYTHON=3.01" in (updated / "Dockerfile").read_text("utf-8")
    assert "LATER_PORT=1" in (updated / "services/env.example").read_text("utf-8")
    assert ".cascade-cache/" in (updated / ".gitignore").read_text("utf-8")
    assert (updated / "LATER.md").is_file()


def test_updating_again_changes_nothing(updated: Path, run: Run, tmp_path: Path) -> None:
    project = tmp_path / "my-project"
    shutil.copytree(updated, project, ignore=shutil.ignore_patterns(".venv"))
    commit_all(run, project, "updated")
    run(BIN / "copier", "update", "--defaults", cwd=project)
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""


def test_the_updated_project_is_green(updated: Path, run: Run) -> None:
    """The new runtime is installed, and the project's own tests pass with it."""
    run("uv", "sync", cwd=updated)
    share_bytecode(updated / ".venv")
    python = updated / ".venv" / "bin" / "python"
    version = "from importlib.metadata import version; print(version('cascade-runtime'))"
    assert run(python, "-c", version, cwd=updated).stdout.strip() == "0.2.0"
    run(updated / ".venv" / "bin" / "pytest", "-q", cwd=updated)


def test_updating_equals_generating_anew(releases: Path, run: Run, tmp_path: Path) -> None:
    """Whoever changed nothing has, after an update, what a newcomer has; seeds apart."""
    old, new = tmp_path / "old" / "my-project", tmp_path / "new" / "my-project"
    run(*_copy(releases, old, "v0.1.0"), cwd=tmp_path)
    commit_all(run, old, "start")
    run(BIN / "copier", "update", "--defaults", cwd=old)
    run(*_copy(releases, new, "v0.2.0"), cwd=tmp_path)
    assert _framework_owned(old) == _framework_owned(new)


def test_a_project_made_before_the_first_release_reaches_it(release: Path, run: Run, tmp_path: Path) -> None:
    """Its pin names a folder then, and the release's tag afterwards."""
    template, project = tmp_path / "cascade", tmp_path / "my-project"
    run("git", "clone", "--quiet", "--no-tags", release, template, cwd=tmp_path)
    run(*_copy(template, project, "HEAD"), cwd=tmp_path)
    assert f"file://{template}/runtime" in (project / "pyproject.toml").read_text("utf-8")
    commit_all(run, project, "start")
    (template / "NEWS").write_text("The first release.\n")
    commit_all(run, template, "first release")
    run("git", "tag", "v0.1.0", cwd=template)
    run(BIN / "copier", "update", "--defaults", cwd=project)
    assert f"file://localhost{template}@v0.1.0" in (project / "pyproject.toml").read_text("utf-8")


def test_generating_again_leaves_seeds_alone(releases: Path, run: Run, tmp_path: Path) -> None:
    """`copier recopy` renders everything again, but not what belongs to the user."""
    project = tmp_path / "my-project"
    run(*_copy(releases, project, "v0.1.0"), cwd=tmp_path)
    commit_all(run, project, "start")
    _replace(project / WORKFLOW, *EDITS[WORKFLOW])
    commit_all(run, project, "our own work")
    run(BIN / "copier", "recopy", "--defaults", "--overwrite", cwd=project)
    assert EDITS[WORKFLOW][1] in (project / WORKFLOW).read_text("utf-8")


def _copy(source: Path, target: Path, tag: str) -> tuple[str | Path, ...]:
    asked = ("--data", "containers=true")
    return (BIN / "copier", "copy", "--quiet", "--defaults", *asked, "--vcs-ref", tag, source, target)


def _replace(path: Path, before: str, after: str) -> None:
    text = path.read_text("utf-8")
    assert before in text, f"{path} does not hold {before!r}"
    path.write_text(text.replace(before, after, 1), "utf-8")


def _framework_owned(project: Path) -> dict[str, bytes]:
    seeds = ("workflows/", "transforms/", "tests/", "data/", "README.md")
    return {name: content for name, content in tree(project).items() if not name.startswith(seeds)}
