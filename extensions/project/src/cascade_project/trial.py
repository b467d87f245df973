"""Try imports in processes of their own, and say which of them end or stop a process, or spoil it for others.

`cascade_project.imports` runs this file as a program, which imports nothing but the standard library by itself. It
forks: the child imports the modules one after the other and ends as any process does, this one watches it. Where a
child came to grief, the next one goes on without that module.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import importlib.machinery
import json
import os
import re
import resource
import select
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

_TICK = 0.05
_LATER = "do in a function what a file need not do when it is loaded"
_FRAME = re.compile(r'File "(.+)", line (\d+)')


@dataclass(frozen=True)
class Limits:
    """What an import may take. They are generous: what is refused wrongly stops a team.

    Attributes:
        cpu: Seconds of a processor for one module. Dagster takes one, pandas and polars together three.
        idle: Seconds in which a module does nothing at all: neither works, nor waits for a processor. So a busy machine
            is not the module's fault, and a module may ask a server.
        exit: Such seconds of a process that ends: it only waits for its threads then.
        memory: Bytes of real memory of a process, which each process of Dagster would take, too. The address space says
            nothing: libraries reserve far more of it than they use.
    """

    cpu: int = 30
    idle: float = 30.0
    exit: float = 10.0
    memory: int = min(2 << 30, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)


@dataclass
class Watched:
    """What is known of a child.

    Attributes:
        left: How many threads each module has left that was imported.
        current: The module that is being imported; `None` before the first one and after the last one.
        finished: Whether all were imported, and the process only had to end.
        told: What the module did, in the child's own words.
        cause: Why it was stopped, or how it ended; empty when all went well.
    """

    left: dict[str, int] = field(default_factory=dict)
    current: str | None = None
    finished: bool = False
    told: str = ""
    cause: str = ""

    def hear(self, line: str) -> None:
        """Note what the child reports."""
        word, _, rest = line.partition(" ")
        if word == "begin":
            self.current = rest
        elif word == "end" and self.current:
            self.left[self.current], self.current = int(rest), None
        elif word == "finished":
            self.finished = True
        elif word == "told":
            self.told = rest


def main() -> None:
    """Read what to try from standard input, and write the refusals to standard output, both as JSON.

    In: `path`, the path of modules; `modules`, each with its file; `blocked`, modules that are known to be bad;
    `project`, whether they are files of a project; `limits`. Out: for each module that must not be imported the frames
    it was in, innermost first, as `[file, line]`, and the cause.
    """
    wanted = json.load(sys.stdin)
    answer, errors = os.dup(1), os.dup(2)
    silent = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(silent, number)
    sys.path[:] = wanted["path"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with contextlib.ExitStack() as around:
            if wanted["project"]:
                _prepare(around)
            refused = _tried(wanted["modules"], wanted["blocked"], Limits(**wanted["limits"]))
    except Exception:
        os.dup2(errors, 2)  # what is wrong with this program itself is told
        raise
    os.write(answer, json.dumps(refused).encode())


def _prepare(around: contextlib.ExitStack) -> None:
    """Import what nearly all files of a project import, so that each child has it, and read the settings once."""
    with contextlib.suppress(Exception):  # what is wrong with it is told where the files are loaded
        importlib.import_module("dagster")
        for name in ("cascade.ingestion", "cascade.quality"):
            importlib.import_module(name)
        config = importlib.import_module("cascade.config")
        around.enter_context(config.use_settings(config.load_settings()))


def _tried(modules: Mapping[str, str], blocked: Sequence[str], limits: Limits) -> dict[str, Any]:
    """Return the refusals: all modules are imported in one child, and without the bad one in the next."""
    refused: dict[str, Any] = {}
    while rest := [name for name in modules if name not in refused]:
        child, frames = _in_child(rest, [*blocked, *refused], limits)
        if not child.cause:
            break
        if not child.finished:
            refused[_blamed(modules, frames) or child.current or rest[0]] = [frames, child.cause]
            continue
        # One of them keeps the process from ending: each by itself, first those that left threads.
        lasting: dict[str, Any] = {}
        for suspects in ([name for name in rest if child.left.get(name)], rest):
            for name in suspects if not lasting else ():
                one, frames = _in_child([name], [*blocked, *refused], limits)
                if one.cause:
                    lasting[name] = [frames, one.cause]
        if not lasting:
            break
        refused |= lasting
    return refused


def _blamed(modules: Mapping[str, str], frames: Sequence[tuple[str, int]]) -> str | None:
    """Return the module in whose file a child came to grief; another one may have imported it."""
    names = {file: name for name, file in modules.items()}
    return next((names[file] for file, _ in frames if file in names), None)


def _in_child(modules: Sequence[str], blocked: Sequence[str], limits: Limits) -> tuple[Watched, list[tuple[str, int]]]:
    """Import modules in a child, and return what became of it, and the frames it was in when it came to grief."""
    report, write = os.pipe()
    with tempfile.TemporaryFile("w+") as trace:
        pid = os.fork()
        if pid == 0:
            os.setsid()  # all that it starts is stopped with it
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            sys.modules.update(dict.fromkeys(blocked))  # type: ignore[arg-type]  # Python imports no such module
            _import_all(modules, limits, write, trace.fileno())
        os.close(write)
        try:
            child = _watch(pid, report, limits)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.close(report)
        trace.seek(0)
        return child, [(file, int(line)) for file, line in _FRAME.findall(trace.read())]


def _import_all(modules: Sequence[str], limits: Limits, write: int, trace: int) -> NoReturn:
    """Import modules, report each, and end as any process does; in the child."""
    trace = os.dup(trace)  # it outlives the file, which is closed when the process ends
    faulthandler.enable(trace)
    faulthandler.register(signal.SIGXCPU, trace, chain=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = resource.getrlimit(resource.RLIMIT_CPU)[1]
    leave, imported, known = os._exit, importlib.import_module, sys.modules

    def tell(line: str) -> None:
        os.write(write, f"{line}\n".encode())

    def left(code: int) -> NoReturn:
        faulthandler.dump_traceback(trace, all_threads=False)
        tell(f"told it ends the process by os._exit({code}); raise an exception instead")
        leave(1)

    os._exit = left  # type: ignore[assignment]
    for name in modules:
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + limits.cpu, most))
        before, threads = dict(known), threading.active_count()
        tell(f"begin {name}")
        # What can be caught is told where the file is loaded.
        with contextlib.suppress(BaseException):
            imported(name)
        if spoilt := next(_spoilt(before, known), ""):
            tell(f"told it puts something else in the place of `{spoilt}` in sys.modules, for all others, too")
            leave(1)
        tell(f"end {threading.active_count() - threads}")
    tell("finished")
    sys.exit()


def _spoilt(before: dict[str, ModuleType], known: dict[str, ModuleType]) -> Iterator[str]:
    """Return modules that are others than before, or no modules although a file has their name."""
    if sys.modules is not known:
        yield "*"
    for name, module in before.items():
        if known.get(name) is not module:
            yield name
    for name in known.keys() - before.keys():
        module = known[name]
        real = isinstance(module, ModuleType) and (getattr(module, "__spec__", None) or hasattr(module, "__file__"))
        if not real and "." not in name and importlib.machinery.PathFinder.find_spec(name):
            yield name


def _watch(pid: int, report: int, limits: Limits) -> Watched:
    """Wait for a child, and stop it when it takes too long or too much."""
    child, heard, parent = Watched(), b"", os.getppid()
    since, base = time.monotonic(), 0.0
    while True:
        readable = select.select([report], [], [], _TICK)[0]
        if readable and (data := os.read(report, 1 << 16)):
            *lines, heard = (heard + data).split(b"\n")
            for line in lines:
                child.hear(line.decode())
            since, base = time.monotonic(), _busy(pid)
            continue
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            child.cause = _end(os.waitstatus_to_exitcode(status), child, limits)
            return child
        if readable:  # the child has closed its end
            time.sleep(_TICK)
        idle = time.monotonic() - since - (_busy(pid) - base)
        limit = limits.exit if child.finished else limits.idle
        if _memory(pid) > limits.memory:
            cause = f"importing it takes more than {limits.memory / 2**30:.2g} GB of memory; {_LATER}"
        elif idle > limit and child.finished:
            cause = "it starts a thread that never ends, or a function at exit, so that no process could end"
        elif idle > limit:
            cause = f"importing it does not end: it did nothing for {limit:g} seconds; {_LATER}"
        elif os.getppid() != parent:
            cause = "nobody waits for the answer any more"
        else:
            continue
        _stop(pid)
        child.cause = cause
        return child


def _end(code: int, child: Watched, limits: Limits) -> str:
    """Say how a child has ended; empty when it ended as it should."""
    if child.told:
        return child.told
    if child.finished:  # however it ended: libraries in C are known to fail at the very end
        return ""
    if code == -signal.SIGXCPU:
        return f"importing it takes more than {limits.cpu} seconds of a processor; {_LATER}"
    if code < 0:
        said = signal.strsignal(-code)
        more = "; maybe the machine has no memory left" if code == -signal.SIGKILL else ""
        return f"it kills the process: {said} ({signal.Signals(-code).name}){more}"
    return f"it ends the process with {code}, or puts another program in its place"


def _stop(pid: int) -> None:
    """End a child; it writes first where it is."""
    os.kill(pid, signal.SIGABRT)
    for _ in range(100):
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        time.sleep(_TICK)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _busy(pid: int) -> float:
    """Return the seconds that a process has worked, or waited for a processor; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        waited = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + waited


def _memory(pid: int) -> int:
    """Return the real memory of a process in bytes; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


if __name__ == "__main__":
    main()
