"""The promise after `kill -9` at any change of a file: nothing torn, lost or doubled, and the next run ends the work.

Without the rest: a process dies before it opens, writes, syncs, renames or removes a file, in Python, Arrow, DuckDB or
SQLite. With `--whole` at every such moment, else at some, the same ones each time.
"""

import contextlib
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from support.file_operations import GO_ON, KILL
from support.places import Place
from support.works import PIPELINE, WORKS

#: Kills of each work when not all of them are made, and how many moments it has at least.
SLICE = {
    "first load": (10, 50),
    "append": (10, 45),
    "quarantine": (12, 70),
    "dbt": (4, 60),
    "promotion": (10, 40),
    "publishing": (10, 50),
    "maintenance": (10, 60),
}


def _moments(name: str, operations: int, *, whole: bool) -> list[int]:
    """Return before which operations a work is killed."""
    if whole:
        return list(range(1, operations + 1))
    return sorted(random.Random(name).sample(range(1, operations + 1), SLICE[name][0]))


@pytest.mark.parametrize("name", WORKS)
def test_a_kill_before_any_change_of_a_file_tears_loses_and_doubles_nothing(
    tmp_path: Path, name: str, whole: bool, record_property: Callable[[str, object], None]
) -> None:
    with contextlib.chdir(tmp_path):
        place = Place(tmp_path / "project", WORKS[name])
        assert place.after != place.before or name == "maintenance"
        assert len(place.operations) >= SLICE[name][1]
        with contextlib.chdir(place.root):
            killed = 0
            for moment in _moments(name, len(place.operations), whole=whole):
                place.again()
                ended = place.watch(lambda _, number, moment=moment: KILL if number == moment else GO_ON)
                if ended.code == 0:  # threads take turns in another order: it needed fewer operations this time
                    continue
                killed += 1
                when = f"killed before operation {moment}, {ended.operations[-1]}"
                assert ended.code == -signal.SIGKILL, when
                place.require_whole(when)
                place.require_converged(when)
    record_property("kills", killed)
    assert killed >= (SLICE[name][1] if whole else SLICE[name][0] - 1)


def test_kills_at_any_time_of_a_whole_run_tear_lose_and_double_nothing(tmp_path: Path, whole: bool) -> None:
    """From the first look at the workflows to the published marts, dbt in a process of its own."""
    kills, chance = (40 if whole else 2), random.Random(20131231)
    with contextlib.chdir(tmp_path):
        place = Place(tmp_path / "project", PIPELINE)
        with contextlib.chdir(place.root):
            for _ in range(kills):
                place.again()
                moment = chance.randint(1, len(place.operations) * 9 // 10)
                ended = place.watch(lambda _, number, moment=moment: KILL if number == moment else GO_ON)
                when = f"killed before operation {moment}, {ended.operations[-1]}"
                assert ended.code == -signal.SIGKILL, when
                place.require_whole(when)
                place.require_converged(when)
