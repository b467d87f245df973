{# Trino's half of the runtime's macros of the same file; there is what each one promises. #}

{% macro trino__cascade_parse_timestamp(text, format, trino_format) -%}
  cast(try(date_parse(trim({{ text }}), {{ cascade_text(trino_format) }})) as timestamp(6))
{%- endmacro %}

{# Without more digits than microseconds: the cast would round them up. #}
{% macro trino__cascade_parse_iso_timestamp(text) -%}
  cast(
    try(from_iso8601_timestamp_nanos({{ cascade_regexp_replace(text, '([.]\\d{6})\\d+', '\\1') }})) as timestamp(6) with time zone
  )
{%- endmacro %}

{% macro trino__cascade_type_timestamptz() -%}
  timestamp(6) with time zone
{%- endmacro %}

{% macro trino__cascade_format_timestamp(value, format, trino_format) -%}
  date_format(date_trunc('second', cast({{ value }} as timestamp(6))), {{ cascade_text(trino_format) }})
{%- endmacro %}

{% macro trino__cascade_epoch(value, parts) -%}
  cast(floor(round(to_unixtime({{ value }}) * 1e6) / {{ parts }}) as bigint)
{%- endmacro %}

{% macro trino__cascade_from_epoch(number, parts) -%}
  cast(from_unixtime_nanos(cast({{ number }} as bigint) * {{ parts }} * 1000) as timestamp(6) with time zone)
{%- endmacro %}

{% macro trino__cascade_local_time(value, zone) -%}
  cast(cast({{ value }} as timestamp(6) with time zone) at time zone {{ zone }} as timestamp(6))
{%- endmacro %}

{% macro trino__cascade_from_local_time(value, zone) -%}
  with_timezone(cast({{ value }} as timestamp(6)), {{ zone }}) at time zone 'UTC'
{%- endmacro %}

{% macro trino__cascade_day_of_week(value) -%}
  day_of_week({{ value }})
{%- endmacro %}
