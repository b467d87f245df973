"""`cascade dev`: the Dagster UI of the project."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from cascade.config import load_settings
from cascade.errors import UsageError
from cascade.names import PROJECT_DIR_VARIABLE
from cascade_cli.output import say, ui_port
from cascade_cli.style import click

__all__ = ["dev"]

_SECONDS_TO_END = 20
# Each process says the first when it is ended; the daemon says the second of a new project.
_NOISE = re.compile(r"^Aborted!$|No cursor for event type .*, ignoring older events")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", "-p", type=int, help="Port to listen on. Default: DAGSTER_PORT of .env, else 3000.")
def dev(host: str, port: int | None) -> None:
    """Open the Dagster UI of the project, with its daemon for schedules and backfills.

    It is `dagster dev`, whose warnings and errors are shown; `dagster dev` itself says more.
    """
    settings = load_settings()
    port = port or ui_port()
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
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    # A session of its own: Ctrl+C would stop its processes in the middle of an import, and each prints a traceback.
    process = subprocess.Popen(
        command,
        cwd=settings.project_dir,
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    threading.Thread(target=_hand_on, args=(process.stdout,), daemon=True).start()
    try:
        while process.poll() is None and not _answers(host, port):
            time.sleep(0.2)
        if process.poll() is None:
            say(f"The UI is at http://{host}:{port} (Ctrl+C ends it).")
        sys.exit(process.wait())
    except KeyboardInterrupt:
        say("Dagster ends …")
        _end(process)
        sys.exit(0)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _hand_on(lines: Iterable[str]) -> None:
    """Print what Dagster says, without what it says of every start and end."""
    for line in lines:
        if line.strip() and not _NOISE.search(line):
            click.echo(line, nl=False, err=True)


def _end(process: subprocess.Popen[str]) -> None:
    """Let Dagster end its processes, and end those that it leaves behind."""
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):  # somebody is impatient
        process.wait(_SECONDS_TO_END)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


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
