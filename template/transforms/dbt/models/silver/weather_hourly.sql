-- One row per station and hour, impossible values removed. Incremental: only rows that are new here, or were loaded
-- again since, are computed and merged by their key.
{{ config(unique_key=['station', 'observed_at']) }}

select
    station,
    observed_at,
    cast(observed_at as date) as observed_on,
    temperature_f,
    dew_point_f,
    relative_humidity_pct,
    wind_direction_deg,
    -- The source holds an hour with 1,048 mph; no wind on earth reaches 250.
    case when wind_speed_mph <= 250 then wind_speed_mph end as wind_speed_mph,
    wind_gust_mph,
    precipitation_in,
    pressure_mbar,
    visibility_mi,
    _cascade_ingested_at
from {{ ref('weather_observations') }} as loaded
{% if is_incremental() %}
where not exists (
    select 1
    from {{ this }} as known
    where known.station = loaded.station
      and known.observed_at = loaded.observed_at
      and known._cascade_ingested_at >= loaded._cascade_ingested_at
)
{% endif %}
