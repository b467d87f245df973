{# Models on Trino: the same promises as on DuckDB (the runtime's cascade.sql), kept by SQL. A model is one statement, and so one
   snapshot; nothing is dropped or renamed, since other branches read the same files.

   The profile's database is no catalog of the server but a word that every statement replaces by the catalog of the
   run's branch. The branch in the profile itself would make dbt parse all of the project again in every run. #}

{% macro statement(name=None, fetch_result=False, auto_begin=True, language='sql') -%}
  {%- if execute -%}
    {%- set code = cascade_on_branch(caller()) -%}
    {%- call dbt.statement(name, fetch_result, auto_begin, language) -%}
      {{ code }}
    {%- endcall -%}
  {%- endif -%}
{%- endmacro %}

{# What dbt's contracts ask the engine goes around `statement`. #}
{% macro get_column_schema_from_query(select_sql, select_sql_header=none) -%}
  {{ return(adapter.get_column_schema_from_query(cascade_on_branch(get_empty_subquery_sql(select_sql, select_sql_header)))) }}
{%- endmacro %}

{% macro cascade_on_branch(sql) -%}
  {{ return(sql | replace('"' ~ target.database ~ '"', '"' ~ env_var('CASCADE_TRINO_CATALOG') ~ '"')) }}
{%- endmacro %}

{# dbt has put quotes around the name already. #}
{% macro trino__list_schemas(database) -%}
  {{ return(run_query('select schema_name from ' ~ database ~ '.information_schema.schemata')) }}
{%- endmacro %}

{% macro trino__check_schema_exists(information_schema, schema) -%}
  {%- set sql = 'select count(*) from "' ~ information_schema.database ~ '".information_schema.schemata where schema_name = ' -%}
  {{ return(run_query(sql ~ cascade_text(schema | lower))) }}
{%- endmacro %}

{% macro trino__list_relations_without_caching(schema_relation) %}
  {%- set sql -%}
    select '{{ schema_relation.database }}' as database, table_name as name, table_schema as schema, 'table' as type
    from "{{ schema_relation.database }}".information_schema.tables
    where table_schema = {{ cascade_text(schema_relation.schema | lower) }}
  {%- endset -%}
  {{ return(run_query(sql)) }}
{% endmacro %}

{% macro trino__get_columns_in_relation(relation) -%}
  {%- set sql -%}
    select column_name, data_type
    from "{{ relation.database }}".information_schema.columns
    where table_schema = {{ cascade_text(relation.schema | lower) }}
      and table_name = {{ cascade_text(relation.identifier | lower) }}
    order by ordinal_position
  {%- endset -%}
  {%- set columns = [] -%}
  {%- for row in run_query(sql) -%}
    {%- do columns.append(api.Column.from_description(row['column_name'], row['data_type'])) -%}
  {%- endfor -%}
  {{ return(columns) }}
{%- endmacro %}

{# Iceberg adds columns of these types only. #}
{% macro cascade_trino_type(type) -%}
  {%- set type = modules.re.sub('^(timestamp|time)\\(\\d+\\)', '\\1(6)', type) -%}
  {%- set type = modules.re.sub('^(varchar|char)(\\(\\d+\\))?$', 'varchar', type) -%}
  {{ return(modules.re.sub('^(tinyint|smallint)$', 'integer', type)) }}
{%- endmacro %}

{% macro cascade_trino_replace(sql) -%}
  create or replace table {{ this }}
  {%- if model.get('description') %}
  comment {{ cascade_text(model['description']) }}
  {%- endif %}
  {{ properties() }}
  as (
  {{ sql }}
  )
{%- endmacro %}

{# Apply on_schema_change, and return for each column of the table its name, its type, and what the model has for it. #}
{% macro cascade_trino_columns(sql) -%}
  {%- set policy = config.get('on_schema_change', 'ignore') -%}
  {%- set have = adapter.get_columns_in_relation(this) -%}
  {%- set names = have | map(attribute='name') | list -%}
  {%- set new = get_columns_in_query(sql) -%}
  {%- set lower = new | map('lower') | list -%}
  {%- set extra = [] -%}
  {%- for name in new if name | lower not in names -%}
    {%- do extra.append(name) -%}
  {%- endfor -%}
  {%- set missing = names | reject('in', lower) | list -%}
  {%- if policy == 'fail' and (extra or missing) -%}
    {%- do exceptions.raise_compiler_error(
      'The columns of ' ~ this.schema ~ '.' ~ this.identifier ~ ' changed: new ' ~ (extra or 'none') ~ ', gone ' ~ (missing or 'none')
      ~ '; run it with --full-refresh, or choose another on_schema_change.') -%}
  {%- endif -%}
  {%- set columns = [] -%}
  {%- for column in have -%}
    {%- if column.name in lower -%}
      {%- do columns.append({'name': column.name, 'type': column.dtype, 'value': adapter.quote(column.name)}) -%}
    {%- elif policy == 'sync_all_columns' -%}
      {%- do run_query('alter table ' ~ this ~ ' drop column ' ~ adapter.quote(column.name)) -%}
    {%- else -%}
      {%- do columns.append({'name': column.name, 'type': column.dtype, 'value': 'null'}) -%}
    {%- endif -%}
  {%- endfor -%}
  {%- if extra and policy in ('append_new_columns', 'sync_all_columns') -%}
    {%- set asked = [] -%}
    {%- for name in extra -%}
      {%- do asked.append('typeof(any_value(' ~ adapter.quote(name) ~ '))') -%}
    {%- endfor -%}
    {%- set types = run_query('select ' ~ asked | join(', ') ~ ' from (\n' ~ sql ~ '\n) as model where false').rows[0] -%}
    {%- for name in extra -%}
      {%- set type = cascade_trino_type(types[loop.index0]) -%}
      {%- do run_query('alter table ' ~ this ~ ' add column ' ~ adapter.quote(name) ~ ' ' ~ type) -%}
      {%- do columns.append({'name': name, 'type': type, 'value': adapter.quote(name)}) -%}
    {%- endfor -%}
  {%- endif -%}
  {{ return(columns) }}
{%- endmacro %}

{% macro cascade_trino_names(columns, prefix='') -%}
  {%- for column in columns -%}
    {{ prefix }}{{ adapter.quote(column['name']) }}{{ ', ' if not loop.last }}
  {%- endfor -%}
{%- endmacro %}

{% macro cascade_trino_values(columns) -%}
  {%- for column in columns -%}
    {{ column['value'] if column['value'] != 'null' else 'cast(null as ' ~ column['type'] ~ ')' }} as {{ adapter.quote(column['name']) }}{{ ', ' if not loop.last }}
  {%- endfor -%}
{%- endmacro %}

{% macro cascade_trino_append(sql) -%}
  {%- set columns = cascade_trino_columns(sql) -%}
  insert into {{ this }} ({{ cascade_trino_names(columns) }})
  select {{ cascade_trino_values(columns) }}
  from (
  {{ sql }}
  ) as model
{%- endmacro %}

{# Of several rows with one key one is taken. #}
{% macro cascade_trino_merge(sql, key) -%}
  {%- set columns = cascade_trino_columns(sql) -%}
  {%- set keys = [] -%}
  {%- set same = [] -%}
  {%- for name in key -%}
    {%- do keys.append(adapter.quote(name)) -%}
    {%- do same.append('old.' ~ adapter.quote(name) ~ ' = new.' ~ adapter.quote(name)) -%}
  {%- endfor -%}
  merge into {{ this }} as old
  using (
    select {{ cascade_trino_values(columns) }}
    from (
      select model.*, row_number() over (partition by {{ keys | join(', ') }}) as cascade_of_key
      from (
  {{ sql }}
      ) as model
    )
    where cascade_of_key = 1
  ) as new
  on {{ same | join(' and ') }}
  when matched then update set
    {%- for column in columns %} {{ adapter.quote(column['name']) }} = new.{{ adapter.quote(column['name']) }}{{ ',' if not loop.last }}{% endfor %}
  when not matched then insert ({{ cascade_trino_names(columns) }})
    values ({{ cascade_trino_names(columns, 'new.') }})
{%- endmacro %}

{# Replace a slice of time in one snapshot: a row of its own, beside the new ones, is matched by every old row. #}
{% macro cascade_trino_slice(sql, event_time, begin, end) -%}
  {%- set columns = cascade_trino_columns(sql) -%}
  {%- set time = adapter.quote(event_time) -%}
  merge into {{ this }} as old
  using (
    select {{ cascade_trino_values(columns) }}, 1 as cascade_new
    from (
  {{ sql }}
    ) as model
    union all
    select
      {%- for column in columns %} cast(null as {{ column['type'] }}),{% endfor %} 0
  ) as new
  on new.cascade_new = if(old.{{ time }} is null, 2, 0)
    and old.{{ time }} >= timestamp '{{ begin }}' and old.{{ time }} < timestamp '{{ end }}'
  when matched then delete
  when not matched and new.cascade_new = 1 then insert ({{ cascade_trino_names(columns) }})
    values ({{ cascade_trino_names(columns, 'new.') }})
{%- endmacro %}

{# Trino marks rows as deleted in files of their own, one or more a run; every reader opens all of them. #}
{% macro cascade_trino_compact() -%}
  {%- set files = this.incorporate(path={'identifier': this.identifier ~ '$files'}) -%}
  {%- if run_query('select count(*) from ' ~ files ~ ' where content <> 0').rows[0][0] > 20 -%}
    {%- do run_query('alter table ' ~ this ~ ' execute optimize') -%}
  {%- endif -%}
{%- endmacro %}

{% macro trino__cascade_store(sql, mode, key=[]) %}
  {%- set target_relation = this.incorporate(type='table') -%}
  {{ run_hooks(pre_hooks, inside_transaction=False) }}
  {{ run_hooks(pre_hooks, inside_transaction=True) }}
  {% if config.get('contract').enforced %}
    {{ get_assert_columns_equivalent(sql) }}
  {% endif %}
  {%- set begin, end = config.get('__dbt_internal_microbatch_event_time_start'), config.get('__dbt_internal_microbatch_event_time_end') -%}
  {% call statement('main') %}
    {%- if mode == 'replace' -%}
      {{ cascade_trino_replace(sql) }}
    {%- elif mode == 'merge' -%}
      {{ cascade_trino_merge(sql, key) }}
    {%- elif begin -%}
      {{ cascade_trino_slice(sql, config.get('event_time'), begin, end) }}
    {%- else -%}
      {{ cascade_trino_append(sql) }}
    {%- endif -%}
  {% endcall %}
  {%- if mode == 'merge' or begin -%}
    {%- do cascade_trino_compact() -%}
  {%- endif -%}
  {{ run_hooks(post_hooks, inside_transaction=True) }}
  {{ run_hooks(post_hooks, inside_transaction=False) }}
  {{ return({'relations': [target_relation]}) }}
{% endmacro %}

{% materialization table, adapter='trino' %}
  {{ return(cascade_store(compiled_code, 'replace')) }}
{% endmaterialization %}

{% materialization view, adapter='trino' %}
  {{ return(cascade_store(compiled_code, 'replace')) }}
{% endmaterialization %}

{% materialization incremental, adapter='trino' %}
  {{ return(cascade_incremental()) }}
{% endmaterialization %}

{% materialization snapshot, adapter='trino' %}
  {{ cascade_no_snapshots() }}
{% endmaterialization %}

{% materialization seed, adapter='trino' %}
  {%- set table = load_agate_table() -%}
  {%- do store_result('agate_table', response='OK', agate_table=table) -%}
  {%- set columns = [] -%}
  {%- set declared = config.get('column_types', {}) -%}
  {%- for name in table.column_names -%}
    {%- set inferred = {'INTEGER': 'bigint', 'TIMESTAMP': 'timestamp(6)'}.get(adapter.convert_type(table, loop.index0) | upper) or adapter.convert_type(table, loop.index0) -%}
    {%- set type = declared.get(name, inferred) | lower -%}
    {%- do columns.append({'name': name, 'type': 'timestamp(6)' if type == 'timestamp' else type}) -%}
  {%- endfor -%}
  {# As text in JSON, which costs the planner nothing, in as few statements as Trino's limit on their length allows. #}
  {%- set parts = [[]] -%}
  {%- set size = namespace(of_part=0) -%}
  {%- for row in table.rows -%}
    {%- set values = [] -%}
    {%- for value in row -%}
      {%- do values.append(none if value is none else value | string | lower if value is boolean else value | string) -%}
    {%- endfor -%}
    {%- set text = tojson(values) -%}
    {%- if size.of_part + text | length > 400000 -%}
      {%- do parts.append([]) -%}
      {%- set size.of_part = 0 -%}
    {%- endif -%}
    {%- do parts[-1].append(text) -%}
    {%- set size.of_part = size.of_part + text | length -%}
  {%- endfor -%}
  {%- set result = cascade_store(cascade_trino_seed(columns, parts[0]), 'replace') -%}
  {%- for part in parts[1:] -%}
    {%- do run_query('insert into ' ~ this ~ ' ' ~ cascade_trino_seed(columns, part)) -%}
  {%- endfor -%}
  {{ return(result) }}
{% endmaterialization %}

{% macro cascade_trino_seed(columns, rows) -%}
  select
  {%- for column in columns %} cast(c{{ loop.index }} as {{ column['type'] }}) as {{ adapter.quote(column['name']) }}{{ ',' if not loop.last }}{% endfor %}
  from unnest(cast(json_parse({{ cascade_text('[' ~ rows | join(',') ~ ']') }}) as array(row(
    {%- for column in columns %}c{{ loop.index }} varchar{{ ', ' if not loop.last }}{% endfor -%}
  ))))
{%- endmacro %}
