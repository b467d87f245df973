"""dbt without its imports: a process that has done them forks for each call.

Importing dbt costs two seconds of a processor, and finding its plugins another one: most of what the run of one small
model costs. Each call is a process of its own still, with its own environment, folder, output and exit code.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

__all__ = ["warm_dbt"]


@functools.cache
def warm_dbt() -> None:
    """Let dbt run in forks of one process until this process ends; where processes cannot fork, it changes nothing."""
    from cascade_dbt.project import DBT

    if not hasattr(os, "fork"):
        return
    folder = tempfile.TemporaryDirectory(prefix="cascade-")  # short: the path of a socket has 104 characters at most
    path = str(Path(folder.name, "dbt"))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    parent = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, str(listener.fileno())],
        stdin=subprocess.PIPE,  # it closes when this process ends, however that happens
        pass_fds=[listener.fileno()],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # threads do not survive a fork
    )
    listener.close()

    def end() -> None:
        parent.communicate()
        folder.cleanup()

    atexit.register(end)
    # Without the packages of the environment, a process of Python starts in some milliseconds.
    DBT[:] = [sys.executable, "-I", "-S", __file__, path]


def _ask(path: str, arguments: list[str]) -> int:
    """Let a fork run dbt with this process's files, folder and environment, and return its exit code."""
    wanted = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.connect(path)
        body = json.dumps(wanted).encode()
        socket.send_fds(channel, [len(body).to_bytes(8, "big")], [0, 1, 2])
        channel.sendall(body)
        return int(channel.recv(16) or 1)


def _serve(listener: socket.socket) -> None:
    """Fork for each request until standard input closes; return in the child only, which is to run dbt."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, *_ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)
        channel, _ = listener.accept()
        if os.fork() == 0:
            break
        channel.close()
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, files, *_ = socket.recv_fds(channel, 8, 3)
    wanted = json.loads(channel.makefile("rb").read(int.from_bytes(size, "big")))
    if child := os.fork():
        for file in files:
            os.close(file)
        # The process that asked may be killed: dbt ends with it.
        threading.Thread(target=_kill_when_closed, args=(channel, child), daemon=True).start()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        channel.sendall(str(code).encode())
        os._exit(0)
    channel.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["folder"])
    sys.argv = ["dbt", *wanted["arguments"]]


def _kill_when_closed(channel: socket.socket, child: int) -> None:
    if not channel.recv(1):
        os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        from cascade_dbt.process import main, prepare

        prepare()
        gc.freeze()
        _serve(socket.socket(fileno=int(sys.argv[1])))
        main()
    else:
        sys.exit(_ask(sys.argv[1], sys.argv[2:]))
