"""Generate projects as a user does: copier's command line, standard input closed, no `--trust`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.copies import Run, commit_all
from support.generated import BIN, REPOSITORY, stranger


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a stranger, who has never used copier either."""
    home = tmp_path_factory.mktemp("home")
    return stranger(home) | {"COPIER_CACHE_DIR": str(home / "copier-cache"), "UV_NO_PROGRESS": "1"}


@pytest.fixture(scope="session")
def run(environment: dict[str, str]) -> Run:
    """Run a command with standard input closed; by default it must succeed."""

    def run(*command: str | Path, cwd: Path, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{command} exited {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done

    return run


@pytest.fixture(scope="session")
def generate(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Generate a project from this checkout, uncommitted changes included."""

    def generate(name: str = "my-project", **answers: str) -> Path:
        target = tmp_path_factory.mktemp("generated") / name
        data = [part for key, value in answers.items() for part in ("--data", f"{key}={value}")]
        run(
            *(BIN / "copier", "copy", "--quiet", "--defaults", "--vcs-ref", "HEAD"),
            *(*data, REPOSITORY, target),
            cwd=target.parent,
        )
        return target

    return generate


@pytest.fixture(scope="session")
def release(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the files of this checkout, tagged as release v0.1.0."""
    place = tmp_path_factory.mktemp("released") / "cascade"
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=REPOSITORY).stdout
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, place / name)
    commit_all(run, place, "first release")
    run("git", "tag", "v0.1.0", cwd=place)
    return place
