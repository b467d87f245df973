"""The promise when the power is cut at any moment: what was not synced is gone, and nothing is torn, lost or doubled.

The same is done to the bare stack, PyIceberg on its own catalog, which does not stand it: so the tests can fail.
"""

import contextlib
import random
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from support.bare import BARE
from support.file_operations import GO_ON, KILL, Operation
from support.places import Place
from support.power import Disk
from support.works import WORKS

#: Those that end with a state that readers see; dbt's models are written like loads.
NAMES = ["first load", "append", "quarantine", "promotion", "publishing", "compaction"]


def _cut_at(moment: int, disk: Disk, operation: Operation, number: int) -> int:
    if number == moment:
        return KILL
    disk.follow(operation)
    return GO_ON


def _cut(place: Place, moment: int) -> str:
    """Do the work until the power is cut before an operation; say when that was."""
    place.again()
    disk = Disk(place.root / ".cascade")
    ended = place.watch(partial(_cut_at, moment, disk))
    done = ended.code == 0
    assert done or ended.code == -signal.SIGKILL
    disk.cut()
    when = f"cut before operation {moment}, {ended.operations[-1]}"
    place.require_whole(when)
    if done:
        assert place.work.seen() == place.after, "it has said that it succeeded"
    return when


@pytest.mark.parametrize("name", NAMES)
def test_a_power_cut_tears_loses_and_doubles_nothing(tmp_path: Path, name: str, whole: bool) -> None:
    """At every change of a file and after the last one with `--whole`."""
    with contextlib.chdir(tmp_path):
        place = Place(tmp_path / "project", WORKS[name])
        end = len(place.operations) + 1
        with contextlib.chdir(place.root):
            for moment in range(1, end + 1) if whole else [random.Random(name).randrange(1, end), 10 * end]:
                place.require_converged(_cut(place, moment))


@pytest.mark.parametrize("fault", ["kill", "power cut"])
def test_the_bare_stack_does_not_stand_it(
    tmp_path: Path, fault: str, whole: bool, record_property: Callable[[str, object], None]
) -> None:
    """Two tables are loaded, and their load is repeated: see `support.bare`."""
    torn = 0
    with contextlib.chdir(tmp_path):
        place = Place(tmp_path / "project", BARE, janitor=lambda: None)
        with contextlib.chdir(place.root):
            place.again()
            place.require_converged("nothing happened to it")
            count = len(place.operations)
            for moment in range(1, count + 2, 1 if whole else count // 4):
                try:
                    if fault == "kill":
                        place.again()
                        place.watch(lambda _, number, moment=moment: KILL if number == moment else GO_ON)
                        place.require_whole("killed")
                    else:
                        _cut(place, moment)
                    place.require_converged("again")
                except (AssertionError, OSError):  # another state, or one that cannot be read
                    torn += 1
    record_property("torn", torn)
    assert torn > 0
