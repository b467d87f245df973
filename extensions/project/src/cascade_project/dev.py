"""`cascade dev`: the Dagster UI of the project."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from cascade.config import load_settings
from cascade.errors import UsageError
from cascade.names import PROJECT_DIR_VARIABLE
from cascade_cli.output import say
from cascade_cli.style import click

__all__ = ["dev"]


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", "-p", default=3000, show_default=True, help="Port to listen on.")
def dev(host: str, port: int) -> None:
    """Open the Dagster UI of the project, with its daemon for schedules and backfills.

    It is `dagster dev`, whose warnings and errors are shown; `dagster dev` itself says more.
    """
    settings = load_settings()
    _require_free(host, port)
    from cascade.framework.instance import open_instance

    with open_instance(settings):
        pass  # this sets the limit of the promotion pool before the daemon reads it
    beside = Path(sys.executable).parent / "dagster"
    command = [str(beside) if beside.is_file() else "dagster", "dev", "--host", host, "--port", str(port)]
    # What Dagster tells at the level of information is not true here: that its storage is temporary, for one.
    command += ["--log-level", "warning"]
    environment = {"PYTHONWARNINGS": "ignore:Function `dev_command`", **os.environ}
    environment[PROJECT_DIR_VARIABLE] = str(settings.project_dir)
    say("Dagster starts …")
    process = subprocess.Popen(command, cwd=settings.project_dir, env=environment)
    try:
        while process.poll() is None and not _answers(host, port):
            time.sleep(0.2)
        if process.poll() is None:
            say(f"The UI is at http://{host}:{port} (Ctrl+C ends it).")
        sys.exit(process.wait())
    except KeyboardInterrupt:
        # It has heard it too, and ends its own processes before itself.
        process.wait()
        sys.exit(0)


def _require_free(host: str, port: int) -> None:
    """Refuse a port that is taken: Dagster would find out when everything else runs."""
    try:
        socket.create_server((host, port), family=_family(host)).close()
    except OSError as error:
        raise UsageError(
            f"The UI cannot listen on port {port} of {host}: {error.strerror or error}.",
            where=f"http://{host}:{port}, which may be the UI of another project",
            fix=f"end what listens there, or choose another: cascade dev --port {port + 1}",
        ) from error


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
