-- Every loaded observation counts in exactly one day. It looks at two models; `ref` says whose check it is.
{{ config(meta={'dagster': {'ref': {'name': 'weather_daily'}}}) }}

select loaded.hours, counted.hours as hours_in_days
from (select count(*) as hours from {{ ref('weather_observations') }}) as loaded
cross join (select cast(sum(observations) as bigint) as hours from {{ ref('weather_daily') }}) as counted
where loaded.hours <> counted.hours
