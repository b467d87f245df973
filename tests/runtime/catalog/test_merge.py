"""The promises of `cascade.catalog.merge`, the policy of every catalog: what moves, conflicts, follows and is undone.

Modules: `cascade.catalog.changes`.
"""

import datetime as dt
import itertools

import pytest

from cascade.catalog import LogEntry, TableChange, compare
from cascade.catalog.merge import follows, require_branch, require_entry, require_unchanged, to_move, undo
from cascade.errors import CatalogError, PromotionConflictError


def never(table: str, one: str, other: str) -> bool:
    """No two states hold the same rows."""
    return False


STATES = (None, "a", "b", "c")


@pytest.mark.parametrize(("base", "ours", "theirs"), list(itertools.product(STATES, repeat=3)))
def test_a_merge_moves_what_only_the_source_changed(base: str | None, ours: str | None, theirs: str | None) -> None:
    """Every table that is absent, the same or different on each of the three sides."""
    state = {name: {"raw.t": at} if at else {} for name, at in (("base", base), ("ours", ours), ("theirs", theirs))}
    changes = compare(state["base"], state["ours"])
    if ours in (base, theirs):
        assert to_move("dev", "main", changes, state["theirs"], never) == []
    elif theirs == base:
        assert to_move("dev", "main", changes, state["theirs"], never) == [TableChange("raw.t", base, ours)]
    else:
        with pytest.raises(PromotionConflictError, match=r"dev -> main, tables raw\.t"):
            to_move("dev", "main", changes, state["theirs"], never)


def test_a_conflict_names_every_table_and_moves_none() -> None:
    changes = [TableChange("raw.a", "1", "2"), TableChange("raw.b", None, "2"), TableChange("raw.c", "1", None)]
    with pytest.raises(PromotionConflictError, match=r"tables raw\.b, raw\.c"):
        to_move("dev", "main", changes, {"raw.a": "1", "raw.b": "9", "raw.c": "9"}, never)


def test_what_changed_no_row_on_the_target_is_no_conflict() -> None:
    """The move begins where the target is, or undoing it would lead elsewhere."""
    changes = [TableChange("raw.a", "1", "2"), TableChange("raw.b", "1", None), TableChange("raw.c", None, "2")]

    def same(table: str, one: str, other: str) -> bool:
        return (one, other) == ("1", "1-compacted")

    current = {"raw.a": "1-compacted", "raw.b": "1-compacted"}
    moved = [TableChange("raw.a", "1-compacted", "2"), TableChange("raw.b", "1-compacted", None), changes[2]]
    assert to_move("dev", "main", changes, current, same) == moved
    with pytest.raises(PromotionConflictError, match=r"tables raw\.c"):
        to_move("dev", "main", changes, {**current, "raw.c": "1-compacted"}, same)


def test_only_the_checked_changes_are_merged() -> None:
    one, other = TableChange("raw.a", "1", "2"), TableChange("raw.a", "1", "3")
    require_unchanged("dev", "main", [one], None)
    require_unchanged("dev", "main", [one], iter([one]))
    for changes in ([other], [], [one, other]):
        with pytest.raises(PromotionConflictError, match="was written while"):
            require_unchanged("dev", "main", changes, [one])


@pytest.mark.parametrize(("before", "after"), list(itertools.product(STATES, repeat=2)))
def test_undo_gives_the_state_before_a_move(before: str | None, after: str | None) -> None:
    first, last = ({"raw.t": at} if at else {} for at in (before, after))
    middle = {"raw.t": "middle", "raw.new": "1"}
    moves = [_entry(middle, last), _entry(first, middle)]
    assert undo(last, moves) == first


@pytest.mark.parametrize(
    ("name", "kind", "source", "expected"),
    [
        ("dev", "branch", "main", True),
        ("dev", "branch", "other", False),
        ("dev", "branch", None, False),
        ("v1", "tag", "main", False),
        ("main", "branch", "main", False),
        ("run-1a2b3c4d", "branch", "main", False),
    ],
)
def test_which_branches_follow_main(name: str, kind: str, source: str | None, expected: bool) -> None:
    assert follows(name, kind, source, "main") is expected


@pytest.mark.parametrize(
    ("refused", "says"),
    [
        (lambda: require_entry(3, "main", [2, 1]), r"no entry 3.*entries 2, 1"),
        (lambda: require_entry(3, "main", []), "entries none"),
        (lambda: require_branch("v1", "tag"), "a tag, which never moves"),
    ],
)
def test_what_is_refused_says_what_there_is(refused: object, says: str) -> None:
    with pytest.raises(CatalogError, match=f"(?s){says}"):
        refused()  # type: ignore[operator]


def test_entry_0_and_known_entries_can_be_restored() -> None:
    require_entry(0, "main", [])
    require_entry(1, "main", [2, 1])
    require_branch("dev", "branch")


def _entry(before: dict[str, str], after: dict[str, str]) -> LogEntry:
    changes = tuple(compare(before, after))
    return LogEntry(id=1, at=dt.datetime.now(dt.UTC), kind="promote", source="dev", target="main", changes=changes)
