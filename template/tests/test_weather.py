"""The weather workflow reads its file as its contract says."""

from datetime import date

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


def test_loading_days_twice_keeps_each_row_once(lakehouse: TemporaryLakehouse) -> None:
    """The whole workflow with its checks, in a lakehouse of its own."""
    for _ in range(2):
        result = lakehouse.run(weather_observations, observations, partitions=["2013-11-03", "2013-11-04"])
        assert result.success, result.errors
        assert all(result.checks.values()), result.checks
    expected = read("2013-11-03", "2013-11-04").height
    assert lakehouse.query("select count(*) as n from raw.weather_observations") == [{"n": expected}]


def test_a_day_without_a_measured_drop_is_dry(lakehouse: TemporaryLakehouse) -> None:
    """A model, over rows that are given to the table that it reads."""
    day = {"observed_on": date(2013, 7, 1)}
    lakehouse.given(
        "silver.weather_hourly",
        [
            {**day, "station": "JFK", "temperature_f": 60.0, "precipitation_in": None},
            {**day, "station": "JFK", "temperature_f": 80.0, "precipitation_in": None},
            {**day, "station": "LGA", "temperature_f": 75.0, "precipitation_in": 0.2},
        ],
    )
    result = lakehouse.run("gold.weather_daily", checks=False)
    assert result.success, result.errors
    lakehouse.assert_table(
        "gold.weather_daily",
        [
            {"station": "JFK", "date": "2013-07-01", "temperature_mean_f": 70, "precipitation_total_in": 0},
            {"station": "LGA", "date": "2013-07-01", "temperature_mean_f": 75, "precipitation_total_in": 0.2},
        ],
    )
