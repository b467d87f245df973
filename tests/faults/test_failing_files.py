"""The promise when a file cannot be changed: readers see whole tables, a failure is told, and the next run ends.

One operation fails, or the disk is full from one moment on, or nothing can be written at all.
"""

import contextlib
import errno
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from support.file_operations import GO_ON, Operation
from support.places import Place
from support.works import WORKS

#: What these do is what the others do, in processes that take longer to start, or in whole runs.
NAMES = [name for name in WORKS if name not in ("dbt", "drop", "rename", "reset")]

Fails = Callable[[Operation, int, int], int]


def _once(_operation: Operation, number: int, moment: int) -> int:
    return errno.EIO if number == moment else GO_ON


def _full(operation: Operation, number: int, moment: int) -> int:
    """Nothing new fits; what is there can be removed."""
    return errno.ENOSPC if number >= moment and operation.name in ("open", "write", "make folder") else GO_ON


def _read_only(_operation: Operation, _number: int, _moment: int) -> int:
    return errno.EROFS


# How many moments a work has at least, and how many of them are tried when not all are.
_MOMENTS = {_once: (40, 4), _full: (40, 3), _read_only: (1, 1)}


@pytest.mark.usefixtures("capfd")  # the works that fail print tracebacks
@pytest.mark.parametrize("fails", [_once, _full, _read_only])
@pytest.mark.parametrize("name", NAMES)
def test_files_that_cannot_be_changed_tear_lose_and_double_nothing(
    tmp_path: Path, name: str, fails: Fails, whole: bool
) -> None:
    """A work that says that it has succeeded has; one that fails says so."""
    with contextlib.chdir(tmp_path):
        place = Place(tmp_path / "project", WORKS[name])
        least, some = _MOMENTS[fails]
        count = len(place.operations) if least > 1 else 1
        moments = range(1, count + 1)
        assert len(moments) >= least
        with contextlib.chdir(place.root):
            for moment in moments if whole else sorted(random.Random(name).sample(moments, some)):
                place.again()
                ended = place.watch(lambda operation, number, moment=moment: fails(operation, number, moment))
                when = f"operation {moment} of {count}: {place.operations[moment - 1]}"
                assert ended.code in (0, 1), when
                place.require_whole(when)
                if ended.code == 0:
                    assert place.work.seen() == place.after, f"it says that it has succeeded: {when}"
                place.require_converged(when)
