"""Find the root folder of a project."""

from __future__ import annotations

import os
from pathlib import Path

from cascade.config.files import read_toml
from cascade.errors import ConfigurationError, ProjectNotFoundError
from cascade.names import PROJECT_DIR_VARIABLE

__all__ = ["find_project_dir"]


def find_project_dir(start: Path | None = None) -> Path:
    """Return the root of the project around a folder.

    Args:
        start: Where to begin; the working folder by default.

    Returns:
        `CASCADE_PROJECT_DIR`, else the nearest folder upward whose `pyproject.toml` has `[tool.cascade]`.

    Raises:
        ProjectNotFoundError: There is no such folder.
        ConfigurationError: `CASCADE_PROJECT_DIR` or a `pyproject.toml` is wrong.
    """
    if named := os.environ.get(PROJECT_DIR_VARIABLE):
        root = Path(named).expanduser().absolute()
        if not root.is_dir():
            raise ConfigurationError(
                f"{PROJECT_DIR_VARIABLE} names a folder that does not exist.",
                where=str(root),
                fix=f"unset {PROJECT_DIR_VARIABLE}, or set it to a project's root folder.",
            )
        return root
    begin = (start or Path.cwd()).absolute()
    for folder in (begin, *begin.parents):
        if "cascade" in read_toml(folder / "pyproject.toml").get("tool", {}):
            return folder
    raise ProjectNotFoundError(
        "This is not a Cascade project: no pyproject.toml with a [tool.cascade] table here or above.",
        where=str(begin),
        fix=f"change into a project's folder, set {PROJECT_DIR_VARIABLE}, or create a project with `copier copy`.",
    )
