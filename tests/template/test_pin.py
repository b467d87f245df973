"""The pins of the runtime and its extensions: the commit of the template, so that pip and uv both understand it."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from support.copies import Run, commit_all
from support.generated import BIN, EXTENSIONS, EXTRAS, REPOSITORY


def pin(project: Path) -> str:
    """Return the runtime's pin, once it is sure that the extensions come from the same place."""
    manifest = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    runtime, *extensions = (line for line in manifest["project"]["dependencies"] if line.startswith("cascade-"))
    at = runtime.removeprefix("cascade-runtime @ ").removesuffix("runtime")
    assert extensions == [f"cascade-{name} @ {at}extensions/{name}" for name in EXTENSIONS]
    optional = manifest["project"]["optional-dependencies"]
    assert {name: optional[name] for name in EXTRAS} == {
        name: [f"cascade-{name} @ {at}extensions/{name}"] for name in EXTRAS
    }
    return str(runtime)


def test_every_package_of_the_repository_is_offered_to_a_project() -> None:
    assert sorted(EXTENSIONS + EXTRAS) == sorted(
        path.parent.name for path in REPOSITORY.glob("extensions/*/pyproject.toml")
    )


@pytest.fixture
def everywhere(release: Path, environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Git finds every host in a local folder: nothing leaves this machine."""
    lines = [Path(environment["GIT_CONFIG_GLOBAL"]).read_text(), f'[url "file://{release}"]']
    for host in (
        "https://github.com/",
        "https://gitlab.com/",
        "https://git.example.com/",
        "git@git.example.com:",
    ):
        lines += [f"insteadOf = {host}org/cascade.git", f"insteadOf = {host}org/cascade"]
    (tmp_path / "gitconfig").write_text("\n".join(lines) + "\n")
    return {"GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig")}


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ("gh:org/cascade", "git+https://github.com/org/cascade"),
        ("gl:org/cascade", "git+https://gitlab.com/org/cascade"),
        ("https://github.com/org/cascade", "git+https://github.com/org/cascade"),
        ("https://github.com/org/cascade.git", "git+https://github.com/org/cascade.git"),
        ("git+https://git.example.com/org/cascade", "git+https://git.example.com/org/cascade"),
        ("git@git.example.com:org/cascade.git", "git+ssh://git@git.example.com/org/cascade.git"),
    ],
)
def test_a_released_url_is_pinned_by_its_tag(
    source: str, url: str, everywhere: dict[str, str], run: Run, tmp_path: Path
) -> None:
    command = (BIN / "copier", "copy", "--quiet", "--defaults", source, tmp_path / "x")
    run(*command, cwd=tmp_path, **everywhere)
    assert pin(tmp_path / "x") == f"cascade-runtime @ {url}@v0.1.0#subdirectory=runtime"


def test_an_unreleased_url_is_pinned_by_its_commit(release: Path, run: Run, tmp_path: Path) -> None:
    later = tmp_path / "cascade"
    run("git", "clone", "--quiet", release, later, cwd=tmp_path)
    (later / "NEWS").write_text("later\n")
    commit_all(run, later, "later")
    commit = run("git", "rev-parse", "HEAD", cwd=later).stdout.strip()
    source = f"file://{later}"
    run(
        *(BIN / "copier", "copy", "-q", "--defaults", "-r", "HEAD", f"git+{source}", tmp_path / "x"),
        cwd=tmp_path,
    )
    expected = f"cascade-runtime @ git+file://localhost{later}@{commit}#subdirectory=runtime"
    assert pin(tmp_path / "x") == expected


def test_a_released_folder_is_pinned_by_its_tag(release: Path, run: Run, tmp_path: Path) -> None:
    run(*(BIN / "copier", "copy", "-q", "--defaults", release, tmp_path / "x"), cwd=tmp_path)
    assert pin(tmp_path / "x") == f"cascade-runtime @ git+file://localhost{release}@v0.1.0#subdirectory=runtime"


def test_a_folder_with_a_space_in_its_name_is_quoted(release: Path, run: Run, tmp_path: Path) -> None:
    spaced = tmp_path / "my cascade"
    run("git", "clone", "--quiet", release, spaced, cwd=tmp_path)
    run(*(BIN / "copier", "copy", "-q", "--defaults", spaced, tmp_path / "x"), cwd=tmp_path)
    assert f"file://localhost{tmp_path}/my%20cascade@v0.1.0#" in pin(tmp_path / "x")


def test_pip_understands_the_pin_of_a_release(release: Path, run: Run, tmp_path: Path) -> None:
    """The pip that comes with Python 3.11 refuses `git+file:///`."""
    run(*(BIN / "copier", "copy", "-q", "--defaults", release, tmp_path / "x"), cwd=tmp_path)
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    pip = (tmp_path / "venv/bin/python", "-m", "pip")
    run(*pip, "install", "--quiet", "--dry-run", "--no-deps", pin(tmp_path / "x"), cwd=tmp_path)
