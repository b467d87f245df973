{# Trino's half of the runtime's macros of the same file; there is what each one promises. #}

{% macro trino__cascade_regexp_like(text, pattern) -%}
  regexp_like({{ text }}, {{ pattern }})
{%- endmacro %}

{# A group that takes no part in the match is empty, as on DuckDB, not null. #}
{% macro trino__cascade_regexp_extract(text, pattern, group) -%}
  case when regexp_like({{ text }}, {{ pattern }}) then coalesce(regexp_extract({{ text }}, {{ pattern }}, {{ group }}), '') end
{%- endmacro %}

{# `\\` is a backslash to DuckDB; to Trino `\` only takes the meaning from what follows, and `$` has one. #}
{% macro trino__cascade_regexp_replace(text, pattern, replacement) -%}
  {%- set parts = [] -%}
  {%- for part in replacement.split('\\\\') -%}
    {%- do parts.append(modules.re.sub('\\\\([0-9])', '$\\1', part | replace('$', '\\$'))) -%}
  {%- endfor -%}
  regexp_replace({{ text }}, {{ pattern }}, {{ cascade_text(parts | join('\\\\')) }})
{%- endmacro %}

{% macro trino__cascade_json_text(json, path) -%}
  json_extract_scalar({{ json }}, {{ path }})
{%- endmacro %}

{% macro trino__cascade_json_array(json, path) -%}
  try_cast(json_extract({{ json }}, {{ cascade_text(path) }}) as array(varchar))
{%- endmacro %}

{# With a null among its elements Trino answers null instead of false. #}
{% macro trino__cascade_array_contains(array, value) -%}
  case when ({{ array }}) is not null and ({{ value }}) is not null then coalesce(contains({{ array }}, {{ value }}), false) end
{%- endmacro %}

{% macro trino__cascade_array_element(array, position) -%}
  element_at({{ array }}, {{ position }})
{%- endmacro %}

{% macro trino__cascade_array_join(array, delimiter) -%}
  array_join({{ array }}, {{ delimiter }})
{%- endmacro %}

{% macro trino__cascade_array_transform(array, element, expression) -%}
  transform({{ array }}, {{ element }} -> {{ expression }})
{%- endmacro %}

{% macro trino__cascade_array_filter(array, element, condition) -%}
  filter({{ array }}, {{ element }} -> {{ condition }})
{%- endmacro %}

{% macro trino__cascade_integer_divide(dividend, divisor) -%}
  cast(({{ dividend }}) as bigint) / nullif(cast(({{ divisor }}) as bigint), 0)
{%- endmacro %}

{% macro trino__cascade_is_nan(value) -%}
  is_nan({{ value }})
{%- endmacro %}

{% macro trino__cascade_approx_count_distinct(value) -%}
  approx_distinct({{ value }})
{%- endmacro %}

{# Trino only has approximations; a lambda gives the sorted values a name. #}
{% macro trino__cascade_percentile(value, fraction) -%}
  {%- set position = '(cardinality(sorted) - 1) * ' ~ fraction ~ 'e0' -%}
  {%- set low = 'sorted[cast(floor(' ~ position ~ ') as bigint) + 1]' -%}
  {%- set high = 'sorted[cast(ceiling(' ~ position ~ ') as bigint) + 1]' -%}
  transform(
    array[array_sort(array_agg(cast({{ value }} as double)) filter (where {{ value }} is not null))],
    sorted -> {{ low }} + ({{ high }} - {{ low }}) * ({{ position }} - floor({{ position }}))
  )[1]
{%- endmacro %}

{% macro trino__cascade_approx_percentile(value, fraction) -%}
  approx_percentile(cast({{ value }} as double), {{ fraction }})
{%- endmacro %}

{% macro trino__cascade_deduplicate(numbered) -%}
  select * from table(exclude_columns(
    input => table(select * from ({{ numbered }}) as numbered where cascade_row = 1),
    columns => descriptor(cascade_row)
  ))
{%- endmacro %}
