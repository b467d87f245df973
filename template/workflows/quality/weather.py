"""Checks on the weather tables. A blocking check that fails keeps the run's branch away from `main`."""

from cascade.quality import (
    accepted_values,
    cascade_quality,
    custom_sql,
    in_range,
    not_null,
    row_count,
    unique,
)


@cascade_quality(
    asset="raw/weather_observations",
    checks=[
        row_count(minimum=1, partition_column="time_hour"),
        unique("origin", "time_hour"),
        accepted_values("origin", ["EWR", "JFK", "LGA"]),
        not_null("temp", tolerance=0.01),
        # A warning: one hour in the source has a wind of 1,048 mph, which `silver.weather_hourly` leaves out.
        in_range("wind_speed", 0, 250, blocking=False),
    ],
)
def observations() -> None:
    """Every day has observations, each once, of a known airport."""


@cascade_quality(
    asset="gold/weather_daily",
    checks=[
        in_range("observations", 1, 24),
        custom_sql(
            "mean_between_extremes",
            """
            select * from gold.weather_daily
            where temperature_mean_f < temperature_min_f or temperature_mean_f > temperature_max_f
            """,
        ),
    ],
)
def daily_weather() -> None:
    """A day has at most 24 hours, and its mean lies between its extremes."""
