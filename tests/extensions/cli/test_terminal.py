"""The promises of `cascade run` to somebody who watches it on a terminal: it moves, and it can be interrupted.

Modules: `cascade_cli.pipeline`, `cascade_cli.moving`.
"""

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cascade.config import Settings
from cascade.framework.instance import open_instance
from support.projects import make_project

_WORKFLOW = '''\
from cascade.ingestion import cascade_ingestion, none


@cascade_ingestion(unique_key="id", partitions=none())
def slow():
    """Waits until the test opens the other end."""
    print("said in the step", flush=True)
    yield [{"id": i} for i in range(1000)]
    with open("gate") as gate:
        gate.read()
'''


#: A signal arrives while the command's first module is imported.
_STOPPED_IMPORT = """
import os, signal, sys
from cascade_cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it starts in the background
class Stops:
    def find_spec(self, name, *_):
        if name == "cascade_cli.app":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Stops())
main(["branch", "list"])
"""


class Watched:
    """`cascade` on a terminal of its own."""

    def __init__(self, root: Path, *arguments: str) -> None:
        os.mkfifo(root / "gate")
        self.screen, inside = pty.openpty()
        command = [str(Path(sys.executable).with_name("cascade")), *arguments]
        self.process = subprocess.Popen(
            command, cwd=root, stdin=subprocess.DEVNULL, stdout=inside, stderr=inside, start_new_session=True
        )
        os.close(inside)
        self.seen = ""

    def until(self, pattern: str) -> str:
        """Read the screen until it shows something, and return what it has shown since the last time."""
        start = len(self.seen)
        while not re.search(pattern, self.seen[start:]):
            self._read()
        return self.seen[start:]

    def end(self) -> int:
        """Read the rest and return how the command ended."""
        while self._read():
            pass
        return self.process.wait(60)

    def _read(self) -> bool:
        try:
            data = os.read(self.screen, 65536)
        except OSError:  # the other end is closed
            data = b""
        self.seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", data.decode(errors="replace"))
        assert data or self.process.wait(60) is not None
        return bool(data)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project", {"workflows/slow.py": _WORKFLOW})


@pytest.fixture
def watched(root: Path) -> Iterator[Watched]:
    found = Watched(root, "run", "--select", "slow")
    yield found
    found.process.kill()
    found.process.wait()
    os.close(found.screen)


def test_progress_moves_while_a_step_runs_which_ctrl_c_ends_with_a_sentence(watched: Watched, root: Path) -> None:
    """Dagster points standard error at its own log meanwhile, and would repeat a step that was interrupted."""
    watched.until("raw/slow, 1,000 rows .* 0 of 3 done.*\r.*1,000 rows.*\r.*1,000 rows")
    os.killpg(watched.process.pid, signal.SIGINT)
    assert watched.end() == 130
    assert "Traceback" not in watched.seen
    assert "Interrupted: main is unchanged and nothing was written." in watched.seen
    assert "Next: run again." in watched.seen
    with open_instance(Settings(project_dir=root)) as instance:
        (run,) = instance.get_runs()
    assert run.is_finished


def test_ctrl_c_before_a_command_has_begun_is_no_traceback(root: Path) -> None:
    """Importing takes long enough for somebody who sees that the command is the wrong one."""
    done = subprocess.run(
        [sys.executable, "-c", _STOPPED_IMPORT], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (130, "\nInterrupted before anything was done.\n")
