"""Where the source of a plugin lies."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Iterable
from importlib import util
from pathlib import Path
from typing import Any

__all__ = ["failing_line", "folders", "place", "top"]


def top(value: str) -> str:
    """Return the top-level package of `module:object`."""
    return re.split(r"[.:]", value, maxsplit=1)[0].strip()


def folders(value: str) -> list[Path]:
    """Return where the top-level package of `module:object` lies: its folders, or its one file; empty if nowhere."""
    try:
        spec = util.find_spec(top(value))
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    return [Path(folder) for folder in spec.submodule_search_locations or [spec.origin or ""]]


def failing_line(error: BaseException, inside: Iterable[Path]) -> tuple[Path, int] | None:
    """Return file and line of the innermost frame of an error that lies in one of some folders or files.

    A `site-packages` below a folder, as that of a project's `.venv`, is not the folder's.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return Path(error.filename), error.lineno or 0
    places = tuple(inside)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        for folder in places:
            if file.is_relative_to(folder) and "site-packages" not in file.relative_to(folder).parts:
                return file, frame.lineno or 0
    return None


def place(found: Any) -> str:
    """Return `file:line` where an object is defined; empty when nobody can tell."""
    try:
        found = inspect.unwrap(found) if callable(found) else found
        found = getattr(found, "callback", None) or found  # a command of click
        if inspect.ismodule(found):
            return found.__file__ or ""
        source = found if inspect.isfunction(found) or inspect.isclass(found) else type(found)
        file = inspect.getsourcefile(source) or ""
        line = source.__code__.co_firstlineno if inspect.isfunction(source) else inspect.getsourcelines(source)[1]
        return f"{file}:{line}"
    except (OSError, TypeError):
        return ""
