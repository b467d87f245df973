"""Start a server, wait until it answers, find it again from another process, and end it."""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cascade.errors import ServiceError

__all__ = ["Server", "answers", "direct", "free_ports", "is_free", "java_options", "last_lines"]


class Server:
    """One server: a process with a log file and a way to ask whether it is ready.

    Args:
        name: What it is called in messages.
        command: The program and its arguments.
        ready: Returns when the server answers, raises `OSError` while it does not.
        log: The file that it writes to; each start appends. Its process is known by a file beside it.
        environment: All of its environment.
        folder: Its working folder.
        prepare: Makes what it needs, before each start.
        user: Whom it runs as, when this process is root.
        seconds: How long a start may take.
        stop_signal: What asks it to end.
        stays: Whether it goes on when this process ends; else it ends with it, whatever happens.
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
        prepare: Callable[[], object] = lambda: None,
        user: str = "",
        seconds: float = 300,
        stop_signal: signal.Signals = signal.SIGTERM,
        stays: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        self.stays = stays
        self._command = [str(part) for part in command]
        self._ready = ready
        self._environment = dict(environment)
        self._folder = folder
        self._prepare = prepare
        self._user = user
        self._seconds = seconds
        self._stop_signal = stop_signal
        self._pid_file = log.with_suffix(".pid")
        self._launched: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process, while there is one, whoever started it."""
        if self._launched:
            self._launched.poll()  # so that the system forgets it once it has ended
        if not (written := self._held()):
            return None
        try:
            os.kill(int(written), 0)
        except ProcessLookupError:
            return None  # what it started ends right after it, and holds the lock until then
        except PermissionError:
            pass  # it belongs to another user
        return int(written)

    def _held(self) -> str:
        """Return what the file of the process says while its lock is held."""
        with contextlib.suppress(FileNotFoundError), self._pid_file.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read()
        return ""

    @property
    def answers(self) -> bool:
        """Whether a server answers at its place."""
        try:
            self._ready()
        except OSError:
            return False
        except ServiceError:
            return True  # and refuses
        return True

    def launch(self) -> None:
        """Start the process and do not wait; one that runs stays as it is.

        Raises:
            ServiceError: Another server answers at this one's place already.
        """
        if self.pid:
            return
        if self.answers:
            raise ServiceError(f"{self.name} is not started: another server answers at its place already.")
        self._wait_for_the_end(20)  # of what a killed server had started
        self._prepare()
        launcher = Path(__file__).with_name("launch.py")
        user = self._user if os.geteuid() == 0 else ""
        owner = "0" if self.stays else str(os.getpid())
        with self.log.open("ab") as log:
            log.write(f"--- {self.name} starts\n".encode())
            log.flush()
            self._launched = subprocess.Popen(
                [sys.executable, "-I", "-S", launcher, owner, user, self._pid_file, *self._command],
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl+C is ours to handle
            )
        if self.stays:
            self._launched.wait()

    def wait(self) -> None:
        """Wait until the server answers.

        Raises:
            ServiceError: It ended, or did not answer in time.
        """
        deadline = time.monotonic() + self._seconds
        while True:
            reason = None
            try:
                self._ready()
            except OSError as error:
                reason = error
            if self._has_ended():
                raise ServiceError(self._failure(self._end()))
            if reason is None:
                return
            if time.monotonic() > deadline:
                self.kill()
                raise ServiceError(self._failure(f"did not answer within {self._seconds:g} s ({reason})"))
            time.sleep(0.1)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.launch()
        self.wait()

    def stop(self, *, seconds: float = 20) -> None:
        """Ask the server to end, and end it."""
        if pid := self.pid:
            os.kill(pid, self._stop_signal)
            self._wait_for_the_end(seconds)
        self.kill()

    def kill(self) -> None:
        """End the server at once, as a power failure would; with what it started."""
        pid = self.pid or (self._launched.pid if self._launched and not self.stays else None)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            self._wait_for_the_end(60)
        if self._launched:
            self._launched.wait()
            self._launched = None

    def restart(self) -> None:
        """Kill the server and start it again, on the same port and with the same data."""
        self.kill()
        self.start()

    def _has_ended(self) -> bool:
        # The launcher of a server that ends with us becomes that server: before, it has no file.
        return not self.pid if self.stays or not self._launched else self._launched.poll() is not None

    def _end(self) -> str:
        status = self._launched.returncode if self._launched and not self.stays else None
        return "has ended" if status is None else f"ended with exit status {status}"

    def _wait_for_the_end(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._held() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _failure(self, what: str) -> str:
        tail = "\n".join(f"  {line}" for line in last_lines(self.log, 20))
        return f"{self.name} {what}. The last lines of {self.log}:\n{tail or '  (none)'}"


def last_lines(file: Path, count: int) -> list[str]:
    """Return the last lines of a log; none of one that does not exist."""
    text = file.read_text("utf-8", "replace") if file.exists() else ""
    return text.splitlines()[-count:] if count else []


def free_ports(count: int) -> list[int]:
    """Return free ports of the loopback interface, no two the same."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def is_free(port: int) -> bool:
    """Say whether a port of the loopback interface can be had."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that has just ended is no other one
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def answers(url: str, *, containing: str = "") -> Callable[[], None]:
    """Return a check that a URL answers with success, and with a text in the answer."""

    def ready() -> None:
        with direct().open(url, timeout=5) as response:
            if containing not in response.read().decode():
                raise OSError(f"{url} answers, but without {containing}")

    return ready


def java_options() -> dict[str, str]:
    """Return what this process's environment has for every program in Java: `JDK_JAVA_OPTIONS`, when it is set."""
    return {name: value for name, value in os.environ.items() if name == "JDK_JAVA_OPTIONS"}


def direct() -> urllib.request.OpenerDirector:
    """Return what opens URLs of this machine: without the proxy that the environment may name."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))
