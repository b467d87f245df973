"""Read the files that settings are written in. One that cannot be read is an error with the line and a fix.

Our own readers, not those of pydantic-settings: its import takes 0.08 CPU-s of every command, and its sources raise
the bare errors of the parsers, without the file.
"""

from __future__ import annotations

import io
import runpy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cascade.errors import ConfigurationError

__all__ = ["read_dotenv", "read_python", "read_toml", "read_yaml"]


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file; nothing when there is no such file."""
    found: dict[str, Any] = _read(path, tomllib.loads) or {}
    return found


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; nothing when there is no such file."""
    content = _read(path, _parse_yaml) or {}
    return _mapping(content, path.name, path, "branch: dev")


def read_python(path: Path) -> dict[str, Any]:
    """Execute a Python file and return its variables; those in its dictionary `CASCADE_CONFIG` count as well."""
    if not path.is_file():
        return {}
    try:
        names = runpy.run_path(str(path))
    except Exception as error:
        raise ConfigurationError(
            f"{path.name} fails: {type(error).__name__}: {error}", where=str(path), fix="correct the file."
        ) from error
    config = _mapping(names.get("CASCADE_CONFIG", {}), f"CASCADE_CONFIG in {path.name}", path, '{"branch": "dev"}')
    return {**names, "CASCADE_CONFIG": config}


def read_dotenv(path: Path) -> dict[str, str | None]:
    """Return the variables of an `.env` file, with `${NAME}` replaced; nothing when there is no such file."""
    lines: list[str] = _read(path, _wrong_lines) or []
    if lines:
        # The line is not shown: it may hold a password.
        raise ConfigurationError(
            f"Line {lines[0]} of {path.name} is not NAME=value.",
            where=str(path),
            fix="correct it, or turn it into a comment: begin it with #.",
        )
    if not path.is_file():
        return {}
    from dotenv import dotenv_values

    return dotenv_values(path)


def _wrong_lines(text: str) -> list[int]:
    from dotenv.parser import parse_stream

    return [each.original.line for each in parse_stream(io.StringIO(text)) if each.error]


def _parse_yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    if not path.is_file():
        return None
    try:
        return parse(path.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path.name} cannot be read: {error}.", where=str(path), fix="save it as UTF-8 text."
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path.name} cannot be read: {error}", where=str(path), fix="correct the file at that line."
        ) from error


def _mapping(content: Any, name: str, path: Path, example: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        what = f"{name} must be a dictionary: names and values of settings."
        raise ConfigurationError(what, where=str(path), fix=f"for example {example}.")
    return content
