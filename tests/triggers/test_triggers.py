"""Write-audit-publish on every trigger: which branch a run writes, and when `main` moves."""

from __future__ import annotations

import pytest
from dagster_ui import DagsterUI, until
from generated import BIN
from shop import Shop

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


def test_a_backfill_in_the_ui_is_one_branch_and_one_promotion(shop: Shop, ui: DagsterUI) -> None:
    """Over assets with and without partitions: several runs, which have nothing but the backfill in common."""
    key, before = shop.new_customer(), shop.log()
    days = ["2024-01-02", "2024-01-03", "2024-01-04"]
    backfill = ui.backfill(["raw/orders", *PIPELINE], days)
    assert ui.wait_for_backfill(backfill) == "COMPLETED_SUCCESS"
    runs = ui.runs(tags=[{"key": "dagster/backfill", "value": backfill}])
    loads = [run for run in runs if {"path": ["raw", "orders"]} in run["assetSelection"]]
    assert len(loads) == 1, "a range of days is one run"
    assert len(runs) > 1
    assert set(days) <= shop.order_days()
    assert key in shop.customers()
    (promotion,) = [entry for entry in shop.log() if entry not in before]
    assert promotion.source == f"run-{backfill}"
    assert shop.branches() == {"main"}


def test_a_backfill_without_promote_keeps_its_branch(shop: Shop, ui: DagsterUI) -> None:
    before = shop.log()
    backfill = ui.backfill(["raw/orders"], ["2024-01-06", "2024-01-07"])
    assert ui.wait_for_backfill(backfill) == "COMPLETED_SUCCESS"
    assert shop.order_days(f"run-{backfill}") >= {"2024-01-06", "2024-01-07"}
    assert not shop.order_days() & {"2024-01-06", "2024-01-07"}
    assert shop.log() == before


def test_a_job_of_the_user_promotes_from_a_branch_of_its_own(shop: Shop, ui: DagsterUI) -> None:
    key = shop.new_customer()
    (run,) = ui.wait(ui.materialize(job="customers_to_main"))
    assert run["status"] == "SUCCESS"
    assert key in shop.customers()
    assert shop.log()[0].source == f"run-{run['runId'][:8]}"


def test_the_schedule_of_cron_promotes_from_a_branch_of_its_own(shop: Shop, ui: DagsterUI) -> None:
    """The schedule that `cron=` makes runs the asset, all downstream of it, promotion and publishing."""
    key = shop.new_customer()
    (wanted,) = ui.evaluate_schedule("customers_schedule")
    tags = {tag["key"]: tag["value"] for tag in wanted["tags"]}
    (run,) = ui.wait(ui.materialize(job=wanted["jobName"] or "customers_pipeline", tags=tags))
    assert run["status"] == "SUCCESS"
    assert key in shop.customers()
    assert shop.log()[0].source == f"run-{run['runId'][:8]}"


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
    before, state = shop.log(), shop.lake.pointers("main")
    key = shop.new_customer(name=None)
    done = shop.cascade("run", "--select", "raw/customers")
    assert done.returncode == 1
    assert (shop.log(), shop.lake.pointers("main")) == (before, state)
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
    key = shop.new_customer()
    before = shop.log()
    hold = shop.hold()
    first = ui.materialize(job="customers_to_main")
    until(lambda: ui.runs(runIds=[first])[0]["status"] == "STARTED", "the first run to start")
    second = ui.materialize(job="customers_to_main")
    hold.unlink()
    runs = {run["runId"]: run for run in ui.wait(first, second)}
    assert [runs[first]["status"], runs[second]["status"]] == ["SUCCESS", "SUCCESS"]
    assert runs[second]["startTime"] >= runs[first]["endTime"]
    assert key in shop.customers()
    assert shop.log()[: -len(before) or None][-1].source == f"run-{first[:8]}"


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
