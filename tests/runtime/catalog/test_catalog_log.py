"""The promises of a catalog's log: what moved, how it was before, how to go back."""

import datetime as dt

import pytest

from cascade.catalog import MAIN, BranchingCatalog
from cascade.errors import BranchNotFoundError, CatalogError
from support.lakes import ids, numbers, promoted, put


def test_the_log_shows_promotions_newest_first(lake: BranchingCatalog) -> None:
    begun = dt.datetime.now(dt.UTC)
    for branch in ("one", "two"):
        put(lake, branch, f"raw.{branch}", numbers(1, 1))
        lake.merge(branch)
    two, one = lake.log()
    assert [(e.kind, e.source, e.target, [c.table for c in e.changes]) for e in (two, one)] == [
        ("promote", "two", MAIN, ["raw.two"]),
        ("promote", "one", MAIN, ["raw.one"]),
    ]
    assert begun <= one.at <= two.at <= dt.datetime.now(dt.UTC)
    assert (one.id, two.id) == (1, 2)


def test_the_log_says_whose_process_moved_the_branch(lake: BranchingCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("anna", "ben"):
        monkeypatch.setenv("LOGNAME", name)
        promoted(lake, f"raw.of_{name}", numbers(1, 1))
    monkeypatch.setenv("LOGNAME", "carla")
    lake.restore(1)
    assert [entry.by for entry in lake.log()] == ["carla", "ben", "anna"]


def test_the_log_can_be_cut(lake: BranchingCatalog) -> None:
    for n in range(3):
        promoted(lake, f"raw.t{n}", numbers(1, 1))
    assert [e.changes[0].table for e in lake.log(limit=2)] == ["raw.t2", "raw.t1"]


def test_a_promotion_of_nothing_is_not_logged(lake: BranchingCatalog) -> None:
    lake.create("fix")
    assert lake.merge("fix") is None
    assert lake.log() == []


def test_each_branch_has_its_own_log(lake: BranchingCatalog) -> None:
    lake.create("release")
    put(lake, "fix", "raw.a", numbers(1, 1))
    lake.merge("fix", "release")
    assert ([e.source for e in lake.log("release")], lake.log()) == (["fix"], [])


def test_a_new_branch_does_not_inherit_the_log_of_a_deleted_one(lake: BranchingCatalog) -> None:
    lake.create("release")
    put(lake, "fix", "raw.a", numbers(1, 1))
    lake.merge("fix", "release")
    lake.delete("release")
    lake.create("release")
    assert lake.log("release") == []


def test_restore_goes_back_to_an_entry_and_is_logged(lake: BranchingCatalog) -> None:
    for n in (1, 2, 3):
        promoted(lake, "raw.a", numbers(n, n))
    second = lake.log()[1]
    entry = lake.restore(second.id)
    assert ids(lake, MAIN, "raw.a") == [1, 2]
    assert entry is not None
    assert (entry.kind, entry.source, lake.log()[0]) == ("restore", str(second.id), entry)


def test_restore_brings_back_dropped_tables_and_takes_away_created_ones(lake: BranchingCatalog) -> None:
    promoted(lake, "raw.a", numbers(1, 1))
    before, first = lake.pointers(MAIN), lake.log()[0]
    lake.create("fix")
    lake.open("fix").drop_table("raw.a")
    put(lake, "fix", "raw.b", numbers(1, 1))
    lake.merge("fix")
    lake.restore(first.id)
    assert lake.pointers(MAIN) == before


def test_restore_to_zero_is_before_the_first_entry(lake: BranchingCatalog) -> None:
    promoted(lake, "raw.a", numbers(1, 1))
    promoted(lake, "raw.b", numbers(1, 1))
    lake.restore(0)
    assert lake.pointers(MAIN) == {}


def test_a_restore_can_be_restored(lake: BranchingCatalog) -> None:
    promoted(lake, "raw.a", numbers(1, 1))
    promoted(lake, "raw.a", numbers(2, 2))
    newest, oldest = lake.log()
    lake.restore(oldest.id)
    lake.restore(newest.id)
    assert ids(lake, MAIN, "raw.a") == [1, 2]


def test_restoring_what_stands_changes_nothing(lake: BranchingCatalog) -> None:
    promoted(lake, "raw.a", numbers(1, 1))
    assert lake.restore(lake.log()[0].id) is None
    assert len(lake.log()) == 1


def test_an_entry_that_does_not_exist_is_answered_with_those_that_do(lake: BranchingCatalog) -> None:
    promoted(lake, "raw.a", numbers(1, 1))
    with pytest.raises(CatalogError, match="has no entry 99") as caught:
        lake.restore(99)
    assert str(lake.log()[0].id) in caught.value.where


def test_a_clean_branch_follows_a_restore(lake: BranchingCatalog) -> None:
    lake.create("dev")
    promoted(lake, "raw.a", numbers(1, 1))
    lake.restore(0)
    assert lake.pointers("dev") == {}


def test_a_run_that_began_before_a_restore_conflicts_with_it(lake: BranchingCatalog) -> None:
    promoted(lake, "raw.a", numbers(1, 1))
    put(lake, "run-1a2b3c4d", "raw.a", numbers(2, 2))
    lake.restore(0)
    with pytest.raises(CatalogError, match=r"raw\.a"):
        lake.merge("run-1a2b3c4d")
    assert lake.pointers(MAIN) == {}


def test_main_is_read_as_it_stood_at_any_time(lake: BranchingCatalog) -> None:
    states = [lake.pointers(MAIN)]
    for n in (1, 2):
        promoted(lake, "raw.a", numbers(n, n))
        states.append(lake.pointers(MAIN))
    lake.restore(0)
    moves = [entry.at for entry in reversed(lake.log())]
    instant = dt.timedelta(microseconds=1)
    assert [lake.pointers(MAIN, at=at - instant) for at in moves] == states
    assert [lake.pointers(MAIN, at=at) for at in moves] == [*states[1:], {}]


def test_a_branch_begins_with_what_main_was_at_any_time(lake: BranchingCatalog) -> None:
    states = []
    for n in (1, 2):
        promoted(lake, "raw.a", numbers(n, n))
        promoted(lake, f"raw.only_{n}", numbers(n, n))
        states.append(lake.pointers(MAIN))
    moves = [entry.at for entry in reversed(lake.log())]
    lake.create("then", at=moves[1])
    lake.tag("now", at=moves[-1])
    lake.create("before", at=moves[0] - dt.timedelta(days=1))
    assert [lake.pointers(name) for name in ("then", "now", "before")] == [*states, {}]
    assert [lake.changes(name) for name in ("then", "before")] == [[], []]
    put(lake, "before", "raw.a", numbers(4, 4))
    with pytest.raises(CatalogError, match=r"raw\.a"):
        lake.merge("before")
    put(lake, "then", "raw.only_1", numbers(3, 3))
    assert lake.merge("then") is not None  # `main` has not changed this table since


def test_a_reference_that_does_not_exist_has_no_past(lake: BranchingCatalog) -> None:
    with pytest.raises(BranchNotFoundError):
        lake.pointers("nope", at=dt.datetime.now(dt.UTC))
