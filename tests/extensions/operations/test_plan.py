"""The promises of `cascade plan`: it says what a run would do, nothing else happens, and what would fail is refused.

Modules: `cascade_operations.plan`, `cascade_operations.work`, `cascade_cli.plan`.
"""

import datetime as dt
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cascade.catalog import MAIN, open_catalog
from cascade.config import Settings
from cascade.errors import DefinitionError, UsageError
from cascade_cli.plan_text import plan_lines
from cascade_operations import plan_run, run_pipeline
from cascade_operations.planned import ColumnChange, Plan, PlannedAsset, PlannedCheck
from support.projects import Command, make_project

_DAYS = '''\
"""A table of days, and one without partitions."""

import pandera.polars as pa
from cascade.ingestion import cascade_ingestion, static
from cascade.quality import cascade_quality, unique


class Days(pa.DataFrameModel):
    """What is known of a day."""

    id: int
    day: str


@cascade_ingestion(
    unique_key="id", partitions=static(["mon", "tue", "wed", "thu"]), partition_column="day", validation_schema=Days
)
def days(partition_date: str):
    return [{"id": 1, "day": partition_date}]


@cascade_ingestion(unique_key="id", partitions="none")
def shops():
    return [{"id": 1}]


@cascade_quality(asset="raw/days", checks=[unique("id")], blocking=False)
def once():
    """Each id once."""
'''


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose `main` has two days of four, and the working folder."""
    root = make_project(tmp_path_factory.mktemp("days") / "project", {"workflows/days.py": _DAYS})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for day in ("mon", "wed"):
            done = run_pipeline(Settings(project_dir=root), select=["days"], partition=day)
            assert done.success, done.failures
        yield root


@pytest.fixture
def settings(root: Path) -> Settings:
    return Settings(project_dir=root)


def _write(file: Path, text: str) -> None:
    """Change a workflow, as between two commands: this process must import it again."""
    file.write_text(text)
    for module in [name for name in sys.modules if name.partition(".")[0] == "workflows"]:
        del sys.modules[module]


def _planned(plan: Plan) -> dict[str, PlannedAsset]:
    return {asset.asset: asset for asset in plan.assets}


def test_missing_partitions_are_counted_and_named_and_nothing_is_written(settings: Settings) -> None:
    catalog = open_catalog(settings)
    before = catalog.pointers(MAIN), [branch.name for branch in catalog.branches()]
    plan = plan_run(settings)
    days = _planned(plan)["raw/days"]
    assert (days.missing, days.partitions, days.why) == (2, ("tue", "thu"), ("main does not have these partitions",))
    assert days.seconds is not None
    assert PlannedCheck("contract", blocking=True) in days.checks
    assert (catalog.pointers(MAIN), [branch.name for branch in catalog.branches()]) == before


def test_partitions_that_are_asked_for_are_planned_as_the_run_takes_them(settings: Settings) -> None:
    plan = plan_run(settings, select=["days"], partition="tue..thu")
    assert [(a.asset, a.missing, a.partitions) for a in plan.assets] == [("raw/days", 3, ("tue..thu",))]
    with pytest.raises(UsageError, match="no partition 'fri'"):
        plan_run(settings, select=["days"], partition="fri")


def test_an_asset_without_partitions_is_in_every_run_and_says_so(settings: Settings) -> None:
    shops = _planned(plan_run(settings, select=["shops"]))["raw/shops"]
    assert shops.why == ("every run materializes it, for it has no partitions",)


def test_a_contract_that_the_next_load_would_refuse_breaks_and_the_command_ends_with_3(
    settings: Settings, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = root / "workflows/days.py"
    _write(file, _DAYS.replace("    day: str\n", "    day: str\n    note: str\n").replace("id: int", "id: bool"))
    try:
        plan = plan_run(settings, select=["days"])
        said, dry = Command(capsys)("plan", "days"), Command(capsys)("run", "--dry-run", "--select", "days")
    finally:
        _write(file, _DAYS)
    assert plan.assets[0].columns[0].consumers == ("check unique_id",)
    changes = {change.column: (change.action, change.breaking) for change in plan.assets[0].columns}
    assert (changes, plan.breaking) == ({"id": ("refuse", True), "note": ("add", False)}, 1)
    assert (said.code, dry.code, said.out) == (3, 3, dry.out)
    assert "! id long -> boolean" in said.out
    assert "BREAKING" in said.out


def test_what_cannot_be_loaded_is_refused_before_anything_is_done_all_of_it_together(
    settings: Settings, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [root / f"workflows/{name}.py" for name in ("one", "two")]
    for file in broken:
        file.write_text("1 / 0")
    catalog = open_catalog(settings)
    before = catalog.pointers(MAIN)
    try:
        for work in (plan_run, run_pipeline):
            with pytest.raises(DefinitionError, match=r"workflows/one\.py(.|\n)*workflows/two\.py"):
                work(settings)
        said = Command(capsys)("plan", "--json")
    finally:
        for file in broken:
            file.unlink()
    assert (said.code, catalog.pointers(MAIN)) == (1, before)
    assert re.search(r"workflows/one\.py(.|\n)*workflows/two\.py", json.loads(said.out)["error"]["what"])


def test_a_short_plan_is_one_screen_and_leaves_out_nothing_that_breaks() -> None:
    reaches = tuple(f"gold.sums.c{number}" for number in range(7))
    change = ColumnChange("drop", "name", "string", None, breaking=True, consumers=("gold/sums",), reaches=reaches)
    added = [ColumnChange("add", f"c{number}", None, "string") for number in range(9)]
    assets = [PlannedAsset(f"silver/t{number}", ("its SQL changed",)) for number in range(50)]
    assets.append(PlannedAsset("silver/last", ("its SQL changed",), columns=(*added, change)))
    assets.append(
        PlannedAsset("gold/last", ("new",), checks=(PlannedCheck("a", blocking=True), PlannedCheck("b", False)))
    )
    plan = Plan(tuple(assets), 1, (), {f"gold/t{n}": dt.datetime(2026, 1, 1) for n in range(9)}, True, 2.0)
    lines = list(plan_lines(plan, short=True))
    assert len(lines) < 40
    (broken,) = (line for line in lines if "BREAKING for" in line)
    assert broken.startswith("      - name string  BREAKING for gold/sums; from it come gold.sums.c0, ")
    assert broken.endswith(" more")
    assert "      and 7 more columns" in lines
    assert "  … and 40 more; `cascade plan` shows them" in lines
    assert "Checks: 2, 1 of them blocking" in lines
    assert len(list(plan_lines(plan))) > 100


def test_the_run_and_its_plan_agree(settings: Settings, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = plan_run(settings)
    report = run_pipeline(settings)
    assert {asset.asset for asset in planned.assets} == {done.asset for done in report.assets} - {
        "cascade/promote",
        "cascade/publish",
    }
    said = Command(capsys)("plan", "days")
    assert (said.code, "Nothing to do" in said.out) == (0, True)
