"""The promise after `kill -9` at any change of a file: nothing torn, lost or doubled, and the next run ends the work.

Without the rest: a process dies before it opens, writes, syncs, renames or removes a file, in Python, Arrow, DuckDB or
SQLite. With `--whole` at every such moment, else at some, the same ones each time.
"""

import contextlib
import random
import signal
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from cascade.config import Settings
from cascade.framework.instance import open_instance
from cascade.names import COMMAND_TAG, PROMOTE_POOL
from cascade_operations.run import close_killed_runs
from support.file_operations import GO_ON, KILL
from support.places import Place
from support.projects import make_project
from support.works import PIPELINE, WORKS

#: Kills of each work when not all of them are made, and how many moments it has at least.
SLICE = {
    "first load": (8, 50),
    "append": (8, 45),
    "quarantine": (8, 70),
    "marks": (8, 20),
    "dbt": (4, 60),
    "promotion": (8, 40),
    "drop": (3, 20),
    "rename": (3, 20),
    "reset": (3, 40),
    "publishing": (8, 50),
    "maintenance": (4, 60),
    "compaction": (4, 100),
    "expiry": (2, 60),
    "all maintenance": (4, 200),
    "lift": (4, 60),
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
        assert (place.after == place.before) == place.work.same
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


def test_a_run_that_was_killed_while_it_promoted_does_not_keep_its_turn(tmp_path: Path) -> None:
    """Of the pool `cascade_promote`, in which every later promotion would wait."""
    killed = dg.DagsterRun(job_name="all", status=dg.DagsterRunStatus.STARTED, tags={COMMAND_TAG: "run"})
    make_project(tmp_path)
    with open_instance(Settings(project_dir=tmp_path)) as instance:
        instance.add_run(killed)
        turns = instance.event_log_storage
        assert turns.claim_concurrency_slot(PROMOTE_POOL, killed.run_id, "promote").is_claimed
        close_killed_runs(instance)
        assert turns.claim_concurrency_slot(PROMOTE_POOL, "the next", "promote").is_claimed
