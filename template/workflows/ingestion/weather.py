"""Hourly weather of New York's airports, from a file through dlt."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import dlt
import pyarrow as pa
import pyarrow.compute as pc
from cascade.ingestion import cascade_ingestion, daily
from dlt.sources.filesystem import FileItemDict, filesystem
from pyarrow import csv

from workflows.schemas.weather import WeatherObservations

# From this file, not from the current folder: the workflow runs from anywhere.
DATA_FILE = Path(__file__).resolve().parents[2] / "data" / "weather.csv.gz"


@dlt.transformer
def read_hours(files: Iterable[FileItemDict], dates: list[str]) -> Iterator[pa.Table]:
    """Read the observations of some days (UTC). Rows of other days would be refused."""
    options = csv.ConvertOptions(null_values=["NA"], strings_can_be_null=True)
    for file in files:
        with file.open() as source:
            hours = csv.read_csv(source, convert_options=options)
        day = pc.strftime(hours["time_hour"], "%Y-%m-%d")
        yield hours.filter(pc.is_in(day, pa.array(dates, pa.string())))


@cascade_ingestion(
    table_name="weather_observations",
    unique_key=["origin", "time_hour"],
    partition_column="time_hour",
    partitions=daily(start="2013-01-01", end="2013-12-30"),
    validation_schema=WeatherObservations,
    group="weather",
)
def weather_observations(partition_dates: list[str]):
    """Hourly observations at EWR, JFK and LGA in 2013."""
    if not DATA_FILE.is_file():
        raise FileNotFoundError(f"{DATA_FILE} is missing. It is part of the repository: `git restore data`.")
    files = filesystem(bucket_url=str(DATA_FILE.parent), file_glob=DATA_FILE.name)
    return files | read_hours(partition_dates)
