"""Checks on the weather tables. A blocking check that fails keeps the run's branch away from `main`."""

from cascade.quality import accepted_values, cascade_quality, in_range, not_null, row_count, sql_check, unique

cascade_quality(
    asset="raw/weather_observations",
    blocking=True,
    checks=[
        row_count(min=1),
        unique(["origin", "time_hour"]),
        accepted_values("origin", ["EWR", "JFK", "LGA"]),
        not_null("temp", tolerance=0.01),
    ],
)

# Not blocking: the source holds one hour with a wind of 1,048 mph, which `silver.weather_hourly` leaves out.
cascade_quality(
    asset="raw/weather_observations",
    blocking=False,
    checks=[in_range("wind_speed", max=250)],
)

cascade_quality(
    asset="gold/weather_daily",
    blocking=True,
    checks=[
        in_range("observations", min=1, max=24),
        sql_check(
            "coldest_mean_warmest",
            "select * from gold.weather_daily"
            " where temperature_mean_f < temperature_min_f or temperature_mean_f > temperature_max_f",
        ),
    ],
)
