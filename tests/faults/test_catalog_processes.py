"""The promises of a catalog to several processes: writers take turns, one promoter wins, a kill tears nothing.

Modules: `cascade_embedded.database`, `cascade.catalog.locks`, `cascade_embedded.locks`,
`cascade_servers.postgres.database`, `cascade_servers.postgres.locks`.
"""

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cascade.catalog import MAIN, BranchingCatalog
from cascade.engine import query
from cascade.errors import CatalogError, LeaseHeldError, PromotionConflictError
from cascade.ingestion import cascade_ingestion, daily, load_plan
from cascade.ingestion.load import load
from cascade.lakehouse import Lakehouse
from support.lakes import Rows, barrier, before_each_step, event, finish, ids, numbers, promoted, put, read, start

OpenLake = Callable[[], BranchingCatalog]

PROCESSES = 8


@pytest.fixture
def stride(whole: bool) -> int:
    """How many steps lie between two kills: none is left out with `--whole`."""
    return 1 if whole else 4


def _append_often(open_lake: OpenLake, together: Any, numbers: range) -> None:
    lake = open_lake()
    together.wait()
    for n in numbers:
        put(lake, "dev", "raw.a", [{"id": n}])


def test_no_append_of_eight_processes_is_lost_or_doubled(open_lake: OpenLake, whole: bool) -> None:
    """PyIceberg's own retries would leave 151 of 200."""
    each = 25 if whole else 6
    together = barrier(PROCESSES)
    parts = [range(n * each, (n + 1) * each) for n in range(PROCESSES)]
    assert finish([start(_append_often, open_lake, together, part) for part in parts]) == [0] * PROCESSES
    lake = open_lake()
    assert ids(lake, "dev", "raw.a") == list(range(PROCESSES * each))
    head = lake.load("raw.a", lake.pointers("dev")["raw.a"]).current_snapshot()
    assert head is not None
    assert head.sequence_number == PROCESSES * each


def _merge_often(open_lake: OpenLake, together: Any, number: int) -> None:
    lake = open_lake()
    together.wait()
    for n in range(5):
        rows = [{"id": n, "by": number}, {"id": 100 + number, "by": n}]
        put(lake, "dev", "raw.a", rows, "merge", key=["id"])


def test_merges_of_one_key_by_several_processes_keep_it_once(open_lake: OpenLake) -> None:
    together = barrier(4)
    assert finish([start(_merge_often, open_lake, together, n) for n in range(4)]) == [0] * 4
    assert ids(open_lake(), "dev", "raw.a") == [0, 1, 2, 3, 4, 100, 101, 102, 103]


DAYS = [f"2013-07-0{n}" for n in range(1, 9)]


@cascade_ingestion(partitions=daily(start=DAYS[0], end="2013-07-09"), unique_key="id", max_retries=0)
def visits(partition_date: str) -> list[dict[str, Any]]:
    """Ten rows of each day."""
    return [{"id": f"{partition_date} {n}", "day": partition_date} for n in range(10)]


def _load_days(open_lake: OpenLake, together: Any, days: list[str]) -> None:
    house = Lakehouse(open_lake().settings, "dev")
    together.wait()
    for day in days:
        load(load_plan(visits), house, [day], missing_only=False, run_id=day)


def test_runs_of_different_partitions_at_once_lose_and_double_nothing(open_lake: OpenLake) -> None:
    """Neither rows, nor what is recorded as loaded: a run of what is missing finds nothing to do."""
    together, lake = barrier(4), open_lake()
    lake.create_if_missing("dev")
    parts = [DAYS[n::4] for n in range(4)]
    assert finish([start(_load_days, open_lake, together, part) for part in parts]) == [0] * 4
    rows = sorted(row["id"] for row in read(lake, "dev", "raw.visits"))
    assert rows == [f"{day} {n}" for day in DAYS for n in range(10)]
    again = load(load_plan(visits), Lakehouse(lake.settings, "dev"), DAYS, missing_only=True, run_id="again")
    assert (again.skipped, again.partitions) == (len(DAYS), [])


def _open(open_lake: OpenLake, together: Any) -> None:
    together.wait()
    lake = open_lake()
    lake.create_if_missing("dev")


def test_processes_that_open_a_new_lakehouse_together_all_succeed(open_lake: OpenLake) -> None:
    together = barrier(PROCESSES)
    assert finish([start(_open, open_lake, together) for _ in range(PROCESSES)]) == [0] * PROCESSES
    assert [b.name for b in open_lake().branches()] == [MAIN, "dev"]


# --- promotions -------------------------------------------------------------------------------------------


def _promote(open_lake: OpenLake, together: Any, branch: str) -> None:
    lake = open_lake()
    together.wait()
    try:
        lake.merge(branch)
    except PromotionConflictError:
        os._exit(17)


def test_one_of_several_promoters_wins_and_the_others_conflict(open_lake: OpenLake) -> None:
    lake, together = open_lake(), barrier(4)
    promoted(lake, "raw.a", numbers(0, 0))
    for n in (1, 2, 3, 4):
        put(lake, f"run-{n}", "raw.a", numbers(n, n))
        put(lake, f"run-{n}", f"raw.only_{n}", numbers(n, n))
    ended = finish([start(_promote, open_lake, together, f"run-{n}") for n in (1, 2, 3, 4)])
    assert sorted(ended, key=str) == [0, 17, 17, 17]
    winner = ended.index(0) + 1
    assert ids(lake, MAIN, "raw.a") == [0, winner]
    assert set(lake.pointers(MAIN)) == {"raw.a", f"raw.only_{winner}"}


TABLES = ("raw.a", "raw.b", "raw.c")


def _promote_often(open_lake: OpenLake, done: Any) -> None:
    """Every promotion leaves each table with one more row."""
    lake = open_lake()
    lake.create("dev")
    for n in itertools.count(1):
        for table in TABLES:
            put(lake, "dev", table, numbers(n, n))
        lake.merge("dev")
        if done.is_set():
            return


@pytest.mark.parametrize("reader", ["pointers", "query"])
def test_a_reader_of_several_tables_never_sees_half_a_promotion(
    open_lake: OpenLake, reader: str, whole: bool, record_property: Callable[[str, object], None]
) -> None:
    """Opened one by one, 38 of 400 reads saw a mixture; 3,000 reads with `--whole`."""
    lake, done = open_lake(), event()
    for table in TABLES:
        put(lake, "setup", table, numbers(0, 0))
    lake.merge("setup")
    sql = "SELECT " + ", ".join(f"(SELECT count(*) FROM {table}) AS {table[-1]}" for table in TABLES)
    writer = start(_promote_often, open_lake, done)
    seen, reads = set[tuple[int, ...]](), 0
    while reads < (3000 if whole else 40) or len(seen) < 5:
        assert writer.is_alive()
        reads += 1
        if reader == "query":
            (row,) = query(lake, MAIN, sql).to_pylist()
            seen.add(tuple(row.values()))
        else:
            pointers = lake.pointers(MAIN)
            summaries = [lake.load(t, pointers[t]).current_snapshot().summary for t in TABLES]  # type: ignore[union-attr]
            seen.add(tuple(int(s["total-records"]) for s in summaries))  # type: ignore[index, arg-type]
    done.set()
    assert finish([writer]) == [0]
    assert [counts for counts in seen if len(set(counts)) > 1] == []
    record_property("reads", reads)
    record_property("promotions seen", len(seen))


def _die_at_step(open_lake: OpenLake, number: int, work: Callable[[BranchingCatalog], object]) -> None:
    """Kill this process right before it sends its n-th statement or request to what keeps the catalog."""
    lake = open_lake()
    left = number

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    before_each_step(lake, count)
    work(lake)


def _merge_fix(lake: BranchingCatalog) -> object:
    return lake.merge("fix")


def _append_ten(lake: BranchingCatalog) -> object:
    return put(lake, "fix", "raw.b", numbers(10, 19))


def _killed_everywhere(open_lake: OpenLake, stride: int, work: Callable[[BranchingCatalog], object]) -> Iterator[None]:
    """Kill a process at every step of its work, or at every so many; yield after each, until one comes to its end."""
    for number in itertools.count(1, stride):
        if finish([start(_die_at_step, open_lake, number, work)]) != [-signal.SIGKILL]:
            return
        yield


def test_a_process_killed_anywhere_in_a_promotion_leaves_main_whole(open_lake: OpenLake, stride: int) -> None:
    lake = open_lake()
    lake.create("dev")
    promoted(lake, "raw.a", numbers(1, 1))
    put(lake, "fix", "raw.a", numbers(2, 2))
    put(lake, "fix", "raw.b", numbers(2, 2))
    before, log = lake.pointers(MAIN), lake.log()
    after = before | lake.pointers("fix")
    killed = 0
    for _ in _killed_everywhere(open_lake, stride, _merge_fix):
        killed += stride
        # All tables or none, and the log knows; on a server what follows the merge are requests of their own.
        assert (lake.pointers(MAIN), len(lake.log()) - len(log)) in [(before, 0), (after, 1)]
    assert killed > 5
    assert len(lake.log()) == len(log) + 1
    assert lake.pointers("dev") == lake.pointers(MAIN) == after != before
    assert lake.changes("fix") == []


def test_a_process_killed_anywhere_in_a_write_leaves_the_branch_whole(open_lake: OpenLake, stride: int) -> None:
    lake = open_lake()
    put(lake, "fix", "raw.b", numbers(1, 1))
    before = lake.pointers("fix")
    killed = 0
    for _ in _killed_everywhere(open_lake, stride, _append_ten):
        killed += stride
        assert lake.pointers("fix") == before
    assert killed > 3
    assert ids(lake, "fix", "raw.b") == [1, *range(10, 20)]


# --- the lease --------------------------------------------------------------------------------------------


def test_a_second_holder_is_refused_and_told_who_is_first(open_lake: OpenLake) -> None:
    with (
        open_lake().lease(MAIN, "cascade run of ada"),
        pytest.raises(LeaseHeldError, match=f"cascade run of ada, process {os.getpid()}"),
        open_lake().lease(MAIN, "another"),
    ):
        pass


def test_leases_of_different_branches_are_independent(open_lake: OpenLake) -> None:
    with open_lake().lease(MAIN, "one"), open_lake().lease("dev", "two"):
        pass


def test_a_lease_is_free_when_its_work_has_ended_well_or_badly(open_lake: OpenLake) -> None:
    lake = open_lake()
    with pytest.raises(ZeroDivisionError), lake.lease(MAIN, "one"):
        _ = 1 / 0
    with lake.lease(MAIN, "two"):
        pass


def test_a_lease_names_a_branch(open_lake: OpenLake) -> None:
    with pytest.raises(CatalogError, match="is not a name"), open_lake().lease("../../x", "one"):
        pass


def _hold(open_lake: OpenLake, held: Any, never: Any) -> None:
    with open_lake().lease(MAIN, "the first"):
        held.set()
        never.wait()


def test_a_lease_of_a_killed_process_is_free(open_lake: OpenLake) -> None:
    lake, held, never = open_lake(), event(), event()
    process = start(_hold, open_lake, held, never)
    assert held.wait(60)
    with pytest.raises(LeaseHeldError, match=f"the first, process {process.pid}"), lake.lease(MAIN, "the second"):
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    finish([process])
    with lake.lease(MAIN, "the second"):
        pass


def _lock_table(open_lake: OpenLake, held: Any, never: Any) -> None:
    with open_lake().table_lock("raw.a"):
        held.set()
        never.wait()


def test_the_lock_of_a_killed_writer_is_free(open_lake: OpenLake) -> None:
    lake, held, never = open_lake(), event(), event()
    process = start(_lock_table, open_lake, held, never)
    assert held.wait(60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    finish([process])
    rows: Rows = numbers(1, 1)
    put(lake, "dev", "raw.a", rows)
    assert read(lake, "dev", "raw.a") == rows
