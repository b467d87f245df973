"""Whatever happens in whatever order, maintenance changes no row of any reference and keeps exactly what is needed.

A model says which rows each reference has, and which promotions conflict; Hypothesis makes up the histories.
"""

import contextlib
import datetime as dt
import itertools
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from cascade.catalog import MAIN
from cascade.errors import CatalogError, PromotionConflictError
from cascade.names import KEY_PROPERTY
from cascade_maintain import rewrite
from cascade_maintain.compact import compact_tables
from cascade_maintain.expire import expire_snapshots
from cascade_maintain.garbage import collect_files
from support.garbage import needed, stored
from support.lakes import ids, marking, numbers, open_embedded, put

# Everything is old: nobody else writes.
NOW, LONG = dt.timedelta(seconds=-1), dt.timedelta(days=30)
TABLES = ("raw.a", "raw.b")
_numbers = itertools.count(1)

# By table: which write made it as it is, and its rows.
State = dict[str, tuple[int, list[int]]]


@dataclass
class Reference:
    """What the model knows of a branch or tag."""

    source: str
    is_tag: bool = False
    state: State = field(default_factory=dict)
    base: State = field(default_factory=dict)

    @property
    def changed(self) -> set[str]:
        return {t for t in TABLES if self.state.get(t) != self.base.get(t)}


class Histories(RuleBasedStateMachine):
    """One history of a lakehouse, and of the model beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.lake = open_embedded(Path(self.folder.name))
        self.references = {MAIN: Reference("")}
        self.entries: dict[int, State] = {0: {}}
        self.forgotten = -1
        self.read: dict[str, list[int]] = {}

    def teardown(self) -> None:
        self.lake.database.engine.dispose()  # type: ignore[attr-defined]  # the embedded catalog has it
        self.folder.cleanup()

    @property
    def main(self) -> Reference:
        return self.references[MAIN]

    def pick(self, choice: int, *, branches: bool = False, main: bool = False) -> str | None:
        names = [n for n, r in self.references.items() if (main or n != MAIN) and not (branches and r.is_tag)]
        return names[choice % len(names)] if names else None

    def moved(self) -> None:
        """`main` may have moved: branches without changes follow, and the log has an entry."""
        for reference in self.references.values():
            if reference.source == MAIN and not reference.is_tag and not reference.changed:
                reference.state, reference.base = dict(self.main.state), dict(self.main.state)
        if newest := self.lake.log(limit=1):
            self.entries.setdefault(newest[0].id, dict(self.main.state))

    # --- what runs and people do ----------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        for name in ("b0", "b1"):
            self.lake.create(name)
            self.references[name] = Reference(MAIN)
        for table in TABLES:
            self.run(table, 1)

    @rule(table=st.sampled_from(TABLES), first=st.integers(0, 8))
    def run(self, table: str, first: int) -> None:
        """A run loads twice and promotes; its branch ends with it."""
        self.lake.create("run-1")
        self.references["run-1"] = Reference(MAIN, False, dict(self.main.state), dict(self.main.state))
        for n in (first, first + 1):
            self._load("run-1", table, n, "append")
        self._promote("run-1")
        self.lake.delete("run-1")
        del self.references["run-1"]

    @rule(choice=st.integers(0, 9), is_tag=st.booleans())
    def create(self, choice: int, is_tag: bool) -> None:
        source = self.pick(choice, main=True)
        if source is None or len(self.references) > 6:
            return
        name = f"{'t' if is_tag else 'b'}{next(_numbers)}"
        (self.lake.tag if is_tag else self.lake.create)(name, source)
        state = self.references[source].state
        self.references[name] = Reference(source, is_tag, dict(state), dict(state))

    @rule(
        choice=st.integers(0, 9),
        table=st.sampled_from(TABLES),
        first=st.integers(0, 8),
        mode=st.sampled_from(["append", "append", "merge", "mark", "replace"]),
    )
    def load(self, choice: int, table: str, first: int, mode: str) -> None:
        if branch := self.pick(choice, branches=True):
            self._load(branch, table, first, mode)

    def _load(self, branch: str, table: str, first: int, mode: str) -> None:
        new, state = list(range(first, first + 3)), self.references[branch].state
        marks, mode = mode == "mark", "merge" if mode == "mark" else mode
        _, old = state.get(table, (0, []))
        properties = {KEY_PROPERTY: '["id"]'} if table == "raw.a" else {}
        options: dict[str, Any] = {"key": ["id"]} if mode == "merge" else {}
        with marking() if marks else contextlib.nullcontext():
            put(self.lake, branch, table, numbers(first, first + 2), mode, properties=properties, **options)
        kept = {"append": old, "merge": [n for n in old if n not in new], "replace": []}[mode]
        state[table] = next(_numbers), sorted(kept + new)

    @rule(choice=st.integers(0, 9), table=st.sampled_from(TABLES))
    def drop(self, choice: int, table: str) -> None:
        branch = self.pick(choice, branches=True)
        if branch and table in self.references[branch].state:
            self.lake.open(branch).drop_table(table)
            del self.references[branch].state[table]

    @rule(choice=st.integers(0, 9))
    def promote(self, choice: int) -> None:
        if name := self.pick(choice, branches=True):
            self._promote(name)

    def _promote(self, name: str) -> None:
        branch, main = self.references[name], self.main.state
        conflicts = [
            t for t in branch.changed if main.get(t) != branch.base.get(t) and main.get(t) != branch.state.get(t)
        ]
        try:
            self.lake.merge(name)
        except PromotionConflictError:
            assert conflicts, f"{branch.base} -> {branch.state} onto {main}"
            return
        assert not conflicts
        for table in branch.changed:
            if table in branch.state:
                main[table] = branch.state[table]
            else:
                main.pop(table, None)
        branch.base = dict(branch.state)
        self.moved()

    @rule(choice=st.integers(0, 9), rarely=st.integers(0, 2))
    def delete(self, choice: int, rarely: int) -> None:
        if rarely == 0 and (name := self.pick(choice)):
            self.lake.delete(name)
            del self.references[name]

    @rule(choice=st.integers(0, 99))
    def restore(self, choice: int) -> None:
        entry = [*self.entries][choice % len(self.entries)]
        try:
            self.lake.restore(entry)
        except CatalogError:
            assert entry <= self.forgotten
            return
        self.main.state = dict(self.entries[entry])
        self.moved()

    # --- maintenance ----------------------------------------------------------------------------------------

    @rule(eager=st.booleans())
    def compact(self, eager: bool) -> None:
        with mock.patch.object(rewrite, "MARKED_PART", 0.9):  # so that files with marks stay, small as they are
            done = compact_tables(self.lake, eager=eager)
        assert (done.left, done.problems) == ((), {})
        self.moved()
        for name, location in self.lake.pointers(MAIN).items() if eager else ():
            assert len([*self.lake.load(name, location).scan().plan_files()]) <= 1

    @rule()
    def expire(self) -> None:
        assert expire_snapshots(self.lake, keep_history=NOW).left == ()
        self.moved()
        for name, location in self.lake.pointers(MAIN).items():
            assert len(self.lake.load(name, location).snapshots()) == 1

    @rule(forget=st.booleans())
    def files(self, forget: bool) -> None:
        wanted = needed(self.lake, log=not forget, forgotten=self.forgotten >= 0)
        collect_files(self.lake, older_than=NOW, keep_history=NOW if forget else LONG)
        if forget:
            self.forgotten = max(self.entries)
        assert stored(self.lake) == wanted
        self.read.clear()

    # --- what is always true --------------------------------------------------------------------------------

    @invariant()
    def every_reference_has_its_rows(self) -> None:
        for name, reference in self.references.items():
            pointers = self.lake.pointers(name)
            assert pointers.keys() == reference.state.keys()
            for table, location in pointers.items():
                if location not in self.read:
                    self.read[location] = ids(self.lake, name, table)
                assert self.read[location] == reference.state[table][1]
        assert {branch.name for branch in self.lake.branches()} == self.references.keys()


def test_no_history_loses_a_row_or_keeps_what_nobody_needs(whole: bool) -> None:
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=400 if whole else 12,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=not whole,
            phases=[Phase.generate],  # making a history shorter takes minutes
            print_blob=True,
            suppress_health_check=[*HealthCheck],
        ),
    )
