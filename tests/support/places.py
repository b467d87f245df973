"""A folder in which one work is done again and again, and what must be true of it after a fault."""

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from support.file_operations import GO_ON, Ended, Operation, watched
from support.lakes import finish, start
from support.works import Work, files_below, require_clean


class Place:
    """A folder in which one work is done again and again, from one state.

    Args:
        root: The folder; made.
        work: The work.
        janitor: Takes away what nobody needs, and asserts that all of it has gone.
    """

    def __init__(self, root: Path, work: Work, janitor: Callable[[], None] = require_clean) -> None:
        self.root, self.work, self._janitor = root, work, janitor
        self._kept = root.with_name("kept")
        root.mkdir()
        with contextlib.chdir(root):
            work.prepare()
            self.before = work.seen()
            shutil.copytree(root, self._kept, symlinks=True)
            self.operations = self.watch().operations
            self.after = work.seen()
            self._janitor()
            self.files = _outside(files_below(root))

    def watch(self, answer: Callable[[Operation, int], int] = lambda _o, _n: GO_ON) -> Ended:
        """Do the work in a process of its own."""
        return watched(self.work.do, under=self.root / ".cascade", answer=answer)

    def again(self) -> None:
        """Bring the state before the work back."""
        shutil.rmtree(self.root / ".cascade")
        shutil.copytree(self._kept / ".cascade", self.root / ".cascade", symlinks=True)

    def require_whole(self, when: str) -> None:
        """Readers see the state before the work or the one after it, of all tables alike."""
        seen = self.work.seen()
        if self.work.parts:
            assert seen.keys() == self.after.keys(), when
            for table, rows in seen.items():
                assert rows in (self.before[table], self.after[table]), f"{when}: {table}"
        else:
            assert seen in (self.before, self.after), when

    def require_converged(self, when: str) -> None:
        """The next run ends the work, and nothing of the killed one is left when the janitor has been there."""
        assert finish([start(self.work.do)], seconds=600) == [0], when
        assert self.work.seen() == self.after, when
        self._janitor()
        assert self.work.seen() == self.after, when
        assert _outside(files_below(self.root)) == self.files, when


def _outside(files: Counter[str]) -> set[str]:
    """Return the names of the files outside the tables."""
    elsewhere = (".dagster/", ".cascade/warehouse/", ".cascade/dbt/")
    return {name for name in files if not name.startswith(elsewhere)}
