{# SQL that is the same on DuckDB and on Trino, where dbt's own macros (`dbt.dateadd`, `dbt.split_part`, …) have no word
   for it. The comment above a macro is its line in the documentation.

   Arguments are SQL expressions, like those of dbt's own macros. Only patterns, formats, paths, units, time zones and
   delimiters are plain words: they must be known before the SQL runs, since each engine writes them its own way.

   They have the prefix `cascade_` and no namespace: a namespace needs an installed package, and so `dbt deps`. #}


{# Text -------------------------------------------------------------------------------------------------------------- #}

{% macro cascade_text(value) -%}
  '{{ value | string | replace("'", "''") }}'
{%- endmacro %}

{# Whether a text holds a match of a regular expression. Example: `cascade_regexp_like('code', '^[A-Z]{3}$')` #}
{% macro cascade_regexp_like(text, pattern) -%}
  {{ return(adapter.dispatch('cascade_regexp_like')(text, cascade_text(pattern))) }}
{%- endmacro %}

{% macro duckdb__cascade_regexp_like(text, pattern) -%}
  regexp_matches({{ text }}, {{ pattern }})
{%- endmacro %}

{# The first match of a regular expression, or of a group in it; null without one. Example: `cascade_regexp_extract('url', 'id=(\\d+)', 1)` #}
{% macro cascade_regexp_extract(text, pattern, group=0) -%}
  {{ return(adapter.dispatch('cascade_regexp_extract')(text, cascade_text(pattern), group)) }}
{%- endmacro %}

{% macro duckdb__cascade_regexp_extract(text, pattern, group) -%}
  case when regexp_matches({{ text }}, {{ pattern }}) then regexp_extract({{ text }}, {{ pattern }}, {{ group }}) end
{%- endmacro %}

{# Every match replaced; `\1` in the replacement is the first group. Example: `cascade_regexp_replace('phone', '[^0-9]', '')` #}
{% macro cascade_regexp_replace(text, pattern, replacement='') -%}
  {{ return(adapter.dispatch('cascade_regexp_replace')(text, cascade_text(pattern), replacement)) }}
{%- endmacro %}

{% macro duckdb__cascade_regexp_replace(text, pattern, replacement) -%}
  regexp_replace({{ text }}, {{ pattern }}, {{ cascade_text(replacement) }}, 'g')
{%- endmacro %}


{# JSON -------------------------------------------------------------------------------------------------------------- #}

{# The value at a path in a JSON text, as text; null when it is null, an object, an array, missing, or the text is no JSON. Cast a number: 1.50 may come as 1.5. Example: `cascade_json_text('payload', '$.user.name')` #}
{% macro cascade_json_text(json, path) -%}
  {{ return(adapter.dispatch('cascade_json_text')(json, cascade_text(path))) }}
{%- endmacro %}

{% macro duckdb__cascade_json_text(json, path) -%}
  case when json_valid({{ json }}) then
    case when json_type({{ json }}, {{ path }}) not in ('OBJECT', 'ARRAY') then json_extract_string({{ json }}, {{ path }}) end
  end
{%- endmacro %}

{# The elements of the array at a path in a JSON text, as an array of texts, for `unnest`; null when there is no array of plain values. Example: `cascade_json_array('payload', '$.tags')` #}
{% macro cascade_json_array(json, path) -%}
  {{ return(adapter.dispatch('cascade_json_array')(json, path)) }}
{%- endmacro %}

{% macro duckdb__cascade_json_array(json, path) -%}
  case when json_valid({{ json }}) then
    case when json_type({{ json }}, {{ cascade_text(path) }}) = 'ARRAY'
      and not list_has_any(json_type({{ json }}, {{ cascade_text(path ~ '[*]') }}), ['OBJECT', 'ARRAY'])
    then json_extract_string({{ json }}, {{ cascade_text(path ~ '[*]') }}) end
  end
{%- endmacro %}


{# Arrays ------------------------------------------------------------------------------------------------------------ #}

{# How many elements an array has. Example: `cascade_array_length('tags')` #}
{% macro cascade_array_length(array) -%}
  cast(cardinality({{ array }}) as bigint)
{%- endmacro %}

{# Whether an array holds a value. Example: `cascade_array_contains('tags', "'red'")` #}
{% macro cascade_array_contains(array, value) -%}
  {{ return(adapter.dispatch('cascade_array_contains')(array, value)) }}
{%- endmacro %}

{% macro duckdb__cascade_array_contains(array, value) -%}
  case when ({{ value }}) is not null then list_contains({{ array }}, {{ value }}) end
{%- endmacro %}

{# The element at a position, counted from 1, or from the end with a negative one; null beyond. Example: `cascade_array_element('tags', 1)` #}
{% macro cascade_array_element(array, position) -%}
  {{ return(adapter.dispatch('cascade_array_element')(array, position)) }}
{%- endmacro %}

{% macro duckdb__cascade_array_element(array, position) -%}
  list_extract({{ array }}, {{ position }})
{%- endmacro %}

{# The elements as one text, nulls left out. Example: `cascade_array_join('tags', ', ')` #}
{% macro cascade_array_join(array, delimiter) -%}
  {{ return(adapter.dispatch('cascade_array_join')(array, cascade_text(delimiter))) }}
{%- endmacro %}

{% macro duckdb__cascade_array_join(array, delimiter) -%}
  array_to_string({{ array }}, {{ delimiter }})
{%- endmacro %}

{# An array of what an expression makes of each element. Example: `cascade_array_transform('tags', 'tag', 'lower(tag)')` #}
{% macro cascade_array_transform(array, element, expression) -%}
  {{ return(adapter.dispatch('cascade_array_transform')(array, element, expression)) }}
{%- endmacro %}

{% macro duckdb__cascade_array_transform(array, element, expression) -%}
  list_transform({{ array }}, lambda {{ element }}: {{ expression }})
{%- endmacro %}

{# An array of those elements for which a condition is true. Example: `cascade_array_filter('amounts', 'amount', 'amount > 0')` #}
{% macro cascade_array_filter(array, element, condition) -%}
  {{ return(adapter.dispatch('cascade_array_filter')(array, element, condition)) }}
{%- endmacro %}

{% macro duckdb__cascade_array_filter(array, element, condition) -%}
  list_filter({{ array }}, lambda {{ element }}: {{ condition }})
{%- endmacro %}


{# Numbers ----------------------------------------------------------------------------------------------------------- #}

{# A quotient as a double; null when the divisor is zero. Example: `cascade_safe_divide('revenue', 'orders')` #}
{% macro cascade_safe_divide(dividend, divisor) -%}
  cast({{ dividend }} as double) / nullif({{ divisor }}, 0)
{%- endmacro %}

{# A quotient of integers without its fraction, towards zero; null when the divisor is zero. Example: `cascade_integer_divide('cents', 100)` #}
{% macro cascade_integer_divide(dividend, divisor) -%}
  {{ return(adapter.dispatch('cascade_integer_divide')(dividend, divisor)) }}
{%- endmacro %}

{% macro duckdb__cascade_integer_divide(dividend, divisor) -%}
  cast(({{ dividend }}) as bigint) // nullif(cast(({{ divisor }}) as bigint), 0)
{%- endmacro %}

{# Whether a number is NaN, which equals itself on DuckDB only; null for null. Example: `cascade_is_nan('price')` #}
{% macro cascade_is_nan(value) -%}
  {{ return(adapter.dispatch('cascade_is_nan')(value)) }}
{%- endmacro %}

{% macro duckdb__cascade_is_nan(value) -%}
  isnan({{ value }})
{%- endmacro %}

{# About how many different values there are, a few percent wrong. Example: `cascade_approx_count_distinct('visitor')` #}
{% macro cascade_approx_count_distinct(value) -%}
  {{ return(adapter.dispatch('cascade_approx_count_distinct')(value)) }}
{%- endmacro %}

{% macro duckdb__cascade_approx_count_distinct(value) -%}
  cast(approx_count_distinct({{ value }}) as bigint)
{%- endmacro %}

{# The value below which a fraction of all values lies, exact, between two values interpolated. Holds all values of a group in memory. Example: `cascade_percentile('price', 0.9)` #}
{% macro cascade_percentile(value, fraction) -%}
  {{ return(adapter.dispatch('cascade_percentile')(value, fraction)) }}
{%- endmacro %}

{% macro duckdb__cascade_percentile(value, fraction) -%}
  quantile_cont(cast({{ value }} as double), {{ fraction }})
{%- endmacro %}

{# The middle value, exact. Holds all values of a group in memory. Example: `cascade_median('price')` #}
{% macro cascade_median(value) -%}
  {{ cascade_percentile(value, 0.5) }}
{%- endmacro %}

{# About the value below which a fraction of all values lies, for groups too large for `cascade_percentile`. Example: `cascade_approx_percentile('price', 0.9)` #}
{% macro cascade_approx_percentile(value, fraction) -%}
  {{ return(adapter.dispatch('cascade_approx_percentile')(value, fraction)) }}
{%- endmacro %}

{% macro duckdb__cascade_approx_percentile(value, fraction) -%}
  approx_quantile(cast({{ value }} as double), {{ fraction }})
{%- endmacro %}


{# Rows -------------------------------------------------------------------------------------------------------------- #}

{# The first row of each group, a whole query; in place of `QUALIFY` and `DISTINCT ON`. Example: `select * from ({{ cascade_deduplicate(ref('orders'), 'order_id', 'updated_at desc') }}) as latest` #}
{% macro cascade_deduplicate(relation, partition_by, order_by) -%}
  {{ return(adapter.dispatch('cascade_deduplicate')(
    'select *, row_number() over (partition by ' ~ partition_by ~ ' order by ' ~ order_by ~ ') as cascade_row from ' ~ relation
  )) }}
{%- endmacro %}

{% macro duckdb__cascade_deduplicate(numbered) -%}
  select * exclude (cascade_row) from ({{ numbered }}) as numbered where cascade_row = 1
{%- endmacro %}
