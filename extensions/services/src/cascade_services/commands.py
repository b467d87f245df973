"""`cascade services`: the servers of a project, in containers or on this machine without them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cascade.errors import CascadeError
from cascade_cli.output import answer, answer_table, complain, json_option, print_json, say
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

    Those of enabled packages, too. Passwords are generated. Keys that are there stay as they are. Values are never
    printed.
    """
    from cascade.config import find_project_dir
    from cascade_services.chosen import choose, env_lines
    from cascade_services.env import complete_env, texts_of

    root = find_project_dir()  # without settings, which may be what is missing
    found = complete_env(root, env_lines(choose(root)))
    if as_json:
        print_json(found)
        return
    if not found.written:
        say(f"{found.path} has all {len(found.kept)} keys already.")
        return
    for text in texts_of(found):
        say(text)
    say("Start them with `cascade services start`, or without containers with `cascade services start --native`.")


@services.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List every service with its state, its ports and its version.

    And why one is not enabled. Without a container engine states are unknown, which is said.
    """
    from cascade.config import load_settings
    from cascade_services.running import list_services

    answer_table(
        as_json,
        list_services(load_settings(), tell=lambda text: click.echo(text, err=True)),
        ("name", "from", "state", "port", "version", "reason"),
        lambda one: (one.name, one.origin, one.state, " ".join(one.ports), one.version, one.reason),
    )


@services.command()
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="A file to write in place of showing.")
def render(output: Path | None) -> None:
    """Show all Compose files as one, merged by the compose client.

    Variables stay variables, so that there is no secret in it.
    """
    from cascade.config import load_settings
    from cascade_services import running

    text = running.render(load_settings())
    if output:
        output.write_text(text, "utf-8")
        say(f"Wrote {output}.")
    else:
        say(text.rstrip())


@services.command()
@json_option
def ports(as_json: bool) -> None:
    """List ports of this machine that services use, and who holds each."""
    from cascade.config import load_settings
    from cascade_services.running import list_ports

    answer_table(
        as_json,
        list_ports(load_settings()),
        ("port", "variable", "service", "meaning", "state"),
        lambda one: (
            one.port,
            one.variable,
            one.service,
            one.meaning,
            one.state + (f"; {one.instead} is free" if one.instead else ""),
        ),
    )


@services.command()
@json_option
def doctor(as_json: bool) -> None:
    """Look for what keeps services from working, and say what to do.

    The exit code is 1 when there is something. Looks at the compose client, the engine, .env, ports, needs, and
    unhealthy containers with what they wrote last.
    """
    from cascade.config import load_settings
    from cascade_services.running import examine

    found = examine(load_settings())
    if as_json:
        print_json(found)
    for one in () if as_json else found:
        complain("wrong   ", one.what, [f"fix: {one.fix}"])
    if found:
        sys.exit(1)
    if not as_json:
        say("well    services")


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
    from cascade_services import running

    settings, tell = load_settings(), _teller()
    if native:
        from cascade_services.servers import start_native

        started = start_native(settings, names, tell=tell)
        answer(as_json, started, "Use them: `cascade run`, `cascade dev`. They go on until `cascade services stop`.")
        return
    running.start(settings, names, tell=tell)
    answer_table(
        as_json,
        [one for one in running.list_services(settings) if one.enabled],
        ("name", "state", "port", "pages"),
        lambda one: (one.name, one.state, " ".join(one.ports), " ".join(one.links.values())),
    )


@services.command()
@_names
def stop(names: tuple[str, ...]) -> None:
    """Stop servers; without NAMES, all. Their data stays."""
    from cascade.config import load_settings
    from cascade_services.running import run_compose
    from cascade_services.servers import stop_native

    settings = load_settings()
    if _native_runs(settings):
        stop_native(settings, names, tell=_teller())
    else:
        run_compose(settings, "stop", names=names)


@services.command()
@_names
def restart(names: tuple[str, ...]) -> None:
    """Stop servers and start them again; without NAMES, all that run."""
    from cascade.config import load_settings
    from cascade_services.running import run_compose
    from cascade_services.servers import list_native, start_native, stop_native

    settings = load_settings()
    if running := [server.name for server in list_native(settings) if server.pid]:
        stop_native(settings, names, tell=_teller())
        start_native(settings, running, tell=_teller())
    else:
        run_compose(settings, "restart", names=names)


@services.command()
@json_option
def status(as_json: bool) -> None:
    """Show which servers run, and where they answer."""
    from cascade.config import load_settings
    from cascade_services.running import containers
    from cascade_services.servers import list_native

    settings = load_settings()
    servers, made = list_native(settings), None
    if not any(server.pid for server in servers):
        try:
            made = containers(settings)
        except CascadeError:
            if not servers:
                raise
    if servers and not made:
        answer_table(
            as_json,
            servers,
            ("name", "server", "state", "address", "pid", "log"),
            lambda server: (server.name, server.title, server.state, server.address, server.pid or "", server.log),
        )
    else:
        answer_table(
            as_json,
            made or (),
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
    from cascade_services.running import run_compose
    from cascade_services.servers import list_native, read_logs

    settings = load_settings()
    servers = {server.name for server in list_native(settings)}
    if not servers.issuperset(names) or not servers:
        run_compose(settings, "logs", "--tail", str(lines), *(["--follow"] if follow else []), names=names)
        return
    found = read_logs(settings, names, lines=lines)
    if follow:
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
