"""What is wrong with the environment that a project is installed in: moved, another one's, or of wrong versions."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path

from cascade.errors import ConfigurationError

__all__ = ["inspect_installation"]

# Commands that users call, and that Cascade calls.
_SCRIPTS = ("cascade", "dagster", "dbt", "dg", "pytest")
_OURS = re.compile(r"cascade-[a-z]+")


def inspect_installation(project_dir: Path) -> Iterator[ConfigurationError]:
    """Yield what is wrong with the environment that this command runs in.

    Args:
        project_dir: The project's root folder.
    """
    environment = project_dir / ".venv"
    if moved := [name for name in _SCRIPTS if _leads_elsewhere(environment, environment / "bin" / name)]:
        yield ConfigurationError(
            f"The project was moved or copied; commands of its environment lead to another folder: {', '.join(moved)}.",
            where=str(environment / "bin"),
            fix="rm -rf .venv && uv sync",
        )
    elif environment.is_dir() and Path(sys.prefix).resolve() != environment.resolve():
        yield ConfigurationError(
            "This command is not the one that is installed in the project, whose packages may be others.",
            where=f"it runs in {sys.prefix}, the project has {environment}",
            fix="uv run cascade …",
        )
    yield from _versions()


def _leads_elsewhere(environment: Path, script: Path) -> bool:
    """Say whether a script names the interpreter of another environment than the one that it lies in."""
    try:
        head = "\n".join(script.read_text("utf-8", errors="replace").splitlines()[:3])
    except OSError:
        return False  # it is not installed
    return "/python" in head and not any(f"{place}/" in head for place in (environment, environment.resolve()))


def _versions() -> Iterator[ConfigurationError]:
    """Compare the packages of Cascade, and what they need, with what is installed."""
    ours = {str(one.name): one for one in distributions() if _OURS.fullmatch(str(one.name))}
    wrong = [problem for name in sorted(ours) for problem in _unmet(ours[name])]
    if wrong:
        yield ConfigurationError(
            f"Packages are missing, or of versions that do not work together: {'; '.join(dict.fromkeys(wrong))}.",
            where=sys.prefix,
            fix="uv sync",
        )


def _unmet(package: Distribution) -> Iterator[str]:
    from packaging.requirements import Requirement

    for text in package.requires or ():
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        found = None
        with contextlib.suppress(PackageNotFoundError):
            found = distribution(needed.name).version
        if found is None or not needed.specifier.contains(found, prereleases=True):
            yield f"{package.name} needs {needed.name}{needed.specifier}, there is {found or 'none'}"
