"""Start a server, wait until it answers, restart it, and end it whatever happens."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["Server", "ServerError", "answers", "direct", "free_ports"]


class ServerError(Exception):
    """A server did not start, with the last lines that it wrote."""


class Server:
    """One server: a process with a log file and a way to ask whether it is ready.

    Args:
        name: What it is called in messages.
        command: The program and its arguments.
        ready: Returns when the server answers, raises `OSError` while it does not.
        log: The file that it writes to; each start appends.
        environment: All of its environment.
        folder: Its working folder.
        user: Whom it runs as, when this process is root.
        seconds: How long a start may take.
        stop_signal: What asks it to end.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        ready: Callable[[], object],
        log: Path,
        environment: Mapping[str, str],
        folder: Path,
        user: str = "",
        seconds: float = 300,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log = log
        self._command = [str(part) for part in command]
        self._ready = ready
        self._environment = dict(environment)
        self._folder = folder
        self._user = user
        self._seconds = seconds
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def launch(self) -> None:
        """Start the process and do not wait.

        Raises:
            ServerError: Another server answers at this one's place already.
        """
        if self.pid:
            return
        with contextlib.suppress(OSError):
            self._ready()
            raise ServerError(f"{self.name} is not started: another server answers at its place already.")
        launcher = Path(__file__).with_name("launch.py")
        user = self._user if os.geteuid() == 0 else ""
        command = [sys.executable, "-I", "-S", str(launcher), str(os.getpid()), user, *self._command]
        self._process = self._popen(command)

    def wait(self) -> None:
        """Wait until the server answers.

        Raises:
            ServerError: It ended, or did not answer in time.
        """
        deadline = time.monotonic() + self._seconds
        while True:
            reason = None
            try:
                self._ready()
            except OSError as error:
                reason = error
            if not self._process or self._process.poll() is not None:
                status = self._process.returncode if self._process else "unknown"
                raise ServerError(self._failure(f"ended with exit status {status}"))
            if reason is None:
                return
            if time.monotonic() > deadline:
                self.kill()
                raise ServerError(self._failure(f"did not answer within {self._seconds:g} s ({reason})"))
            time.sleep(0.1)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.launch()
        self.wait()

    def stop(self, *, seconds: float = 20) -> None:
        """Ask the server to end, and end it."""
        if self.pid:
            assert self._process
            self._process.send_signal(self._stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """End the server at once, as a power failure would; with what it started."""
        if not self._process:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Kill the server and start it again, on the same port and with the same data."""
        self.kill()
        self.start()

    def _popen(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            log.write(f"--- {self.name} starts\n".encode())
            log.flush()
            return subprocess.Popen(
                command,
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl+C is ours to handle
            )

    def _failure(self, what: str) -> str:
        text = self.log.read_text("utf-8", "replace") if self.log.exists() else ""
        tail = "\n".join(f"  {line}" for line in text.splitlines()[-20:])
        return f"{self.name} {what}. The last lines of {self.log}:\n{tail or '  (none)'}"


def free_ports(count: int) -> list[int]:
    """Return free ports of the loopback interface, no two the same."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def answers(url: str, *, containing: str = "") -> Callable[[], None]:
    """Return a check that a URL answers with success, and with a text in the answer."""

    def ready() -> None:
        with direct().open(url, timeout=5) as response:
            if containing not in response.read().decode():
                raise OSError(f"{url} answers, but without {containing}")

    return ready


def direct() -> urllib.request.OpenerDirector:
    """Return what opens URLs of this machine: without the proxy that the environment may name."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))
