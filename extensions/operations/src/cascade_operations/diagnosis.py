"""What is wrong with a project as it lies on this machine, each with its remedy; nothing is changed."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from cascade.config import Settings, find_project_dir, load_settings
from cascade.errors import CascadeError, CatalogError, ConfigurationError, LeaseHeldError, ServiceError
from cascade.names import COMMAND_TAG, MAIN
from cascade_operations.events import Listener, Loading, ignore
from cascade_operations.installation import inspect_installation

__all__ = ["Diagnosis", "Finding", "diagnose"]

_GIGABYTE = 10**9
_CONNECT_SECONDS = 3
_PORTS = {"http": 80, "https": 443, "postgresql": 5432}
_TABLES_NAMED = 5


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        about: What was looked at, such as `catalog`.
        grave: Whether something does not work because of it; else it is worth knowing.
        what: What is wrong, one sentence.
        where: The file, folder, server or setting.
        fix: What to do about it.
    """

    about: str
    grave: bool
    what: str
    where: str
    fix: str


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Attributes:
        examined: What was looked at.
        left_out: What was not, since something before it is wrong.
        findings: What is wrong, grave or not.
    """

    examined: tuple[str, ...]
    left_out: tuple[str, ...]
    findings: tuple[Finding, ...]


class _HarmlessError(CascadeError):
    """What is worth knowing, and lets everything work."""


def diagnose(start: Path | None = None, *, tell: Listener = ignore) -> Diagnosis:
    """Look at the environment, settings, folders, servers, catalog and history of a project.

    Args:
        start: Where to look for the project; the working folder by default.
        tell: Told of what is looked at.

    Raises:
        ProjectNotFoundError: There is no project.
    """
    root = find_project_dir(start)
    known: list[Settings] = []

    def settings() -> Iterator[CascadeError]:
        known.append(load_settings(root))
        yield from ()

    examined: list[str] = []
    left_out: list[str] = []
    findings: list[Finding] = []
    looks: dict[str, Callable[[], Iterable[CascadeError]]] = {
        "environment": lambda: inspect_installation(root),
        "settings": settings,
        "folders": lambda: _folders(known[0]),
        "servers": lambda: _servers(known[0]),
        "catalog": lambda: _catalog(known[0]),
        "history": lambda: _history(known[0]),
    }
    # What cannot be looked at when another thing is wrong: all of it would say the same once more.
    needs = {"folders": "settings", "servers": "settings", "catalog": "servers", "history": "folders"}
    for name, look in looks.items():
        if needs.get(name) in {*left_out, *(found.about for found in findings if found.grave)}:
            left_out.append(name)
            continue
        tell(Loading(name))
        examined.append(name)
        findings += [
            Finding(name, not isinstance(error, _HarmlessError), error.what, error.where, error.fix)
            for error in _caught(look)
        ]
    return Diagnosis(tuple(examined), tuple(left_out), tuple(findings))


def _caught(look: Callable[[], Iterable[CascadeError]]) -> Iterator[CascadeError]:
    """Yield what a look finds, and what it fails with."""
    try:
        yield from look()
    except CascadeError as error:
        yield error
    # Whatever a library raises here is what the reader wants to know.
    except Exception as error:  # noqa: BLE001
        said = (str(error) or type(error).__name__).splitlines()[0]
        yield CascadeError(f"{type(error).__name__}: {said}", fix="correct what it names.")


def _folders(settings: Settings) -> Iterator[CascadeError]:
    history = Path(os.environ.get("DAGSTER_HOME") or settings.project_dir / ".dagster")
    folders = dict.fromkeys((settings.data_path, history))
    if "://" not in settings.warehouse_location:
        folders[Path(settings.warehouse_location)] = None
    refused: dict[Path, str] = {}
    free: dict[Path, int] = {}
    for folder in folders:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        free[there] = shutil.disk_usage(there).free
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            refused[there] = error.strerror or str(error)
    if refused:
        yield ConfigurationError(
            f"Nothing can be written: {', '.join(dict.fromkeys(refused.values()))}. Reading works.",
            where=", ".join(map(str, refused)),
            fix="let this user write there, and see whether the disk is full or read-only.",
        )
    if low := [place for place, left in free.items() if left < _GIGABYTE]:
        yield _HarmlessError(
            f"The disk has only {min(free.values()) / 10**6:,.0f} MB left.",
            where=", ".join(map(str, low)),
            fix="make room; `cascade maintain files` removes what the lakehouse does not need any more.",
        )


def _servers(settings: Settings) -> Iterator[CascadeError]:
    """Connect to each address that is set: none is waited for as a command waits that needs it."""
    plugins = {f"{plugin}.{name}": value for plugin, own in settings.plugins.items() for name, value in own}
    values = {name: getattr(settings, name, plugins.get(name)) for name in settings.sources}
    for name, value in values.items():
        url = urlsplit(value.get_secret_value() if isinstance(value, SecretStr) else str(value))
        if url.scheme not in _PORTS or not url.hostname:
            continue
        port = url.port or _PORTS[url.scheme]
        try:
            socket.create_connection((url.hostname, port), _CONNECT_SECONDS).close()
        except OSError as error:
            yield ServiceError(
                f"The server does not answer: {error.strerror or error}.",
                where=f"{url.hostname}:{port}, setting {name} from {settings.sources[name]}",
                fix="start it (`cascade services start` for those of this project), or correct the setting.",
            )


def _catalog(settings: Settings) -> Iterator[CascadeError]:
    from cascade.catalog import open_catalog

    catalog = open_catalog(settings)
    lost: list[str] = []
    for name, location in catalog.pointers(MAIN).items():
        try:
            catalog.load(name, location)
        # A file that is gone or damaged: whatever reads it raises an error of its own.
        except Exception:  # noqa: BLE001
            lost.append(name)
    if lost:
        more = "" if len(lost) <= _TABLES_NAMED else f" and {len(lost) - _TABLES_NAMED} more"
        yield CatalogError(
            f"Files of tables of `main` are gone or damaged: {', '.join(lost[:_TABLES_NAMED])}{more}.",
            where=settings.warehouse_location,
            fix="put them back from a backup; or go back to a state whose files are there: `cascade branch log`, "
            "then `cascade branch restore`.",
        )
    try:
        with catalog.lease(MAIN, "`cascade doctor`"):
            pass
    except LeaseHeldError as error:
        yield _HarmlessError(
            error.what, where=error.where, fix="let it end; if it hangs, end that process: `main` is whole."
        )
    except OSError:
        pass  # nothing can be written: told already


def _history(settings: Settings) -> Iterator[CascadeError]:
    """Open Dagster's storage, and look for runs whose process was killed."""
    import dagster as dg
    import sqlalchemy as sa

    from cascade.catalog import open_catalog
    from cascade.framework.instance import open_instance

    try:
        with open_instance(settings) as instance:
            alive = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED]
            runs = instance.get_runs(dg.RunsFilter(statuses=alive, tags={COMMAND_TAG: "run"}))
    except sa.exc.DatabaseError as error:
        yield CatalogError(
            f"Dagster's history cannot be read: {error.orig}.",
            where=str(settings.project_dir / ".dagster"),
            fix="move that folder away: the record of past runs is lost with it, tables and `main` are not.",
        )
        return
    if not runs:
        return
    try:
        with open_catalog(settings).lease(MAIN, "`cascade doctor`"):
            yield _HarmlessError(
                f"{len(runs)} of the runs that Dagster shows as running were killed.",
                where=", ".join(run.run_id for run in runs),
                fix="nothing: the next `cascade run` marks them as failed, and loads what they had not promoted.",
            )
    except LeaseHeldError:
        pass  # they are at work
