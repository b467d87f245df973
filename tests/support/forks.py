"""Call `cascade` without its imports: a process that has done them forks for each call.

Importing takes a second or three of a processor, nearly all of what most commands do. Each call is a process of its own
still: with its own environment, folder, output and exit code. That the program as it is installed starts and works is
for the tests of the template and of the tutorial, which call nothing else.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

#: What commands import when they are used is in these.
_PACKAGES = ("cascade", "cascade_maintain")
_PROGRAM = Path(sys.executable).with_name("cascade")


def call(
    *arguments: str | Path, cwd: Path, environment: Mapping[str, str], seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run `cascade` with standard input closed.

    Args:
        arguments: Of the command line.
        cwd: The folder.
        environment: All of it.
        seconds: How long it may take.

    Raises:
        subprocess.TimeoutExpired: It took longer, and was killed.
    """
    command = [str(_PROGRAM), *map(str, arguments)]
    wanted = {"command": command, "cwd": str(cwd), "environment": dict(environment)}
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err, ours:
        with theirs:
            files = [theirs.fileno(), out.fileno(), err.fileno()]
            socket.send_fds(_parent(), [json.dumps(wanted).encode()], files)
        answer = ours.recv(64)
        assert answer, "the process that forks has ended; standard error says why"
        pid = int(answer)
        ours.settimeout(seconds)
        try:
            status = int(ours.recv(64))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(command, seconds) from None
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, status, out.read(), err.read())


@functools.cache
def _parent() -> socket.socket:
    """Start the process that forks; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CASCADE_", "DAGSTER_", "DBT_"))}
    process = subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        env=clean | {"OPENBLAS_NUM_THREADS": "1"},  # threads do not survive a fork
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(channel: socket.socket) -> None:
    """Fork for each request; return in the child only, which has become what was asked for."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, files, *_ = socket.recv_fds(channel, 1 << 20, 3)
        if not message:
            sys.exit()
        if os.fork() == 0:
            break
        for file in files:
            os.close(file)
    channel.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    answer, out, err = files
    child = os.fork()
    if child:
        with socket.socket(fileno=answer) as asked:
            asked.send(str(child).encode())
            status = os.waitpid(child, 0)[1]
            asked.send(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    os.close(answer)
    os.dup2(out, 1)
    os.dup2(err, 2)
    wanted = json.loads(message)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    time.tzset()
    os.chdir(wanted["cwd"])
    sys.argv = wanted["command"]


if __name__ == "__main__":
    sys.path[0] = str(_PROGRAM.parent)  # as in a program that was installed
    for package in map(importlib.import_module, _PACKAGES):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    assert "polars" not in sys.modules, "its threads would not survive a fork"
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from cascade_cli import main

    sys.exit(main())
