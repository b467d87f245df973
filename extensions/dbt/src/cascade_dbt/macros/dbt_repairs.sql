{# dbt's own macros are the way to write portable SQL. These replace the ones whose adapters disagree about a value, so
   that `dbt.datediff` and its like give the same on both engines. Tests hold every one against both. #}

{% macro duckdb__safe_cast(field, type) -%}
  try_cast({{ field }} as {{ type }})
{%- endmacro %}

{# FLOAT has 4 bytes on DuckDB, dbt's float has 8 on Trino. #}
{% macro duckdb__type_float() -%}
  double
{%- endmacro %}
