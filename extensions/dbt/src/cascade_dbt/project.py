"""Let dbt parse the project: its profile, its environment, its manifest. Imports neither Dagster nor dbt."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock

from cascade.config import Settings, hand_on
from cascade.errors import TransformError
from cascade.names import DBT_MACROS_VARIABLE, PROJECT_DIR_VARIABLE, RUN_BRANCH_VARIABLE, RUN_SETTINGS_VARIABLE
from cascade_dbt.targets import target_of

__all__ = [
    "DBT",
    "MACROS",
    "dbt_environment",
    "fingerprint",
    "macros_folder",
    "parse_project",
    "render_profile",
    "start_parsing",
]

#: The command that runs dbt: of this environment, and without the current folder on the path of imports.
#: Tests put another one in its place.
DBT = [sys.executable, "-P", "-m", "cascade_dbt.process"]
#: The macros of this package, for every engine.
MACROS = Path(__file__).parent / "macros"


@contextlib.contextmanager
def dbt_environment(settings: Settings, branch: str, more: Mapping[str, str] | None = None) -> Iterator[None]:
    """Set what a dbt process needs to know of the run; restored afterwards.

    `DbtCliResource.cli` takes no environment of its own and passes on this process's.

    Args:
        settings: The project's settings.
        branch: The branch of the run.
        more: What the engine adds; see `DbtTarget.prepare`.
    """
    values = {
        RUN_BRANCH_VARIABLE: branch,  # a variable of its own, since `--vars` would force a full parse
        DBT_MACROS_VARIABLE: str(macros_folder(settings)),
        PROJECT_DIR_VARIABLE: str(settings.project_dir),
        RUN_SETTINGS_VARIABLE: hand_on(settings),
        "DO_NOT_TRACK": "1",
        **target_of(settings).target(settings)[1],
        **(more or {}),
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def start_parsing(settings: Settings) -> Iterator[Callable[[], Path | None]]:
    """Let dbt parse the project, in a process beside this one, if a file of it has changed since.

    No other process parses while the context is open; at its end dbt's process is stopped, unless it has ended.

    Args:
        settings: The project's settings.

    Yields:
        A function that waits and returns the manifest; `None` when there is no dbt project. It raises
        TransformError with dbt's own words when dbt cannot parse the project.
    """
    if not (settings.dbt_path / "dbt_project.yml").is_file():
        yield lambda: None
        return
    target = settings.data_path / "dbt" / "target"
    manifest, stamp = target / "manifest.json", target / "fingerprint"
    # The code servers, the daemon and a command may all look at once; one parses, the others wait.
    with _turn(target) as refused:
        now = fingerprint(settings)
        if manifest.is_file() and stamp.is_file() and stamp.read_text("utf-8") == now:
            yield lambda: manifest
            return
        if refused is not None:
            raise TransformError(
                f"Files of dbt have changed since it read them, and what it reads cannot be kept: {refused.strerror}.",
                where=str(target),
                fix="let this user write there, or let `CASCADE_DATA_DIR` name a folder that this user can write.",
            )
        with _dbt_parse(settings, target) as process:

            def wait() -> Path:
                said, _ = process.communicate()
                if process.returncode:
                    if "UnicodeDecodeError" in said:
                        _require_utf8(settings.dbt_path)
                    # What a library of dbt-trino says whenever it is imported helps nobody, nor does the hour.
                    noise = re.compile(r"INFO:trino|[\d:]{8}  (Encountered an error:|$)")
                    told = said.partition("Traceback (most recent")[0].strip() or said
                    words = [line for line in told.splitlines() if not noise.match(f"{line}  ")]
                    missing = "dbt deps" in said
                    if "was not found" in told:
                        words += _lost_references(settings.dbt_path, told)
                    raise TransformError(
                        "dbt cannot parse the project: " + "\n".join(words).strip(),
                        where=str(settings.dbt_path),
                        fix="run `cascade dbt -- deps`." if missing else "correct the file that dbt names.",
                    )
                stamp.write_text(now, "utf-8")
                return manifest

            try:
                yield wait
            finally:
                process.kill()  # does nothing to a process that has ended


@contextlib.contextmanager
def _turn(target: Path) -> Iterator[OSError | None]:
    """Hold the lock of a folder that dbt parses into; yield why there is none where this user cannot write."""
    with contextlib.ExitStack() as held:
        try:
            target.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(str(target / "parse.lock")))
            refused = None
        except OSError as error:
            refused = error
        yield refused


def _require_utf8(dbt_path: Path) -> None:
    """Name the files that are no UTF-8, which dbt does not."""
    for path in sorted(dbt_path.rglob("*")):
        if path.suffix in (".csv", ".md", ".py", ".sql", ".yaml", ".yml") and path.is_file():
            try:
                path.read_text("utf-8")
            except UnicodeDecodeError as error:
                raise TransformError(
                    f"It is not text in UTF-8: {error}.", where=str(path), fix="save the file as UTF-8."
                ) from None


def _lost_references(dbt_path: Path, told: str) -> Iterator[str]:
    """Yield further `ref`s that lead nowhere, a line for each: dbt ends with the first one.

    Args:
        dbt_path: Folder of the dbt project.
        told: What dbt says; what it names is passed over.
    """
    files = [path for path in sorted(dbt_path.rglob("*")) if path.suffix in (".sql", ".csv", ".py", ".yml", ".yaml")]
    texts = {path: path.read_text("utf-8", errors="ignore") for path in files if path.suffix != ".csv"}
    known = {path.stem for path in files if path.suffix in (".sql", ".csv", ".py")}
    for text in texts.values():  # snapshots, versions of models, models of packages that a file lists
        known |= set(re.findall(r"""(?:\bname:\s*["']?|\{%-?\s*snapshot\s+)(\w+)""", text))
    for path, text in texts.items():
        for name in re.findall(r"""\{\{[^}]*\bref\(\s*["'](\w+)["']\s*\)""", text):
            file = path.relative_to(dbt_path)
            if name not in known and str(file) not in told and file.parts[0] not in ("target", "dbt_packages"):
                yield f"  '{file}' depends on '{name}', which was not found either"


def parse_project(settings: Settings) -> Path | None:
    """Return dbt's manifest of the project, parsed if a file has changed; `None` when there is no dbt project.

    Args:
        settings: The project's settings.

    Raises:
        TransformError: dbt cannot parse the project.
    """
    with start_parsing(settings) as manifest:
        return manifest()


def _dbt_parse(settings: Settings, target: Path) -> subprocess.Popen[str]:
    places = {
        "profiles-dir": render_profile(settings),
        "project-dir": settings.dbt_path,
        "target-path": target,
        "log-path": target,
    }
    with dbt_environment(settings, settings.branch):
        return subprocess.Popen(
            [*DBT, "--quiet", "--no-use-colors", "parse", *(f"--{name}={value}" for name, value in places.items())],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=settings.dbt_path,
        )


def macros_folder(settings: Settings) -> Path:
    """Return the folder of all macros that are not the project's, since `macro-paths` has one place for them.

    Those of this package and those of the engine are copied into it, for each engine.

    Args:
        settings: The project's settings.
    """
    folder = settings.data_path / "dbt" / "macros" / settings.engine
    for number, source in enumerate([MACROS, *target_of(settings).macros]):
        copy = folder / f"{number}-{source.parent.name}"
        now, wanted = ({p.name: p.read_bytes() for p in place.glob("*.sql")} for place in (copy, source))
        if now != wanted:  # else another dbt process may be reading them
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(source, copy)
    return folder


def fingerprint(settings: Settings) -> str:
    """Name the state of everything that dbt parses: paths, sizes and times, not contents, to be quick."""
    dbt_path = settings.dbt_path
    macros = macros_folder(settings)
    known = [sys.version, str(dbt_path), str(macros), target_of(settings).target(settings)[0]]
    seen = hashlib.sha256(json.dumps(known).encode())
    folders = [dbt_path, macros]
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            # `dbt deps` links to a package that is a local folder, and what is walked here follows no link.
            if path.is_symlink() and path.is_dir() and (linked := path.resolve()) not in folders:
                folders.append(linked)
            skip = {"target", "logs", "__pycache__"} & set(path.relative_to(folder).parts)
            if path.is_file() and not skip:
                stat = path.stat()
                seen.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return seen.hexdigest()


def render_profile(settings: Settings) -> Path:
    """Write `profiles.yml` for dbt and return its folder. It holds no secret."""
    folder = settings.data_path / "dbt"
    folder.mkdir(parents=True, exist_ok=True)
    profile = folder / "profiles.yml"
    # JSON is YAML too.
    outputs = {settings.engine: target_of(settings).target(settings)[0]}
    document = json.dumps({"cascade": {"target": settings.engine, "outputs": outputs}}, indent=2)
    text = f"# Rendered by the Cascade runtime; changes here are overwritten.\n{document}\n"
    if not profile.is_file() or profile.read_text("utf-8") != text:
        profile.write_text(text, "utf-8")
    return folder
