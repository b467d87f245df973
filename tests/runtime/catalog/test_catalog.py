"""The promises of a catalog with branches, for every implementation of `cascade.catalog.BranchingCatalog`.

Modules: `cascade.catalog.base`, `cascade.catalog.reference`.
"""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from cascade.catalog import MAIN, BranchingCatalog, check_reference_name, check_table_name
from cascade.errors import BranchNotFoundError, CatalogError, PromotionConflictError
from cascade.iceberg.schema import schema_from_arrow
from support.lakes import ids, numbers, promoted, put

IDS = schema_from_arrow(pa.schema([("id", pa.int64())]))


def kinds(lake: BranchingCatalog, branch: str) -> dict[str, str]:
    return {change.table: change.kind for change in lake.changes(branch)}


# --- branches ---------------------------------------------------------------------------------------------


def test_a_new_lakehouse_has_main_and_nothing_else(lake: BranchingCatalog) -> None:
    assert [(b.name, b.kind, b.changed) for b in lake.branches()] == [(MAIN, "branch", 0)]
    assert lake.pointers(MAIN) == {}


def test_what_was_written_is_there_when_it_is_opened_again(open_lake: Callable[[], BranchingCatalog]) -> None:
    promoted(open_lake(), "raw.a", numbers(1, 2))
    assert ids(open_lake(), MAIN, "raw.a") == [1, 2]


def test_a_branch_starts_with_the_tables_of_main_and_copies_no_data(lake: BranchingCatalog) -> None:
    promoted(lake, "raw.a", numbers(1, 2))
    lake.create("fix")
    assert lake.pointers("fix") == lake.pointers(MAIN) != {}


def test_a_branch_can_start_from_another_branch(lake: BranchingCatalog) -> None:
    put(lake, "one", "raw.a", numbers(1, 1))
    lake.create("two", "one")
    put(lake, "two", "raw.a", numbers(2, 2))
    assert (ids(lake, "one", "raw.a"), ids(lake, "two", "raw.a")) == ([1], [1, 2])


def test_main_comes_first_and_the_others_by_name(lake: BranchingCatalog) -> None:
    for name in ("zeta", "alpha"):
        lake.create(name)
    lake.tag("beta", "alpha")
    assert [(b.name, b.kind, b.source) for b in lake.branches()] == [
        (MAIN, "branch", ""),
        ("alpha", "branch", MAIN),
        ("beta", "tag", "alpha"),
        ("zeta", "branch", MAIN),
    ]


def test_a_branch_knows_when_it_was_made_and_how_much_it_holds(lake: BranchingCatalog) -> None:
    before = dt.datetime.now(dt.UTC)
    put(lake, "fix", "raw.a", numbers(1, 1))
    put(lake, "fix", "raw.b", numbers(1, 1))
    (branch,) = [b for b in lake.branches() if b.name == "fix"]
    assert branch.changed == 2
    assert before <= branch.created_at <= dt.datetime.now(dt.UTC)


def test_tables_are_put_back_as_they_were_and_can_be_written_and_promoted_again(lake: BranchingCatalog) -> None:
    promoted(lake, "raw.a", numbers(1, 1))
    put(lake, "fix", "raw.b", numbers(1, 1))
    before = lake.pointers("fix")
    for table in ("raw.a", "raw.b", "raw.c"):
        put(lake, "fix", table, numbers(2, 2))
    lake.put_back("fix", {"raw.a": before["raw.a"], "raw.c": None})
    assert lake.pointers("fix").keys() == before.keys()
    assert (ids(lake, "fix", "raw.a"), ids(lake, "fix", "raw.b")) == ([1], [1, 2])
    put(lake, "fix", "raw.a", numbers(3, 3))
    lake.merge("fix")
    assert (ids(lake, MAIN, "raw.a"), ids(lake, MAIN, "raw.b")) == ([1, 3], [1, 2])


def test_writing_a_branch_leaves_main_alone(lake: BranchingCatalog) -> None:
    promoted(lake, "raw.a", numbers(1, 1))
    put(lake, "fix", "raw.a", numbers(2, 2))
    assert (ids(lake, MAIN, "raw.a"), ids(lake, "fix", "raw.a")) == ([1], [1, 2])


def test_create_if_missing_creates_a_branch_once(lake: BranchingCatalog) -> None:
    assert [lake.create_if_missing("fix"), lake.create_if_missing("fix"), lake.create_if_missing(MAIN)] == [
        True,
        False,
        False,
    ]


def test_a_deleted_branch_is_gone_and_its_name_is_free(lake: BranchingCatalog) -> None:
    put(lake, "fix", "raw.a", numbers(1, 1))
    lake.delete("fix")
    lake.create("fix")
    assert (lake.pointers("fix"), lake.changes("fix")) == ({}, [])


def test_deleting_a_branch_leaves_what_another_one_reads(lake: BranchingCatalog) -> None:
    put(lake, "one", "raw.a", numbers(1, 3))
    lake.create("two", "one")
    lake.delete("one")
    assert ids(lake, "two", "raw.a") == [1, 2, 3]


# --- what is refused --------------------------------------------------------------------------------------

MISSING: dict[str, Callable[[BranchingCatalog], object]] = {
    "catalog": lambda lake: lake.open("nope"),
    "changes": lambda lake: lake.changes("nope"),
    "create": lambda lake: lake.create("fix", "nope"),
    "delete": lambda lake: lake.delete("nope"),
    "diff": lambda lake: lake.diff(MAIN, "nope"),
    "log": lambda lake: lake.log("nope"),
    "merge": lambda lake: lake.merge("nope"),
    "merge_target": lambda lake: lake.merge(MAIN, "nope"),
    "pointers": lambda lake: lake.pointers("nope"),
    "restore": lambda lake: lake.restore(0, "nope"),
    "tag": lambda lake: lake.tag("v1", "nope"),
}


@pytest.mark.parametrize("ask", MISSING.values(), ids=MISSING.keys())
def test_a_reference_that_does_not_exist_is_named_beside_those_that_do(
    lake: BranchingCatalog, ask: Callable[[BranchingCatalog], object]
) -> None:
    lake.create("here")
    with pytest.raises(BranchNotFoundError, match=r"`nope`") as caught:
        ask(lake)
    assert "here, main" in caught.value.where


@pytest.mark.parametrize("name", ["../../x", "a/b", "", ".hidden", "-x", "a b", "é", "x" * 101, "a\n"])
@pytest.mark.parametrize("make", ["create", "create_if_missing", "tag"])
def test_a_name_that_is_none_is_refused_with_an_example(lake: BranchingCatalog, name: str, make: str) -> None:
    with pytest.raises(CatalogError, match="is not a name") as caught:
        getattr(lake, make)(name)
    assert "fix-july" in caught.value.fix
    assert [b.name for b in lake.branches()] == [MAIN]


@pytest.mark.parametrize("name", ["dev", "run-1a2b3c4d", "v2013-07", "v1.0_final", "x" * 100])
def test_an_ordinary_name_is_a_name(name: str) -> None:
    assert check_reference_name(name) == name


@pytest.mark.parametrize(
    "name", ["../../x", "raw.../x", "raw/a.b", "a", "a.b.c", "raw.", ".a", "raw.a b", "raw.1a", ""]
)
def test_a_table_name_that_could_leave_the_warehouse_is_refused(lake: BranchingCatalog, name: str) -> None:
    with pytest.raises(CatalogError, match=r"is not the name of a table.*\n.*raw\.weather_observations"):
        check_table_name(name)
    lake.create("fix")
    with pytest.raises(CatalogError, match="is not the name of a table"):
        lake.open("fix").create_table(name, IDS)


@pytest.mark.parametrize("make", ["create", "tag"])
def test_a_name_that_is_taken_is_refused(lake: BranchingCatalog, make: str) -> None:
    lake.create("fix")
    with pytest.raises(CatalogError, match="`fix` exists already"):
        getattr(lake, make)("fix")


def test_main_cannot_be_deleted(lake: BranchingCatalog) -> None:
    with pytest.raises(CatalogError, match="`main` cannot be deleted"):
        lake.delete(MAIN)


WRITES: dict[str, Callable[[Any], object]] = {
    "append": lambda c: c.load_table("raw.a").append(pa.table({"id": pa.array([9], pa.int64())})),
    "create": lambda c: c.create_table("raw.b", IDS),
    "drop": lambda c: c.drop_table("raw.a"),
    "properties": lambda c: c.load_table("raw.a").transaction().set_properties(x="y").commit_transaction(),
    "register": lambda c: c.register_table("raw.b", c.load_table("raw.a").metadata_location),
    "rename": lambda c: c.rename_table("raw.a", "raw.b"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
@pytest.mark.parametrize("ref", [MAIN, "v1"])
def test_main_and_tags_refuse_every_write(lake: BranchingCatalog, ref: str, write: Callable[[Any], object]) -> None:
    promoted(lake, "raw.a", numbers(1, 1))
    lake.tag("v1")
    before = lake.pointers(ref)
    with pytest.raises(CatalogError, match=f"`{ref}` is never written directly"):
        write(lake.open(ref))
    assert lake.pointers(ref) == before


def test_purging_is_refused_because_other_branches_read_the_files(lake: BranchingCatalog) -> None:
    promoted(lake, "raw.a", numbers(1, 1))
    lake.create("fix")
    with pytest.raises(CatalogError, match="would destroy files"):
        lake.open("fix").purge_table("raw.a")
    assert ids(lake, MAIN, "raw.a") == [1]


def test_a_table_dropped_on_a_branch_is_still_read_on_main(lake: BranchingCatalog) -> None:
    promoted(lake, "raw.a", numbers(1, 1))
    lake.create("fix")
    lake.open("fix").drop_table("raw.a")
    assert ids(lake, MAIN, "raw.a") == [1]


# --- differences and promotion ----------------------------------------------------------------------------


def test_changes_name_created_changed_and_dropped_tables(lake: BranchingCatalog) -> None:
    for table in ("raw.changed", "raw.dropped", "raw.same"):
        promoted(lake, table, numbers(1, 1))
    put(lake, "fix", "raw.changed", numbers(2, 2))
    put(lake, "fix", "raw.created", numbers(1, 1))
    lake.open("fix").drop_table("raw.dropped")
    assert kinds(lake, "fix") == {"raw.changed": "changed", "raw.created": "created", "raw.dropped": "dropped"}


def test_diff_compares_any_two_references(lake: BranchingCatalog) -> None:
    put(lake, "one", "raw.a", numbers(1, 1))
    lake.tag("v1", "one")
    put(lake, "one", "raw.a", numbers(2, 2))
    (change,) = lake.diff("v1", "one")
    assert (change.table, change.kind) == ("raw.a", "changed")
    assert (change.before, change.after) == (lake.pointers("v1")["raw.a"], lake.pointers("one")["raw.a"])
    assert lake.diff("one", "one") == []


def test_a_promotion_moves_created_changed_and_dropped_tables_together(lake: BranchingCatalog) -> None:
    for table in ("raw.changed", "raw.dropped", "raw.same"):
        promoted(lake, table, numbers(1, 1))
    put(lake, "fix", "raw.changed", numbers(2, 2))
    put(lake, "fix", "raw.created", numbers(5, 5))
    lake.open("fix").drop_table("raw.dropped")
    expected = lake.pointers("fix")
    entry = lake.merge("fix")
    assert entry is not None
    assert {c.table: c.kind for c in entry.changes} == {
        "raw.changed": "changed",
        "raw.created": "created",
        "raw.dropped": "dropped",
    }
    assert lake.pointers(MAIN) == expected
    assert ids(lake, MAIN, "raw.changed") == [1, 2]


@pytest.mark.parametrize("new", ["raw.b", "other.a"])
def test_a_renamed_table_is_promoted_and_restored_with_its_history(lake: BranchingCatalog, new: str) -> None:
    promoted(lake, "raw.a", numbers(1, 2))
    before = lake.pointers(MAIN)
    lake.create("dev")
    lake.open("dev").rename_table("raw.a", new)
    assert [(c.table, c.kind) for c in lake.changes("dev")] == sorted([(new, "created"), ("raw.a", "dropped")])
    assert lake.merge("dev") is not None
    assert lake.pointers(MAIN) == {new: before["raw.a"]}
    put(lake, "dev", new, numbers(3, 3))
    lake.merge("dev")
    assert ids(lake, MAIN, new) == [1, 2, 3]
    lake.restore(1)
    assert lake.pointers(MAIN) == before


def test_a_promoted_branch_holds_nothing_more_and_can_go_on(lake: BranchingCatalog) -> None:
    put(lake, "fix", "raw.a", numbers(1, 1))
    lake.merge("fix")
    assert lake.changes("fix") == []
    assert lake.merge("fix") is None
    put(lake, "fix", "raw.a", numbers(2, 2))
    lake.merge("fix")
    assert ids(lake, MAIN, "raw.a") == [1, 2]


def test_branches_of_different_tables_do_not_conflict(lake: BranchingCatalog) -> None:
    put(lake, "one", "raw.a", numbers(1, 1))
    put(lake, "two", "raw.b", numbers(2, 2))
    lake.merge("one")
    lake.merge("two")
    assert (ids(lake, MAIN, "raw.a"), ids(lake, MAIN, "raw.b")) == ([1], [2])


def test_a_conflict_names_the_tables_and_moves_nothing(lake: BranchingCatalog) -> None:
    for branch in ("one", "two"):
        for table in ("raw.a", "raw.b", f"raw.only_{branch}"):
            put(lake, branch, table, numbers(1, 1))
    lake.merge("one")
    before = lake.pointers(MAIN)
    with pytest.raises(PromotionConflictError) as caught:
        lake.merge("two")
    assert caught.value.where == "two -> main, tables raw.a, raw.b"
    assert (lake.pointers(MAIN), len(lake.changes("two"))) == (before, 3)


@pytest.mark.parametrize("first", ["change", "drop"])
def test_dropping_and_changing_one_table_conflict(lake: BranchingCatalog, first: str) -> None:
    promoted(lake, "raw.a", numbers(1, 1))
    lake.create("drop")
    lake.open("drop").drop_table("raw.a")
    put(lake, "change", "raw.a", numbers(2, 2))
    lake.merge(first)
    with pytest.raises(PromotionConflictError, match=r"raw\.a"):
        lake.merge("drop" if first == "change" else "change")


def test_a_promotion_of_other_changes_than_were_checked_moves_nothing(lake: BranchingCatalog) -> None:
    put(lake, "fix", "raw.a", numbers(1, 1))
    checked = lake.changes("fix")
    put(lake, "fix", "raw.a", numbers(2, 2))
    with pytest.raises(PromotionConflictError, match="was written while it was being promoted"):
        lake.merge("fix", expected=checked)
    assert lake.pointers(MAIN) == {}
    assert lake.merge("fix", expected=lake.changes("fix")) is not None


def test_a_branch_can_be_promoted_to_another_branch(lake: BranchingCatalog) -> None:
    lake.create("release")
    put(lake, "fix", "raw.a", numbers(1, 1))
    lake.merge("fix", "release")
    assert (ids(lake, "release", "raw.a"), lake.pointers(MAIN)) == ([1], {})


def test_a_tag_never_moves(lake: BranchingCatalog) -> None:
    promoted(lake, "raw.a", numbers(1, 1))
    lake.tag("v1")
    promoted(lake, "raw.a", numbers(2, 2))
    put(lake, "fix", "raw.a", numbers(3, 3))
    with pytest.raises(CatalogError, match="tag"):
        lake.merge("fix", "v1")
    assert ids(lake, "v1", "raw.a") == [1]


# --- who follows main -------------------------------------------------------------------------------------


def test_a_branch_that_holds_nothing_follows_main(lake: BranchingCatalog) -> None:
    lake.create("dev")
    promoted(lake, "raw.a", numbers(1, 1))
    assert lake.pointers("dev") == lake.pointers(MAIN)
    put(lake, "dev", "raw.a", numbers(2, 2))
    assert lake.merge("dev") is not None


def test_a_branch_that_holds_something_stays_where_it_is(lake: BranchingCatalog) -> None:
    put(lake, "dev", "raw.b", numbers(1, 1))
    promoted(lake, "raw.a", numbers(1, 1))
    assert set(lake.pointers("dev")) == {"raw.b"}


def test_the_branch_of_a_run_reads_one_state_from_beginning_to_end(lake: BranchingCatalog) -> None:
    lake.create("run-1a2b3c4d")
    promoted(lake, "raw.a", numbers(1, 1))
    assert lake.pointers("run-1a2b3c4d") == {}


def test_a_promoted_branch_follows_main_again(lake: BranchingCatalog) -> None:
    put(lake, "dev", "raw.b", numbers(1, 1))
    promoted(lake, "raw.a", numbers(1, 1))
    lake.merge("dev")
    assert lake.pointers("dev") == lake.pointers(MAIN)
    assert set(lake.pointers("dev")) == {"raw.a", "raw.b"}


@pytest.mark.parametrize("kind", ["tag", "branch"])
def test_a_branch_made_from_something_else_than_main_stays_there(lake: BranchingCatalog, kind: str) -> None:
    promoted(lake, "raw.a", numbers(1, 1))
    if kind == "tag":
        lake.tag("base")
    else:
        put(lake, "base", "raw.a", numbers(7, 7))
    lake.create("fix", "base")
    standing = lake.pointers("fix")
    promoted(lake, "raw.b", numbers(1, 1))
    assert lake.pointers("fix") == standing


@pytest.mark.parametrize("table", ["raw.Orders", "Raw.orders", "RAW.ORDERS"])
def test_a_table_whose_name_differs_from_another_only_in_case_is_refused(lake: BranchingCatalog, table: str) -> None:
    put(lake, "dev", "raw.orders", numbers(1, 1))
    with pytest.raises(CatalogError, match=r"`raw\.orders` exists"):
        put(lake, "dev", table, numbers(2, 2))
    assert list(lake.pointers("dev")) == ["raw.orders"]
