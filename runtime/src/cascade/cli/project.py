"""`cascade validate`, `cascade dev` and `cascade config`: the project itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cascade.cli.output import json_option, print_json, print_table, progress, say
from cascade.cli.style import click
from cascade.config import PROJECT_DIR_VARIABLE, Settings, load_settings, setting_sources

__all__ = ["config", "dev", "validate"]


@click.command()
@json_option
def validate(as_json: bool) -> None:
    """Load everything that users write: workflows, contracts, dbt models. Names all problems."""
    settings = load_settings()
    with progress("cascade validate") as tell:
        tell("loading", "workflows and models")
        from cascade.framework.validate import inspect_project

        found = inspect_project(settings)
    if as_json:
        print_json({"problems": found.problems, "assets": found.assets, "checks": found.checks})
    else:
        say(f"{len(found.assets)} assets: {', '.join(found.assets)}")
        say(f"{len(found.checks)} checks, {sum(check['blocking'] for check in found.checks)} of them blocking")
        if found.problems:
            click.echo(click.style(f"\n{len(found.problems)} problems:", fg="red", bold=True), err=True)
            for problem in found.problems:
                click.echo(f"  {problem}", err=True)
        else:
            say("No problems.")
    sys.exit(1 if found.problems else 0)


@click.command()
@click.option("--host", "-h", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", "-p", default=3000, show_default=True, help="Port to listen on.")
def dev(host: str, port: int) -> None:
    """Open the Dagster UI of the project, with its daemon for schedules and backfills."""
    from cascade.framework.launch import open_instance

    settings = load_settings()
    with open_instance(settings):
        pass  # the pool of promotions has its limit before the daemon looks
    beside = Path(sys.executable).parent / "dagster"
    command = [str(beside) if beside.is_file() else "dagster", "dev", "--host", host, "--port", str(port)]
    environment = {**os.environ, PROJECT_DIR_VARIABLE: str(settings.project_dir)}
    say(f"The UI opens at http://{host}:{port} (Ctrl+C ends it).")
    done = subprocess.run(command, cwd=settings.project_dir, env=environment, check=False)
    sys.exit(done.returncode)


@click.group()
def config() -> None:
    """Show the settings and where they come from."""


@config.command()
@json_option
def show(as_json: bool) -> None:
    """Show every setting: its value, where it comes from, what it means."""
    settings = load_settings()
    origins = setting_sources(settings)
    rows = [_setting(settings, name, origins[name]) for name in type(settings).model_fields]
    if as_json:
        print_json(rows)
    else:
        print_table(["setting", "value", "from", "meaning"], [list(row.values()) for row in rows])


def _setting(settings: Settings, name: str, origin: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": str(getattr(settings, name)),
        "source": origin,
        "description": type(settings).model_fields[name].description,
    }
