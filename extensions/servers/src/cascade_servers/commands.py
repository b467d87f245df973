"""`cascade services`: the servers of `compose.yaml`."""

from __future__ import annotations

from cascade_cli.output import json_option, print_json, say
from cascade_cli.style import click

__all__ = ["services"]


@click.group()
def services() -> None:
    """Prepare the servers of compose.yaml."""


@services.command()
@json_option
def env(as_json: bool) -> None:
    """Write ports, passwords and addresses of the servers into .env.

    Passwords are generated. Keys that are there stay as they are. Values are never printed.
    """
    from cascade.config import find_project_dir
    from cascade_servers.services import complete_env

    found = complete_env(find_project_dir())
    if as_json:
        print_json(found)
        return
    if not found.written:
        say(f"{found.path} has all {len(found.kept)} keys already.")
        return
    say(f"Wrote {len(found.written)} keys to {found.path}: {', '.join(found.written)}")
    if "CASCADE_ENGINE" in found.written:
        say("From now on the commands of this project use these servers (CASCADE_ENGINE=trino in .env).")
    say("Start them with `docker compose up --detach --build --wait`.")
