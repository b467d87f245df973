"""The weather workflow reads its file as its contract says."""

from pathlib import Path

import polars as pl
from cascade.testing import TemporaryLakehouse
from dlt.sources.filesystem import filesystem

from workflows.ingestion.weather import DATA_FILE, read_hours, weather_observations
from workflows.quality.weather import observations
from workflows.schemas.weather import WeatherObservations


def read(*dates: str) -> pl.DataFrame:
    """Read days from the file, without Dagster and without a lakehouse."""
    files = filesystem(bucket_url=str(DATA_FILE.parent), file_glob=DATA_FILE.name)
    return pl.concat(pl.DataFrame(table) for table in files | read_hours(list(dates)))


def test_a_day_has_its_own_hours_at_every_airport() -> None:
    """Rows of other days would be refused."""
    rows = read("2013-07-01")
    assert rows["time_hour"].dt.date().cast(str).unique().to_list() == ["2013-07-01"]
    assert sorted(rows["origin"].unique()) == ["EWR", "JFK", "LGA"]


def test_the_rows_keep_the_contract() -> None:
    """The night when the clocks went back is among them."""
    rows = read("2013-07-01", "2013-11-03")
    WeatherObservations.validate(rows.cast({"time_hour": pl.Datetime("us", "UTC")}))
    assert rows.select("origin", "time_hour").is_duplicated().sum() == 0


def test_loading_days_twice_keeps_each_row_once(tmp_path: Path) -> None:
    """The whole workflow with its checks, in a lakehouse of its own."""
    lake = TemporaryLakehouse(tmp_path)
    for _ in range(2):
        result = lake.run(weather_observations, observations, partitions=["2013-11-03", "2013-11-04"])
        assert result.success, result.errors
        assert all(result.checks.values()), result.checks
    expected = read("2013-11-03", "2013-11-04").height
    assert lake.query("select count(*) as n from raw.weather_observations") == [{"n": expected}]
