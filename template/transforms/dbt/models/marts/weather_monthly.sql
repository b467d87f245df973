-- The weather of a month at a station, as reports show it.
select
    station,
    cast(date_trunc('month', date) as date) as month,
    count(*) as days,
    avg(temperature_mean_f) as temperature_mean_f,
    min(temperature_min_f) as temperature_min_f,
    max(temperature_max_f) as temperature_max_f,
    sum(precipitation_total_in) as precipitation_total_in,
    count(case when precipitation_total_in >= 0.01 then 1 end) as wet_days
from {{ ref('weather_daily') }}
group by station, cast(date_trunc('month', date) as date)
