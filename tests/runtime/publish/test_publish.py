"""The promises of the gate before `main`, and of what is published behind it.

Modules: `cascade.evidence`, `cascade_operations.promotion`, `cascade.publish.after`, `cascade.publish.assets`,
`cascade.publish.gate`.
"""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from cascade.catalog import MAIN, LogEntry
from cascade.errors import PromotionConflictError, PromotionRefusedError
from cascade.lakehouse import Lakehouse
from cascade.names import BRANCH_TAG, SNAPSHOT_METADATA
from cascade.publish import PROMOTE_KEY, PUBLISH_KEY, Guards, build_publishing, promote_branch
from support.lakes import ids, numbers, promoted, put, settings_in
from support.packages import install

pytestmark = pytest.mark.on_servers("nessie")

TABLE = dg.AssetKey(["raw", "a"])
GUARDS = Guards({TABLE: [dg.AssetCheckKey(TABLE, "good")]})


class Gate:
    """A lakehouse with Dagster beside it: runs that write and check, and promotions."""

    def __init__(self, folder: Path) -> None:
        self.settings = settings_in(folder)
        self.catalog = Lakehouse(self.settings, "dev").catalog
        self._files = folder / "dagster"
        self._files.mkdir()
        self.instance = dg.DagsterInstance.ephemeral(tempdir=str(self._files))

    def run(
        self, *definitions: Any, branch: str = "dev", selection: dg.AssetSelection | None = None
    ) -> dg.ExecuteInProcessResult:
        """Run assets and checks on a branch."""
        return dg.materialize(
            list(definitions),
            instance=self.instance,
            resources={"lakehouse": Lakehouse(self.settings, branch)},
            tags={BRANCH_TAG: branch},
            selection=selection,
            raise_on_error=False,
        )

    def promote(self, branch: str = "dev", guards: Guards = GUARDS) -> LogEntry | None:
        return promote_branch(self.catalog, branch, self.instance, guards)

    def refused(self, branch: str = "dev", guards: Guards = GUARDS) -> str:
        """Promote, which must be refused with `main` as it was, and return why."""
        before = self.catalog.pointers(MAIN)
        with pytest.raises(PromotionRefusedError) as caught:
            self.promote(branch, guards)
        assert self.catalog.pointers(MAIN) == before
        return str(caught.value)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def rows(number: int, *, tell: bool = True) -> dg.AssetsDefinition:
    """An asset that writes a row to `raw.a`, and says so."""

    @dg.asset(key=TABLE)
    def write_rows(context: dg.AssetExecutionContext, lakehouse: dg.ResourceParam[Lakehouse]) -> Any:
        found = put(lakehouse.catalog, lakehouse.branch, "raw.a", numbers(number, number))
        return dg.MaterializeResult(metadata={SNAPSHOT_METADATA: str(found.snapshot_id)} if tell else {})

    definition: dg.AssetsDefinition = write_rows
    return definition


def check(passed: bool, *, severity: Any = dg.AssetCheckSeverity.ERROR, blocking: bool = True) -> Any:
    """A blocking check of plain Dagster, which knows nothing of snapshots."""

    @dg.asset_check(asset=TABLE, name="good", blocking=blocking)
    def good() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=passed, severity=severity)

    return good


# --- the gate ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tell", [True, False], ids=["says_its_snapshot", "plain"])
def test_a_branch_whose_checks_passed_is_promoted(gate: Gate, tell: bool) -> None:
    gate.run(rows(1, tell=tell), check(True))
    entry = gate.promote()
    assert entry is not None
    assert ids(gate.catalog, MAIN, "raw.a") == [1]


@pytest.mark.parametrize("tell", [True, False], ids=["says_its_snapshot", "plain"])
def test_a_failed_check_refuses_by_name_and_says_what_to_do(gate: Gate, tell: bool) -> None:
    gate.run(rows(1, tell=tell), check(False))
    said = gate.refused()
    assert f"raw.a: check `good` failed on snapshot {Lakehouse(gate.settings, 'dev').head('raw.a')}" in said
    assert "cascade query … --branch dev" in said
    assert ids(gate.catalog, "dev", "raw.a") == [1]


def test_a_check_that_has_not_run_refuses(gate: Gate) -> None:
    gate.run(rows(1))
    assert "check `good` has not run on snapshot" in gate.refused()


@pytest.mark.parametrize("tell", [True, False], ids=["says_its_snapshot", "plain"])
def test_a_check_of_an_older_snapshot_proves_nothing(gate: Gate, tell: bool) -> None:
    gate.run(rows(1, tell=tell), check(True))
    gate.run(rows(2, tell=tell))
    assert "has not run on snapshot" in gate.refused()


def test_a_write_outside_of_dagster_is_not_covered_by_the_check_before_it(gate: Gate) -> None:
    gate.run(rows(1), check(True))
    put(gate.catalog, "dev", "raw.a", numbers(2, 2))
    assert "has not run on snapshot" in gate.refused()


def test_a_check_of_another_branch_proves_nothing(gate: Gate) -> None:
    gate.run(rows(1), check(True), branch="other")
    gate.run(rows(1), branch="dev")
    assert "has not run on snapshot" in gate.refused("dev")


def test_branches_that_interleave_in_the_log_are_told_apart(gate: Gate) -> None:
    gate.run(rows(1), check(True), branch="good")
    gate.run(rows(2), check(False), branch="bad")
    assert "failed on snapshot" in gate.refused("bad")
    assert gate.promote("good") is not None


def test_the_newest_word_on_a_snapshot_counts(gate: Gate) -> None:
    gate.run(rows(1), check(False))
    again = check(True)
    assert gate.run(again, selection=dg.AssetSelection.checks(again)).success
    assert gate.promote() is not None


def test_a_check_that_was_only_planned_has_not_run(gate: Gate) -> None:
    """A step that fails before its check leaves the plan behind."""

    @dg.asset(key=TABLE, check_specs=[dg.AssetCheckSpec("good", asset=TABLE, blocking=True)])
    def breaks(lakehouse: dg.ResourceParam[Lakehouse]):  # type: ignore[no-untyped-def]  # Dagster reads it
        put(lakehouse.catalog, lakehouse.branch, "raw.a", numbers(1, 1))
        raise RuntimeError("after the write")

    assert not gate.run(breaks).success
    assert "has not run on snapshot" in gate.refused()


def test_a_warning_never_blocks(gate: Gate) -> None:
    gate.run(rows(1), check(False, severity=dg.AssetCheckSeverity.WARN))
    assert gate.promote() is not None


def test_a_check_that_is_not_asked_for_does_not_block(gate: Gate) -> None:
    gate.run(rows(1), check(False, blocking=False))
    assert gate.promote(guards=Guards({})) is not None


def test_only_checks_of_changed_tables_are_asked(gate: Gate) -> None:
    promoted(gate.catalog, "raw.a", numbers(1, 1))
    put(gate.catalog, "dev", "raw.b", numbers(1, 1))
    assert gate.promote() is not None


def test_a_dropped_table_has_nothing_to_check(gate: Gate) -> None:
    promoted(gate.catalog, "raw.a", numbers(1, 1))
    gate.catalog.create("dev")
    gate.catalog.open("dev").drop_table("raw.a")
    assert gate.promote() is not None


def test_a_broken_file_refuses_and_is_named(gate: Gate) -> None:
    gate.run(rows(1), check(True))
    broken = "workflows/quality/weather.py:12: NameError: name 'x' is not defined"
    said = gate.refused(guards=Guards(GUARDS.blocking, broken=[broken]))
    assert f"its checks are unknown, since it cannot be used: {broken}" in said


def test_all_reasons_are_named_together(gate: Gate) -> None:
    other = dg.AssetKey(["raw", "b"])
    put(gate.catalog, "dev", "raw.b", numbers(1, 1))
    gate.run(rows(1), check(False))
    guards = Guards({**GUARDS.blocking, other: [dg.AssetCheckKey(other, "fine")]}, broken=["x.py:1: y"])
    said = gate.refused(guards=guards)
    assert all(part in said for part in ("`good` failed", "`fine` has not run", "x.py:1: y"))


def _evaluated_elsewhere(gate: Gate, times: int) -> None:
    for _ in range(times):
        gate.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(asset_key=TABLE, check_name="good", passed=False)
        )


def test_more_evaluations_than_a_page_are_looked_through(gate: Gate) -> None:
    gate.run(rows(1), check(True), branch="dev")
    _evaluated_elsewhere(gate, times=220)
    assert gate.promote() is not None


def test_what_was_told_before_the_snapshot_is_not_looked_through(gate: Gate) -> None:
    """The gate costs the same after ten years of runs: it asks for one page of them."""
    _evaluated_elsewhere(gate, times=450)
    with gate.instance.event_log_storage.index_connection() as log:  # type: ignore[attr-defined]  # SQL storages do
        log.exec_driver_sql("update asset_check_executions set create_timestamp = '2020-01-01 00:00:00'")
    gate.run(rows(1))
    asked: list[str] = []
    engine = log.engine
    sa.event.listen(engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    assert "`good` has not run" in gate.refused()
    assert len([sql for sql in asked if "FROM asset_check_executions" in sql]) == 1


def test_a_check_of_a_run_that_began_long_before_the_snapshot_counts(gate: Gate) -> None:
    """Dagster plans the checks of a run when it begins, and the run may load for hours before it checks."""
    gate.run(rows(1), check(True))
    with gate.instance.event_log_storage.index_connection() as log:  # type: ignore[attr-defined]
        log.exec_driver_sql("update asset_check_executions set create_timestamp = '2020-01-01 00:00:00'")
    with gate.instance.run_storage.connect() as log:  # type: ignore[attr-defined]
        log.exec_driver_sql("update runs set create_timestamp = '2020-01-01 00:00:00'")
    assert gate.promote() is not None


@pytest.mark.parametrize(("branch", "remains"), [("run-1a2b3c4d", False), ("dev", True)])
def test_the_branch_of_a_run_ends_with_its_promotion(gate: Gate, branch: str, remains: bool) -> None:
    gate.run(rows(1), check(True), branch=branch)
    gate.promote(branch)
    assert any(b.name == branch for b in gate.catalog.branches()) is remains


def test_a_refused_branch_stays_for_inspection(gate: Gate) -> None:
    gate.run(rows(1), check(False), branch="run-1a2b3c4d")
    gate.refused("run-1a2b3c4d")
    assert ids(gate.catalog, "run-1a2b3c4d", "raw.a") == [1]


@pytest.mark.parametrize("branch", ["dev", "run-1a2b3c4d", "nope"])
def test_nothing_to_promote_is_no_error(gate: Gate, branch: str) -> None:
    if branch != "nope":
        gate.catalog.create(branch)
    assert gate.promote(branch) is None


def test_a_conflict_is_not_overcome_by_passed_checks(gate: Gate) -> None:
    gate.run(rows(1), check(True))
    promoted(gate.catalog, "raw.a", numbers(7, 7))
    with pytest.raises(PromotionConflictError, match=r"raw\.a"):
        gate.promote()


# --- as assets --------------------------------------------------------------------------------------------


def test_selecting_the_promotion_promotes_and_publishes(gate: Gate) -> None:
    put(gate.catalog, "run-1a2b3c4d", "marts.m", numbers(1, 2))
    assets = build_publishing([TABLE], GUARDS)
    result = gate.run(rows(1), check(True), *assets, branch="run-1a2b3c4d")
    assert result.success
    assert [a.key for a in assets] == [PROMOTE_KEY, PUBLISH_KEY]
    assert set(gate.catalog.pointers(MAIN)) == {"marts.m", "raw.a"}
    (tables,) = [m.metadata["tables"].value for m in result.asset_materializations_for_node("cascade__promote")]
    assert tables == ["marts.m", "raw.a"]
    (location,) = [m.metadata["location"].value for m in result.asset_materializations_for_node("cascade__publish")]
    assert location == str(gate.settings.marts_path)
    assert gate.settings.marts_path.is_file()


def test_a_failed_blocking_check_stops_promotion_and_publishing(gate: Gate) -> None:
    result = gate.run(rows(1), check(False), *build_publishing([TABLE], GUARDS))
    assert not result.success
    assert (gate.catalog.pointers(MAIN), gate.settings.marts_path.exists()) == ({}, False)


def test_a_refused_promotion_is_a_failure_that_is_not_repeated(gate: Gate) -> None:
    put(gate.catalog, "dev", "raw.a", numbers(1, 1))
    result = gate.run(*build_publishing([], GUARDS))
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "has not run on snapshot" in str(failure.step_failure_data.user_failure_data)


# --- what follows -----------------------------------------------------------------------------------------

FOLLOWS = {
    "tells": (
        "[cascade.after_promotion]\ntells = tells:follow\n",
        "def follow(catalog, entry):\n    return f'entry {entry.id}: {[change.table for change in entry.changes]}'\n",
    ),
    "silent": ("[cascade.after_promotion]\nsilent = silent:follow\n", "def follow(catalog, entry):\n    return ''\n"),
    "breaks": (
        "[cascade.after_promotion]\nbreaks = breaks:follow\nmissing = breaks:nothing\n",
        "def follow(catalog, entry):\n    raise OSError('the mail server is away')\n",
    ),
}


def test_packages_follow_a_promotion_and_what_fails_of_it_is_told_and_undoes_nothing(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "packages", monkeypatch, FOLLOWS)
    result = gate.run(rows(1), check(True), *build_publishing([TABLE], GUARDS))
    assert result.success
    assert ids(gate.catalog, MAIN, "raw.a") == [1]
    told = {
        name: value.value
        for event in result.all_events
        if event.event_type is dg.DagsterEventType.ASSET_OBSERVATION
        for name, value in event.asset_observation_data.asset_observation.metadata.items()
    }
    assert told.keys() == {"tells", "breaks", "missing"}
    assert told["tells"] == f"entry {gate.catalog.log(limit=1)[0].id}: ['raw.a']"
    assert told["breaks"] == "OSError: the mail server is away"
    assert "cannot be used: AttributeError" in str(told["missing"])


def test_nothing_follows_where_nothing_was_promoted(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "packages", monkeypatch, FOLLOWS)
    result = gate.run(*build_publishing([], GUARDS))
    assert result.success
    assert not [e for e in result.all_events if e.event_type is dg.DagsterEventType.ASSET_OBSERVATION]
