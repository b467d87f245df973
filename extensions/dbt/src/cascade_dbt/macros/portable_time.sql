{# Dates and times that are the same on DuckDB and on Trino. See portable.sql for the rules. #}

{# Trino's format for one of `strftime`, of the words that mean the same to both engines. #}
{% macro cascade_time_format(format, parse) -%}
  {%- set words = {
    'Y': '%Y', 'm': '%m', 'd': '%d', 'H': '%H', 'I': '%h', 'M': '%i', 'S': '%s', 'p': '%p', 'b': '%b', 'B': '%M', '%': '%%',
  } -%}
  {%- if not parse -%}
    {%- do words.update({'a': '%a', 'A': '%W', 'j': '%j'}) -%}
  {%- endif -%}
  {%- set found = [] -%}
  {%- for part in modules.re.findall('%.?|[^%]+', format) -%}
    {%- if not part.startswith('%') -%}
      {%- do found.append(part) -%}
    {%- elif part[1:] in words -%}
      {%- do found.append(words[part[1:]]) -%}
    {%- else -%}
      {%- do exceptions.raise_compiler_error(
        "The time format '" ~ format ~ "' holds '" ~ part ~ "'; both engines know %" ~ words.keys() | join(', %')
      ) -%}
    {%- endif -%}
  {%- endfor -%}
  {{ return(found | join('')) }}
{%- endmacro %}

{% macro cascade_second_parts(unit) -%}
  {%- set parts = {'second': 1000000, 'millisecond': 1000, 'microsecond': 1} -%}
  {%- if unit not in parts -%}
    {%- do exceptions.raise_compiler_error("The unit '" ~ unit ~ "' is not one of " ~ parts.keys() | join(', ')) -%}
  {%- endif -%}
  {{ return(parts[unit]) }}
{%- endmacro %}

{# A text as a timestamp, null when it does not look like the format, in the words `%Y %m %d %H %I %M %S %p %b %B` of `strftime`. Example: `cascade_parse_timestamp('sold_at', '%d.%m.%Y %H:%M')` #}
{% macro cascade_parse_timestamp(text, format) -%}
  {{ return(adapter.dispatch('cascade_parse_timestamp')(text, format, cascade_time_format(format, true))) }}
{%- endmacro %}

{% macro duckdb__cascade_parse_timestamp(text, format, trino_format) -%}
  try_strptime(trim({{ text }}), {{ cascade_text(format) }})
{%- endmacro %}

{# A text as a date, null when it does not look like the format. Example: `cascade_parse_date('born', '%d.%m.%Y')` #}
{% macro cascade_parse_date(text, format) -%}
  cast({{ cascade_parse_timestamp(text, format) }} as date)
{%- endmacro %}

{# A text such as `2024-02-29T10:00:00Z` as a timestamp with time zone, null when it is none; without a zone it is UTC. Example: `cascade_parse_iso_timestamp('sent_at')` #}
{% macro cascade_parse_iso_timestamp(text) -%}
  case when {{ cascade_regexp_like(text, '^\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}(:\\d{2}([.]\\d+)?)?(Z|[+-]\\d{2}:\\d{2})?$') }}
    then {{ adapter.dispatch('cascade_parse_iso_timestamp')(text) }} end
{%- endmacro %}

{% macro duckdb__cascade_parse_iso_timestamp(text) -%}
  try_cast({{ text }} as timestamp with time zone)
{%- endmacro %}

{# The type of an instant, to the microsecond; `dbt.type_timestamp()` is the one without a time zone. Example: `cast(sent_at as {{ cascade_type_timestamptz() }})` #}
{% macro cascade_type_timestamptz() -%}
  {{ return(adapter.dispatch('cascade_type_timestamptz')()) }}
{%- endmacro %}

{% macro duckdb__cascade_type_timestamptz() -%}
  timestamp with time zone
{%- endmacro %}

{# A date or timestamp as a text, in the same words and `%a %A %j`. Example: `cascade_format_timestamp('sold_at', '%Y-%m')` #}
{% macro cascade_format_timestamp(value, format) -%}
  {{ return(adapter.dispatch('cascade_format_timestamp')(value, format, cascade_time_format(format, false))) }}
{%- endmacro %}

{% macro duckdb__cascade_format_timestamp(value, format, trino_format) -%}
  strftime({{ value }}, {{ cascade_text(format) }})
{%- endmacro %}

{# Whole seconds since 1970, or `millisecond` or `microsecond`, rounded down; a timestamp without time zone is UTC. Example: `cascade_epoch('sold_at', 'millisecond')` #}
{% macro cascade_epoch(value, unit='second') -%}
  {{ return(adapter.dispatch('cascade_epoch')(value, cascade_second_parts(unit))) }}
{%- endmacro %}

{% macro duckdb__cascade_epoch(value, parts) -%}
  cast(floor(epoch_us({{ value }}) / {{ parts }}) as bigint)
{%- endmacro %}

{# A whole number of seconds since 1970, or `millisecond` or `microsecond`, as a timestamp with time zone. Example: `cascade_from_epoch('created', 'millisecond')` #}
{% macro cascade_from_epoch(number, unit='second') -%}
  {{ return(adapter.dispatch('cascade_from_epoch')(number, cascade_second_parts(unit))) }}
{%- endmacro %}

{% macro duckdb__cascade_from_epoch(number, parts) -%}
  make_timestamptz(cast({{ number }} as bigint) * {{ parts }})
{%- endmacro %}

{# What the clock in a time zone shows at an instant (a timestamp with time zone), as a timestamp without one. Example: `cascade_local_time('sold_at', 'America/New_York')` #}
{% macro cascade_local_time(value, zone) -%}
  {{ return(adapter.dispatch('cascade_local_time')(value, cascade_text(zone))) }}
{%- endmacro %}

{% macro duckdb__cascade_local_time(value, zone) -%}
  timezone({{ zone }}, cast({{ value }} as timestamp with time zone))
{%- endmacro %}

{# The instant at which the clock in a time zone showed a timestamp without one. An hour that daylight saving time skips or repeats is not for sure. Example: `cascade_from_local_time('till_time', 'America/New_York')` #}
{% macro cascade_from_local_time(value, zone) -%}
  {{ return(adapter.dispatch('cascade_from_local_time')(value, cascade_text(zone))) }}
{%- endmacro %}

{% macro duckdb__cascade_from_local_time(value, zone) -%}
  timezone({{ zone }}, cast({{ value }} as timestamp))
{%- endmacro %}

{# The day of the week as ISO counts: 1 is Monday, 7 is Sunday. Example: `cascade_day_of_week('sold_at')` #}
{% macro cascade_day_of_week(value) -%}
  {{ return(adapter.dispatch('cascade_day_of_week')(value)) }}
{%- endmacro %}

{% macro duckdb__cascade_day_of_week(value) -%}
  isodow({{ value }})
{%- endmacro %}
