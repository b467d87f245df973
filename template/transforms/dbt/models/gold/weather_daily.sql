-- The weather of a day (UTC) at a station.
select
    station,
    observed_on as date,
    count(*) as observations,
    avg(temperature_f) as temperature_mean_f,
    min(temperature_f) as temperature_min_f,
    max(temperature_f) as temperature_max_f,
    coalesce(sum(precipitation_in), 0) as precipitation_total_in
from {{ ref('weather_hourly') }}
group by station, observed_on
