"""What a person sees of a project in Dagster's UI, in a real browser.

With UPDATE_DOCS_IMAGES=1 in the environment the picture in the docs is made again:
`UPDATE_DOCS_IMAGES=1 nox -s browser`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from support.browser import take_picture
from support.dagster_ui import DagsterUI
from support.generated import Project

FIRST, LAST = "2013-07-01", "2013-07-31"
PIPELINE = (
    "raw/weather_observations",
    "bronze/weather_observations",
    "silver/weather_hourly",
    "gold/weather_daily",
    "marts/weather_monthly",
    "cascade/promote",
    "cascade/publish",
)


@pytest.fixture(scope="module")
def materialized(ui: DagsterUI) -> DagsterUI:
    """The UI after a run over one month of everything, started as its button `Materialize all` does."""
    month = {"dagster/asset_partition_range_start": FIRST, "dagster/asset_partition_range_end": LAST}
    (run,) = ui.wait(ui.materialize(*PIPELINE, tags=month))
    assert run["status"] == "SUCCESS", ui.failures(run["runId"])
    return ui


def test_everything_materialized_in_the_ui_reaches_main(materialized: DagsterUI, project: Project) -> None:
    (row,) = project.json(
        "query", "select count(*) as days, count(distinct station) as stations from gold.weather_daily"
    )
    assert row == {"days": 93, "stations": 3}


def test_lineage_shows_every_asset_from_raw_to_publishing(materialized: DagsterUI, page: Page, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 1800, "height": 720})
    page.goto(f"{_asset_page(materialized, 'lineage')}&lineageScope=downstream&lineageDepth=9")
    for asset in PIPELINE:
        # The graph shortens long names in the middle.
        name = asset.rpartition("/")[2]
        same = sum(other.endswith(f"/{name}") for other in PIPELINE)
        shown = re.compile(rf"^(?={name[:3]}).*{name[-4:]}$")
        expect(page.locator("foreignObject").get_by_text(shown)).to_have_count(same)
    take_picture(page, tmp_path / "lineage.png")


def test_partitions_show_what_is_loaded(materialized: DagsterUI, page: Page, tmp_path: Path) -> None:
    page.goto(_asset_page(materialized, "partitions"))
    for text in ("Materialized (31)", "Missing (333)", "Failed (0)", "2013-12-30"):
        expect(page.get_by_text(text).first).to_be_visible()
    take_picture(page, tmp_path / "partitions.png")


def test_checks_show_what_was_found(materialized: DagsterUI, page: Page, tmp_path: Path) -> None:
    """Those of the contract, of `workflows/quality` and of dbt's sources stand side by side."""
    page.goto(_asset_page(materialized, "checks"))
    expect(page.get_by_text("Checks (8)")).to_be_visible()
    for name in ("contract", "row_count", "unique_origin_time_hour", "source_not_nul"):
        expect(page.get_by_text(name).first).to_be_visible()
    expect(page.get_by_text("This is a blocking asset check.").first).to_be_visible()
    expect(page.get_by_text("Passed", exact=True).first).to_be_visible()
    take_picture(page, tmp_path / "checks.png")


def _asset_page(ui: DagsterUI, view: str) -> str:
    return f"{ui.url}/assets/raw/weather_observations?view={view}"
