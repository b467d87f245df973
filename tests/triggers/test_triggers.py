"""Write-audit-publish on every trigger: which branch a run writes, and when `main` moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from cascade.catalog import LogEntry
from support.dagster_ui import DagsterUI, until
from support.generated import BIN
from support.shop import Shop

PIPELINE = ("raw/customers", "shop/report", "cascade/promote", "cascade/publish")


def test_a_run_of_the_command_promotes_from_a_branch_of_its_own(shop: Shop) -> None:
    """Started in a folder below the root, in a shell where the environment is not activated."""
    assert str(BIN) not in shop.environment["PATH"]
    key = shop.new_customer()
    done = shop.cascade("run", "--select", "raw/customers", cwd=shop.root / "workflows/ingestion")
    assert done.returncode == 0, done.stderr
    assert key in shop.customers()
    assert shop.log()[0].source.startswith("run-")
    assert shop.branches() == {"main"}


def test_a_materialization_by_command_waits_on_dev_until_it_is_promoted(shop: Shop) -> None:
    key, before = shop.new_customer(), shop.log()
    done = shop.cascade("materialize", "customers")
    assert done.returncode == 0, done.stderr
    assert "cascade branch promote dev" in done.stdout
    assert (key in shop.customers("dev"), key in shop.customers(), shop.log()) == (True, False, before)

    done = shop.cascade("branch", "promote", "dev")
    assert done.returncode == 0, done.stderr
    assert key in shop.customers()
    assert shop.log()[0].source == "dev"


def test_an_asset_materialized_in_the_ui_waits_on_dev(shop: Shop, ui: DagsterUI) -> None:
    key, before = shop.new_customer(), shop.log()
    (run,) = ui.wait(ui.materialize("raw/customers"))
    assert run["status"] == "SUCCESS"
    assert key in shop.customers("dev")
    assert key not in shop.customers()
    assert shop.log() == before


def test_everything_materialized_in_the_ui_promotes_dev(shop: Shop, ui: DagsterUI) -> None:
    """With `cascade/promote` in the selection, as `Materialize all` has it."""
    key = shop.new_customer()
    (run,) = ui.wait(ui.materialize(*PIPELINE))
    assert run["status"] == "SUCCESS"
    assert key in shop.customers()
    assert shop.log()[0].source == "dev"


@dataclass
class Backfills:
    """What two backfills of the UI did, one with `cascade/promote` in its selection and one without."""

    runs: list[dict[str, Any]]
    branch: str
    customer: int
    customers: set[int]
    order_days: set[str]
    promotions: list[LogEntry]
    branches: set[str]
    unpromoted_branch: str
    unpromoted_days: set[str]


PROMOTED_DAYS = ["2024-01-02", "2024-01-03", "2024-01-04"]
KEPT_DAYS = ["2024-01-06", "2024-01-07"]


@pytest.fixture(scope="module")
def backfills(shop_project: Shop, ui: DagsterUI) -> Backfills:
    """Both are started at once: the daemon looks for backfills twice a minute only."""
    shop = shop_project
    shop.clean()
    key, before = shop.new_customer(), shop.log()
    promoted = ui.backfill(["raw/orders", *PIPELINE], PROMOTED_DAYS)
    kept = ui.backfill(["raw/orders"], KEPT_DAYS)
    for backfill in (promoted, kept):
        assert ui.wait_for_backfill(backfill) == "COMPLETED_SUCCESS"
    return Backfills(
        runs=ui.runs(tags=[{"key": "dagster/backfill", "value": promoted}]),
        branch=f"run-{promoted}",
        customer=key,
        customers=shop.customers(),
        order_days=shop.order_days(),
        promotions=[entry for entry in shop.log() if entry not in before],
        branches=shop.branches(),
        unpromoted_branch=f"run-{kept}",
        unpromoted_days=shop.order_days(f"run-{kept}"),
    )


def test_a_backfill_in_the_ui_is_promoted_once_from_one_branch(backfills: Backfills) -> None:
    """Over assets with and without partitions: several runs, which have nothing but the backfill in common."""
    assert len(backfills.runs) > 1
    assert [promotion.source for promotion in backfills.promotions] == [backfills.branch]
    assert set(PROMOTED_DAYS) <= backfills.order_days
    assert backfills.customer in backfills.customers
    assert backfills.branch not in backfills.branches


def test_a_backfill_loads_a_range_of_days_in_one_run(backfills: Backfills) -> None:
    loads = [run for run in backfills.runs if {"path": ["raw", "orders"]} in run["assetSelection"]]
    assert len(loads) == 1


def test_a_backfill_without_promote_keeps_its_branch(backfills: Backfills) -> None:
    assert backfills.unpromoted_branch in backfills.branches
    assert set(KEPT_DAYS) <= backfills.unpromoted_days
    assert not set(KEPT_DAYS) & backfills.order_days


def test_a_job_of_the_user_promotes_from_a_branch_of_its_own(shop: Shop, ui: DagsterUI) -> None:
    key = shop.new_customer()
    (run,) = ui.wait(ui.materialize(job="customers_to_main"))
    assert run["status"] == "SUCCESS"
    assert key in shop.customers()
    assert shop.log()[0].source == f"run-{run['runId'][:8]}"


def test_the_schedule_of_cron_promotes_from_a_branch_of_its_own(shop: Shop, ui: DagsterUI) -> None:
    """The schedule that `cron=` makes runs the asset, all downstream of it, promotion and publishing."""
    key = shop.new_customer()
    (run,) = ui.wait(ui.run_schedule("raw__customers_schedule"))
    assert run["status"] == "SUCCESS"
    assert key in shop.customers()
    assert shop.log()[0].source == f"run-{run['runId'][:8]}"


def test_the_daemon_keeps_what_is_declared(shop: Shop, ui: DagsterUI) -> None:
    """`cron` starts it, the time limit stops the attempt that hangs, retries say why, and freshness is told."""
    run = ui.tick("raw__deliveries_schedule")
    ui.wait(run)
    assert ui.status(run) == "SUCCESS", ui.failures(run)
    hanging, late = ui.retries(run)
    assert "Stopped after 15 seconds" in hanging
    assert "table raw.deliveries" in hanging
    assert "ConnectionError: the van is late" in late
    assert shop.log()[0].source == f"run-{run[:8]}"
    assert shop.catalog.load("raw.deliveries", shop.catalog.pointers("main")["raw.deliveries"]).current_snapshot()
    until(lambda: ui.freshness("raw/deliveries") == "HEALTHY", "the daemon to look at the freshness", seconds=120)
    # A daemon that is slow to hear of the end has ticked once more.
    for one in ui.runs(tags=[{"key": "dagster/schedule_name", "value": "raw__deliveries_schedule"}]):
        ui.wait(one["runId"])


@pytest.mark.parametrize("cause", ["a broken step", "a failing check"])
def test_a_run_repeated_from_its_failure_promotes_the_branch_of_the_first(
    cause: str, shop: Shop, ui: DagsterUI
) -> None:
    key, before = shop.new_customer(), shop.log()
    broken = shop.break_report()
    if cause == "a failing check":
        broken.unlink()
        shop.make_room(0)
    (first,) = ui.wait(ui.materialize(job="customers_to_main"))
    branch = f"run-{first['runId'][:8]}"
    assert first["status"] == "FAILURE"
    assert key in shop.customers(branch)
    assert shop.log() == before

    broken.unlink(missing_ok=True)
    shop.make_room(1000)
    (second,) = ui.wait(ui.reexecute_from_failure(first["runId"]))
    assert second["status"] == "SUCCESS", ui.failures(second["runId"])
    assert key in shop.customers()
    assert shop.log()[0].source == branch
    assert shop.branches() == {"main"}


def test_a_failing_blocking_check_leaves_main_and_keeps_the_branch(shop: Shop) -> None:
    before, state = shop.log(), shop.catalog.pointers("main")
    key = shop.new_customer(name=None)
    done = shop.cascade("run", "--select", "raw/customers")
    assert done.returncode == 1
    assert (shop.log(), shop.catalog.pointers("main")) == (before, state)
    (branch,) = shop.branches() - {"main"}
    assert key in shop.customers(branch)
    said = done.stdout + done.stderr
    assert "FAILED: raw/customers not_null_name" in said
    assert "main is unchanged" in said
    assert f"cascade branch diff {branch}" in said
    assert "Traceback" not in said


def test_a_blocking_check_of_plain_dagster_guards_main(shop: Shop, ui: DagsterUI) -> None:
    before = shop.log()
    key = shop.new_customer()
    shop.make_room(0)
    ui.wait(ui.materialize("raw/customers"))
    assert key in shop.customers("dev")
    done = shop.cascade("branch", "promote", "dev")
    assert done.returncode == 1
    assert "raw.customers: check `room_for_all` failed" in done.stderr
    assert shop.log() == before


def test_a_check_that_has_not_run_guards_main(shop: Shop, ui: DagsterUI) -> None:
    """Rows that were written without their checks stay where they are."""
    shop.new_customer()
    (run,) = ui.wait(ui.materialize("raw/customers", checks=False))
    assert run["status"] == "SUCCESS"
    before = shop.log()
    done = shop.cascade("branch", "promote", "dev")
    assert done.returncode == 1
    assert "raw.customers: check `room_for_all` has not run on snapshot" in done.stderr
    assert shop.log() == before


def test_a_broken_workflow_file_stops_promotion_only(shop: Shop) -> None:
    key, before = shop.new_customer(), shop.log()
    (shop.root / "workflows/ingestion/torn.py").write_text("import dagster\n\ndef half(:\n")
    done = shop.cascade("materialize", "raw/customers")
    assert done.returncode == 0, done.stderr
    assert key in shop.customers("dev")

    done = shop.cascade("branch", "promote", "dev")
    assert done.returncode == 1
    assert "workflows/ingestion/torn.py:3" in done.stderr
    assert "SyntaxError" in done.stderr
    assert shop.log() == before


def test_runs_that_promote_take_turns_in_the_ui(shop: Shop, ui: DagsterUI) -> None:
    """The second one stays in the queue while the first runs; runs that do not promote pass by."""
    key = shop.new_customer()
    hold = shop.hold()
    first = ui.materialize(job="customers_to_main")
    until(lambda: ui.status(first) == "STARTED", "the first run to start")
    second = ui.materialize(job="customers_to_main")
    other = ui.materialize("shop/report")
    until(lambda: ui.status(other) not in ("QUEUED", "NOT_STARTED"), "the run that does not promote to leave the queue")
    assert (ui.status(first), ui.status(second)) == ("STARTED", "QUEUED")

    hold.unlink()
    ui.wait(first, second, other)
    assert (ui.status(first), ui.status(second)) == ("SUCCESS", "SUCCESS")
    assert key in shop.customers()
    assert f"run-{first[:8]}" in [entry.source for entry in shop.log()]


def test_a_second_run_of_the_command_is_told_who_runs(shop: Shop) -> None:
    key = shop.new_customer()
    hold = shop.hold()
    with shop.start("run", "--select", "raw/customers") as first:
        try:
            assert first.stderr is not None
            seen = []
            for line in first.stderr:
                seen.append(line)
                if "started raw/customers" in line:
                    break
            else:
                pytest.fail(f"the first run ended:\n{''.join(seen)}")
            second = shop.cascade("run")
        finally:
            hold.unlink()
            first.communicate(timeout=120)
    assert second.returncode == 1
    assert f"process {first.pid}" in second.stderr
    assert "`cascade run`" in second.stderr
    assert "Traceback" not in second.stderr
    assert first.returncode == 0
    assert key in shop.customers()
