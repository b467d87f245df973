"""What a project has already: names that cannot be taken again."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from cascade.errors import UsageError
from cascade_create.names import usable

__all__ = ["free_name", "ingested", "require_free", "taken"]


def taken(root: Path) -> dict[str, str]:
    """Return the names of tables, assets and models of a project, and the file that has each."""
    found: dict[str, str] = {}
    for file in sorted((root / "transforms").rglob("models/**/*.sql")):
        found.setdefault(file.stem, file.relative_to(root).as_posix())
    for name, path in ingested(root).items():
        found.setdefault(name, path)
    return found


def ingested(root: Path) -> dict[str, str]:
    """Return the tables that the workflows of a project load, and the file of each."""
    files = sorted((root / "workflows").rglob("*.py"))
    return {name: file.relative_to(root).as_posix() for file in files for name in _ingestions(file)}


def _ingestions(file: Path) -> Iterator[str]:
    """The tables that a file loads, as far as its text says them."""
    try:
        module = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return  # `cascade validate` tells
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                call = decorator.func if isinstance(decorator, ast.Call) else decorator
                if getattr(call, "id", getattr(call, "attr", "")) == "cascade_ingestion":
                    given = {k.arg: k.value for k in decorator.keywords} if isinstance(decorator, ast.Call) else {}
                    table = given.get("table_name")
                    yield str(table.value) if isinstance(table, ast.Constant) else node.name


def require_free(root: Path, name: str, what: str, paths: Callable[[str], list[str]]) -> None:
    """Refuse a name that the project has already.

    Args:
        root: The project.
        name: The name.
        what: What shall have it, such as `workflow`.
        paths: The files that something of a name may need.

    Raises:
        UsageError: With the file that has it, and a name that is free.
    """
    has = taken(root)
    there = [path for path in paths(name) if _is_there(root / path)]
    if name in has:
        there = list(dict.fromkeys([has[name], *there]))
    if there:
        raise UsageError(
            f"The project has {name!r} already: {', '.join(there)}. Nothing was written.",
            where=str(root),
            fix=f"take another name for the {what}, such as {free_name(root, name, paths)}",
        )


def free_name(root: Path, name: str, paths: Callable[[str], list[str]]) -> str:
    """Return a name close to another one that the project does not have: `tickets_2`, then `tickets_3`."""
    has = taken(root)
    bare, _, number = name.rpartition("_") if re.search(r"._\d{1,3}$", name) else (name, "", "1")
    candidates = (f"{usable(bare)[:55].rstrip('_')}_{following}" for following in count(int(number) + 1))
    return next(one for one in candidates if one not in has and not any(_is_there(root / path) for path in paths(one)))


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()
