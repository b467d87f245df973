{# Every model is an Iceberg table on the run's branch. On DuckDB the SQL runs in the plugin (duckdb_plugin.py), which
   streams its rows into one commit; DuckDB itself only ever holds views. An engine of an extension brings its own side of it. #}

{% macro generate_schema_name(custom_schema_name, node) -%}
  {{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}

{# dbt asks whether a model's table exists: views over Iceberg tables are tables to it. #}
{% macro duckdb__list_relations_without_caching(schema_relation) %}
  {% call statement('list_relations_without_caching', fetch_result=True) -%}
    select
      '{{ schema_relation.database }}' as database,
      table_name as name,
      table_schema as schema,
      'table' as type
    from system.information_schema.tables
    where lower(table_schema) = '{{ schema_relation.schema | lower }}'
      and lower(table_catalog) = '{{ schema_relation.database | lower }}'
  {% endcall %}
  {{ return(load_result('list_relations_without_caching').table) }}
{% endmacro %}

{# Write a model's rows: `replace`, `merge` by a key, or `append`, which replaces a microbatch's slice. #}
{% macro cascade_store(sql, mode, key=[]) %}
  {{ return(adapter.dispatch('cascade_store')(sql, mode, key)) }}
{% endmacro %}

{% macro duckdb__cascade_store(sql, mode, key=[]) %}
  {%- set target_relation = this.incorporate(type='table') -%}
  {{ run_hooks(pre_hooks, inside_transaction=False) }}
  {{ run_hooks(pre_hooks, inside_transaction=True) }}
  {% if config.get('contract').enforced %}
    {{ get_assert_columns_equivalent(sql) }}
  {% endif %}
  {% do adapter.commit() %}
  {% do adapter.store_relation('cascade', target_relation, [], '', 'iceberg', {
    'sql': sql,
    'mode': mode,
    'key': key,
    'on_schema_change': config.get('on_schema_change', 'ignore'),
    'event_time': config.get('event_time'),
    'begin': (config.get('__dbt_internal_microbatch_event_time_start') or '') | string,
    'end': (config.get('__dbt_internal_microbatch_event_time_end') or '') | string,
    'description': model.get('description', ''),
  }) %}
  {% call noop_statement('main', 'OK') %}{% endcall %}
  {{ run_hooks(post_hooks, inside_transaction=True) }}
  {{ run_hooks(post_hooks, inside_transaction=False) }}
  {{ return({'relations': [target_relation]}) }}
{% endmacro %}

{% materialization table, adapter='duckdb' %}
  {{ return(cascade_store(compiled_code, 'replace')) }}
{% endmaterialization %}

{# Iceberg views are not readable by every engine, so a view is a table that each run replaces. #}
{% materialization view, adapter='duckdb' %}
  {{ return(cascade_store(compiled_code, 'replace')) }}
{% endmaterialization %}

{% materialization incremental, adapter='duckdb' %}
  {{ return(cascade_incremental()) }}
{% endmaterialization %}

{% macro cascade_incremental() %}
  {%- set existing = load_cached_relation(this) -%}
  {%- set unique_key = config.get('unique_key') -%}
  {%- set key = [] if not unique_key else ([unique_key] if unique_key is string else unique_key) -%}
  {%- set strategy = config.get('incremental_strategy') or ('merge' if key else 'append') -%}
  {%- set known = {'merge': 'merge', 'delete+insert': 'merge', 'append': 'append', 'microbatch': 'append'} -%}
  {% if strategy not in known %}
    {% do exceptions.raise_compiler_error("incremental_strategy '" ~ strategy ~ "' is not one of " ~ known.keys() | join(', ')) %}
  {% elif strategy in ('merge', 'delete+insert') and not key %}
    {% do exceptions.raise_compiler_error("incremental_strategy '" ~ strategy ~ "' needs a unique_key") %}
  {% endif %}
  {% if existing is none or should_full_refresh() %}
    {{ return(cascade_store(compiled_code, 'replace', key)) }}
  {% endif %}
  {{ return(cascade_store(compiled_code, known[strategy], key)) }}
{% endmacro %}

{% materialization seed, adapter='duckdb' %}
  {%- set types = config.get('column_types', {}) -%}
  {%- set sql -%}
    select * from read_csv(
      '{{ adapter.get_seed_file_path(model) | replace("'", "''") }}',
      header = true,
      delim = '{{ config.get('delimiter', ',') }}'
      {%- if types %},
      types = { {%- for column, type in types.items() %}'{{ column }}': '{{ type }}'{{ ', ' if not loop.last }}{% endfor -%} }
      {%- endif %}
    )
  {%- endset -%}
  {# dbt asks a seed for the rows it read; ours never pass through dbt. #}
  {% do store_result('agate_table', response='OK') %}
  {{ return(cascade_store(sql, 'replace')) }}
{% endmaterialization %}

{% materialization snapshot, adapter='duckdb' %}
  {{ cascade_no_snapshots() }}
{% endmaterialization %}

{% macro cascade_no_snapshots() %}
  {% do exceptions.raise_compiler_error("dbt snapshots are not supported yet; Iceberg keeps the history of every table: cascade query --at") %}
{% endmacro %}
