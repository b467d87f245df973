"""`cascade services`: the servers of a project, in containers or on this machine without them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cascade_cli.output import answer, answer_table, json_option, print_json, say
from cascade_cli.style import click

if TYPE_CHECKING:
    from cascade.config import Settings

__all__ = ["services"]

_names = click.argument("names", nargs=-1)


@click.group()
def services() -> None:
    """Start and stop the servers of this project.

    In containers, as compose.yaml says, or with --native on this machine without any.
    """


@services.command()
@json_option
def env(as_json: bool) -> None:
    """Write ports, passwords and addresses of the servers into .env.

    Passwords are generated. Keys that are there stay as they are. Values are never printed.
    """
    from cascade.config import find_project_dir
    from cascade_services.env import complete_env, texts_of

    found = complete_env(find_project_dir())
    if as_json:
        print_json(found)
        return
    if not found.written:
        say(f"{found.path} has all {len(found.kept)} keys already.")
        return
    for text in texts_of(found):
        say(text)
    say("Start them with `cascade services start`, or without containers with `cascade services start --native`.")


@services.command()
@_names
@click.option("--native", is_flag=True, help="PostgreSQL, S3, Nessie and Trino on this machine, without containers.")
@json_option
def start(names: tuple[str, ...], native: bool, as_json: bool) -> None:
    """Start servers, and wait until they answer.

    Each is started with what it needs; without NAMES, all are. Keys that .env lacks are written first. What runs
    stays as it is; a start that was interrupted goes on.
    """
    from cascade.config import load_settings
    from cascade_services.containers import compose
    from cascade_services.env import complete_env, texts_of
    from cascade_services.servers import start_native

    settings, tell = load_settings(), _teller()
    if native:
        started = start_native(settings, names, tell=tell)
        answer(as_json, started, "Use them: `cascade run`, `cascade dev`. They go on until `cascade services stop`.")
        return
    for text in texts_of(complete_env(settings.project_dir)):
        tell(text)
    compose(settings.project_dir, "up", "--detach", "--build", "--wait", *names)


@services.command()
@_names
def stop(names: tuple[str, ...]) -> None:
    """Stop servers; without NAMES, all. Their data stays."""
    from cascade.config import load_settings
    from cascade_services.containers import compose
    from cascade_services.servers import stop_native

    settings = load_settings()
    if _native_runs(settings):
        stop_native(settings, names, tell=_teller())
    else:
        compose(settings.project_dir, "stop", *names)


@services.command()
@_names
def restart(names: tuple[str, ...]) -> None:
    """Stop servers and start them again; without NAMES, all that run."""
    from cascade.config import load_settings
    from cascade_services.containers import compose
    from cascade_services.servers import list_native, start_native, stop_native

    settings = load_settings()
    if running := [server.name for server in list_native(settings) if server.pid]:
        stop_native(settings, names, tell=_teller())
        start_native(settings, running, tell=_teller())
    else:
        compose(settings.project_dir, "restart", *names)


@services.command()
@json_option
def status(as_json: bool) -> None:
    """Show which servers run, and where they answer."""
    from cascade.config import load_settings
    from cascade_services.containers import list_containers
    from cascade_services.servers import list_native

    settings = load_settings()
    if servers := list_native(settings):
        answer_table(
            as_json,
            servers,
            ("name", "server", "state", "address", "pid", "log"),
            lambda server: (server.name, server.title, server.state, server.address, server.pid or "", server.log),
        )
    else:
        answer_table(
            as_json,
            list_containers(settings.project_dir),
            ("name", "state", "status", "image"),
            lambda container: (container.name, container.health or container.state, container.status, container.image),
            empty="No server was started. `cascade services start` starts them, --native without containers.",
        )


@services.command()
@_names
@click.option("-n", "--lines", default=50, show_default=True, help="How many of the last lines of each.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl+C.")
def logs(names: tuple[str, ...], lines: int, follow: bool) -> None:
    """Show what servers wrote; without NAMES, all."""
    from cascade.config import load_settings
    from cascade_services.containers import compose
    from cascade_services.servers import list_native, read_logs

    settings = load_settings()
    found = read_logs(settings, names, lines=lines)
    if not found:
        compose(settings.project_dir, "logs", "--tail", str(lines), *(["--follow"] if follow else []), *names)
    elif follow:
        files = [str(server.log) for server in list_native(settings) if server.name in found and server.log.exists()]
        os.execvp("tail", ["tail", "-n", str(lines), "-F", *files])
    else:
        for name, written in found.items():
            for line in written:
                say(f"{name:<8}  {line}")


def _native_runs(settings: Settings) -> bool:
    from cascade_services.servers import list_native

    return any(server.pid for server in list_native(settings))


def _teller() -> Callable[[str], object]:
    """Return what tells of each step with the seconds that have gone by, on standard error."""
    begun = time.monotonic()
    return lambda text: click.echo(f"{time.monotonic() - begun:6.1f} s  {text}", err=True)
