"""The contract of the weather tables. The columns of the Iceberg table are derived from it."""

from typing import Annotated

import pandera.polars as pa
import polars as pl


class WeatherObservations(pa.DataFrameModel):
    """One hour at one airport, as the National Weather Service reports it."""

    origin: str = pa.Field(str_matches=r"^[A-Z]{3}$", description="Airport")
    year: int = pa.Field(description="Local year")
    month: int = pa.Field(ge=1, le=12, description="Local month")
    day: int = pa.Field(ge=1, le=31, description="Local day")
    hour: int = pa.Field(ge=0, le=23, description="Local hour, not unique when the clocks go back")
    temp: float = pa.Field(nullable=True, ge=-60, le=140, description="Temperature, °F")
    dewp: float = pa.Field(nullable=True, ge=-80, le=100, description="Dew point, °F")
    humid: float = pa.Field(nullable=True, ge=0, le=100, description="Relative humidity, %")
    wind_dir: int = pa.Field(nullable=True, ge=0, le=360, description="Wind direction, degrees")
    wind_speed: float = pa.Field(nullable=True, ge=0, description="Wind speed, mph")
    wind_gust: float = pa.Field(nullable=True, ge=0, description="Speed of gusts, mph")
    precip: float = pa.Field(nullable=True, ge=0, description="Precipitation, inches")
    pressure: float = pa.Field(nullable=True, ge=850, le=1100, description="Pressure at sea level, millibars")
    visib: float = pa.Field(nullable=True, ge=0, description="Visibility, miles")
    time_hour: Annotated[pl.Datetime, "us", "UTC"] = pa.Field(description="Hour of the observation, UTC")
