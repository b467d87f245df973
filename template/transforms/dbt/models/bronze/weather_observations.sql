-- Clean names and types. One row per observation, nothing left out.
select
    origin as station,
    time_hour as observed_at,
    cast(temp as double) as temperature_f,
    cast(dewp as double) as dew_point_f,
    cast(humid as double) as relative_humidity_pct,
    cast(wind_dir as bigint) as wind_direction_deg,
    cast(wind_speed as double) as wind_speed_mph,
    cast(wind_gust as double) as wind_gust_mph,
    cast(precip as double) as precipitation_in,
    cast(pressure as double) as pressure_mbar,
    cast(visib as double) as visibility_mi,
    _cascade_ingested_at
from {{ source('raw', 'weather_observations') }}
