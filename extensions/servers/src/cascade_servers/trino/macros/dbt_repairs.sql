{# dbt's own macros where dbt-trino gives another value than dbt-duckdb; see the runtime's file of the same name. #}

{# Bare TIMESTAMP keeps milliseconds on Trino; Iceberg and DuckDB keep microseconds. #}
{% macro trino__type_timestamp() -%}
  timestamp(6)
{%- endmacro %}

{% macro trino__date(year, month, day) -%}
  date '{{ modules.datetime.date(year, month, day).isoformat() }}'
{%- endmacro %}

{# Boundaries crossed, without rounding to milliseconds first; weeks begin on Sunday, as dbt has it elsewhere. #}
{% macro trino__datediff(first_date, second_date, datepart) -%}
  {%- set ns = namespace(sides=[]) -%}
  {%- for side in (first_date, second_date) -%}
    {%- set value = 'cast(' ~ side ~ ' as timestamp(6))' -%}
    {%- if datepart == 'week' -%}
      {%- set value = value ~ " + interval '1' day" -%}
    {%- endif -%}
    {%- set ns.sides = ns.sides + ["date_trunc('" ~ datepart ~ "', " ~ value ~ ')'] -%}
  {%- endfor -%}
  date_diff('{{ datepart }}', {{ ns.sides | join(', ') }})
{%- endmacro %}

{% macro trino__right(string_text, length_expression) -%}
  substr({{ string_text }}, greatest(length({{ string_text }}) - ({{ length_expression }}), 0) + 1)
{%- endmacro %}

{% macro trino__split_part(string_text, delimiter_text, part_number) -%}
  element_at(split({{ string_text }}, {{ delimiter_text }}), {{ part_number }})
{%- endmacro %}

{# Null, not an empty text, when there is nothing but nulls. #}
{% macro trino__listagg(measure, delimiter_text, order_by_clause, limit_num) -%}
  {%- set values = 'array_agg(' ~ measure ~ ' ' ~ (order_by_clause or '') ~ ')' -%}
  {%- if limit_num -%}
    {%- set values = 'slice(' ~ values ~ ', 1, ' ~ limit_num ~ ')' -%}
  {%- endif -%}
  array_join(nullif(filter({{ values }}, item -> item is not null), array[]), {{ delimiter_text }})
{%- endmacro %}

{% macro trino__array_construct(inputs, data_type) -%}
  {%- if inputs -%}
    array[{{ inputs | join(', ') }}]
  {%- else -%}
    cast(array[] as array({{ data_type }}))
  {%- endif -%}
{%- endmacro %}

{# Whole numbers, not doubles. #}
{% macro trino__generate_series(upper_bound) -%}
  select cast(generated_number as bigint) as generated_number from ({{ dbt.default__generate_series(upper_bound) }}) as series
{%- endmacro %}

{# Timestamps, so that it knows hours too. #}
{% macro trino__date_spine(datepart, start_date, end_date) -%}
  {{ dbt.default__date_spine(datepart, 'cast(' ~ start_date ~ ' as timestamp(6))', end_date) }}
{%- endmacro %}
