"""The probe of imports: what was never imported is tried in another process first; what that finds is kept."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from cascade_project import trial
from cascade_project.trial import Limits

__all__ = ["probe"]

_PROGRAM = Path(trial.__file__)
_LIMITS = Limits()
# A refusal may be the fault of the machine, or of a server that a file asks: it is looked at again.
_REFUSED_SECONDS = 3600
_KEPT_SECONDS = 90 * 24 * 3600


def probe(modules: Mapping[str, Path], project: Path | None, *, limits: Limits = _LIMITS) -> dict[str, tuple[str, str]]:
    """Say which modules must not be imported; see `cascade.plugins.ImportProbe`.

    All that was never tried is imported together in one other process. What that finds is kept in the user's cache
    folder by a hash: of the file, of the files of the project that its import statements name, directly or not, of
    Python, and of the moment when a package was last installed or removed. For a plugin: of the Python files of its
    package, and of the sizes of its other files.

    Args:
        modules: The name of each module with its file; of a plugin with the folder or file of its top-level package.
        project: The folder that all files are in; `None` for plugins.
        limits: What an import may take.
    """
    keys = _keys(modules, project)
    known = {name: _read(key) for name, key in keys.items()}
    refused = {name: found for name, found in known.items() if found}
    new = {name: path for name, path in modules.items() if known[name] is None}
    if new and (found := _try(new, list(refused), project, limits)) is not None:
        for name in new:
            _keep(keys[name], found.get(name))
        refused |= found
    return {name: (at if project else str(modules[name].parent / at), cause) for name, (at, cause) in refused.items()}


def _try(
    modules: Mapping[str, Path], blocked: Sequence[str], project: Path | None, limits: Limits
) -> dict[str, list[str]] | None:
    """Import modules in another process; `None` when that fails, which it says on standard error."""
    wanted = {
        "path": sys.path,
        "modules": {name: str(path) for name, path in modules.items()},
        "blocked": blocked,
        "project": project is not None,
        "limits": asdict(limits),
    }
    environment = os.environ | ({"CASCADE_PROJECT_DIR": str(project)} if project else {})
    command = [sys.executable, str(_PROGRAM)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        try:
            answer, _ = process.communicate(json.dumps(wanted).encode())
        except BaseException:
            process.terminate()  # and not killed: it stops what it has started
            raise
    if process.returncode:
        return None
    found: dict[str, list[str]] = {}
    for name, (frames, cause) in json.loads(answer).items():
        inside = project or modules[name]
        file, line = next(((f, n) for f, n in frames if Path(f).is_relative_to(inside)), (modules[name], 0))
        shown = str(Path(file).relative_to(project or inside.parent))  # the cache serves copies of a project, too
        found[name] = [f"{shown}:{line}" if line else shown, cause]
    return found


def _keys(modules: Mapping[str, Path], project: Path | None) -> dict[str, str]:
    """Return the name of each module's verdict in the cache."""
    installed = [folder for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))]
    times = [Path(folder).stat().st_mtime_ns for folder in installed if Path(folder).exists()]
    base = [sys.version, sys.prefix, times, _PROGRAM.stat().st_mtime_ns]
    read: dict[Path, tuple[str, list[Path]]] = {}
    keys = {}
    for name, path in modules.items():
        parts = sorted(_contents(path, project, read) if project else _package(path))
        keys[name] = hashlib.sha256(json.dumps([name, *base, *parts]).encode()).hexdigest()
    return keys


def _contents(file: Path, project: Path, read: dict[Path, tuple[str, list[Path]]]) -> Iterator[tuple[str, str]]:
    """Return a file and all files of the project that it imports, each with the hash of its content."""
    waiting, seen = [file], {file}
    while waiting:
        each = waiting.pop()
        if each not in read:
            content = each.read_bytes()
            read[each] = hashlib.sha256(content).hexdigest(), list(_imported(content, each, project))
        digest, imported = read[each]
        yield str(each.relative_to(project)), digest
        waiting += [one for one in imported if one not in seen]
        seen.update(imported)


def _imported(content: bytes, file: Path, project: Path) -> Iterator[Path]:
    """Return the files of the project that a file's import statements name, and the packages that these are in."""
    package = file.relative_to(project).parts[:-1]
    names = [list(package)]
    with contextlib.suppress(SyntaxError, ValueError, RecursionError):  # then nothing of the file is run
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.Import):
                names += [alias.name.split(".") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else ()
                module = node.module.split(".") if node.module else []
                names += [[*above, *module, alias.name] for alias in node.names]
    for parts in {tuple(name[:end]) for name in names for end in range(1, len(name) + 1)}:
        place = project.joinpath(*parts)
        yield from (one for one in (place.with_suffix(".py"), place / "__init__.py") if one.is_file())


def _package(path: Path) -> Iterator[tuple[str, str]]:
    """Return the files of a package: Python files with the hash of their content, all others with their size."""
    for file in [path, *path.rglob("*")]:
        if file.is_file() and "__pycache__" not in file.parts:
            python = file.suffix == ".py"
            kept = hashlib.sha256(file.read_bytes()).hexdigest() if python else str(file.stat().st_size)
            yield str(file.relative_to(path.parent)), kept


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cascade" / "imports"


def _read(key: str) -> list[str] | None:
    """Return a refusal that was kept, an empty list for a module that may be imported, `None` for one never tried."""
    try:
        file = _cache() / key
        refusal: list[str] = json.loads(file.read_text("utf-8"))
        return None if refusal and file.stat().st_mtime < time.time() - _REFUSED_SECONDS else refusal
    except (OSError, RuntimeError, ValueError):
        return None


def _keep(key: str, refusal: Sequence[str] | None) -> None:
    """Keep what was found, and drop what is old; where no file can be written, all is tried again the next time."""
    with contextlib.suppress(OSError, RuntimeError):
        folder = _cache()
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / f"{key}.{os.getpid()}"
        new.write_text(json.dumps(refusal or []), "utf-8")
        new.replace(folder / key)
        for old in folder.iterdir():
            if old.stat().st_mtime < time.time() - _KEPT_SECONDS:
                old.unlink()
