"""The files of a project: its root folder, and those that settings are written in. pydantic-settings reads them.

What is ours is what it does not do: it lets the errors of the parsers through, without the file.
"""

from __future__ import annotations

import io
import os
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic_settings import BaseSettings, DotEnvSettingsSource, TomlConfigSettingsSource

from cascade.errors import ConfigurationError, ProjectNotFoundError
from cascade.names import PROJECT_DIR_VARIABLE

__all__ = ["find_project_dir", "read_dotenv", "read_python", "read_toml", "read_yaml"]


class _Yaml(yaml.SafeLoader):
    """Passes over what is for Compose alone, as `ports: !override […]` in the table `services`."""


for _tag in ("!override", "!reset"):
    _Yaml.add_constructor(_tag, lambda *_: None)


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


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file; nothing without the file."""
    found: dict[str, Any] = _read(path, lambda: TomlConfigSettingsSource(BaseSettings, path).toml_data)
    return found


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the dictionary in a YAML file; nothing without the file. What has a tag of its own is `None`."""
    content = _read(path, lambda: _Yaml(path.read_text("utf-8")).get_single_data())
    return _dictionary({} if content is None else content, path.name, path, "branch: dev")


def read_python(path: Path) -> dict[str, Any]:
    """Execute a Python file and return its variables; nothing without the file."""
    if not path.is_file():
        return {}
    try:
        names = runpy.run_path(str(path))
    except Exception as error:
        raise ConfigurationError(
            f"{path.name} fails: {type(error).__name__}: {error}", where=str(path), fix="correct the file."
        ) from error
    _dictionary(names.setdefault("CASCADE_CONFIG", {}), f"CASCADE_CONFIG in {path.name}", path, '{"branch": "dev"}')
    return names


def read_dotenv(path: Path) -> dict[str, str | None]:
    """Return the variables of an `.env` file, with `${NAME}` replaced; nothing without the file."""
    from dotenv.parser import parse_stream

    # Lines that are no assignment are passed over by every reader of such files.
    for line in _read(path, lambda: list(parse_stream(io.StringIO(path.read_text("utf-8"))))) or ():
        if line.error:
            raise ConfigurationError(
                f"Line {line.original.line} of {path.name} is not NAME=value.",  # not shown: it may hold a password
                where=str(path),
                fix="correct it, or turn it into a comment: begin it with #.",
            )
    source = DotEnvSettingsSource(BaseSettings, env_file=path, case_sensitive=True)
    return dict(source.env_vars)


def _read(path: Path, read: Callable[[], Any]) -> Any:
    if not path.is_file():
        return {}
    try:
        return read()
    except (OSError, ValueError, yaml.YAMLError) as error:
        fix = "save it as UTF-8 text." if isinstance(error, UnicodeError) else "correct the file at that line."
        raise ConfigurationError(f"{path.name} cannot be read: {error}", where=str(path), fix=fix) from error


def _dictionary(content: Any, name: str, path: Path, example: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        what = f"{name} must be a dictionary: names and values of settings."
        raise ConfigurationError(what, where=str(path), fix=f"for example {example}.")
    return content
