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

{# So does `dbt show`. #}
{% macro get_show_sql(compiled_code, sql_header, limit) -%}
  {{ cascade_on_branch(get_limit_subquery_sql(compiled_code, limit)) }}
{%- endmacro %}

{% macro cascade_on_branch(sql) -%}
  {{ return(sql | replace('"' ~ target.database ~ '"', '"' ~ env_var('CASCADE_RUN_CATALOG') ~ '"')) }}
{%- endmacro %}

{# `dbt docs` looks for the profile's database. What tables are described as it has from the models. #}
{% macro trino__get_catalog_results_sql() -%}
  select
    {{ cascade_text(target.database) }} as table_database, table_schema, table_name, table_type, table_owner,
    column_name, column_index, column_type, column_comment, cast(null as varchar) as table_comment
  from tables join columns using ("table_database", "table_schema", "table_name")
  order by column_index
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

{% macro cascade_trino_replace(sql, key, unique) -%}
  {%- set guarded = cascade_trino_guarded(sql, get_columns_in_query(sql), key, unique) if key or cascade_guards([]) else '' -%}
  create or replace table {{ this }}
  {%- if model.get('description') %}
  comment {{ cascade_text(model['description']) }}
  {%- endif %}
  {{ properties() }}
  as (
  {{ guarded or sql }}
  )
{%- endmacro %}

{# The rows of a model, which fail while they are read when one breaks a guard or, if unique, has the key of another.
   `cascade_row` counts the rows of a key; a condition on it is not pushed below the model's own filters and joins. #}
{% macro cascade_trino_guarded(sql, names, key, unique, extra='') -%}
  {%- set key = cascade_key(key, names) -%}
  {%- set columns = [] -%}
  {%- for name in names -%}{%- do columns.append(adapter.quote(name)) -%}{%- endfor -%}
  {%- set by = [] -%}
  {%- for name in key or names[:1] -%}{%- do by.append(adapter.quote(name)) -%}{%- endfor -%}
  {%- set shown = [] -%}
  {%- for name in key -%}
    {%- do shown.append(cascade_text(name ~ ' = ') ~ " || coalesce(cast(" ~ adapter.quote(name) ~ " as varchar), 'null')") -%}
  {%- endfor -%}
  select {{ columns | join(', ') }}{{ extra }}
  from (
    select model.*, row_number() over (partition by {{ by | join(', ') }}) as cascade_row
    from (
  {{ sql }}
    ) as model
  ) as numbered
  where case
    {%- for guard in cascade_guards(key) %}
    when cascade_row > 0 and ({{ guard['breaks'] }})
      then {{ cascade_trino_fail(cascade_text('has rows ' ~ guard['says'])) }}
    {%- endfor %}
    {%- if unique %}
    when cascade_row > 1
      then {{ cascade_trino_fail("'has rows with the same unique_key ' || " ~ shown | join(" || ', ' || ") ~ " || " ~ cascade_text(
        ": leave one row, or let incremental_strategy be 'delete+insert', which replaces the rows of a key by all new ones")) }}
    {%- endif %}
    else cascade_row end > 0
{%- endmacro %}

{# Trino has no function that fails with a message; a cast that cannot be done says what it was given. #}
{% macro cascade_trino_fail(message) -%}
  cast({{ cascade_text('model ' ~ this.schema ~ '.' ~ this.identifier ~ ' ') }} || {{ message }} as bigint)
{%- endmacro %}

{# Apply on_schema_change, and return for each column of the table its name, its type, and what the model has for it. #}
{% macro cascade_trino_columns(sql) -%}
  {%- set found = cascade_columns(sql) -%}
  {%- for name in found['gone'] -%}
    {%- do run_query('alter table ' ~ this ~ ' drop column ' ~ adapter.quote(name)) -%}
  {%- endfor -%}
  {%- set asked = [] -%}
  {%- for column in found['columns'] -%}
    {%- do asked.append('typeof(any_value(' ~ adapter.quote(column['new']) ~ '))') -%}
  {%- endfor -%}
  {%- set types = run_query('select ' ~ asked | join(', ') ~ ' from (\n' ~ sql ~ '\n) as model where false').rows[0] -%}
  {%- set columns = [] -%}
  {%- for column in found['columns'] -%}
    {%- set new = cascade_trino_type(types[loop.index0]) -%}
    {%- set name = adapter.quote(column['name']) -%}
    {%- if column['type'] is none -%}
      {%- do run_query('alter table ' ~ this ~ ' add column ' ~ name ~ ' ' ~ new) -%}
    {%- elif cascade_trino_wider(column['name'], column['type'], new) -%}
      {%- do run_query('alter table ' ~ this ~ ' alter column ' ~ name ~ ' set data type ' ~ new) -%}
    {%- else -%}
      {%- set new = column['type'] -%}
    {%- endif -%}
    {%- do columns.append({'name': column['name'], 'type': new, 'value': 'cast(' ~ adapter.quote(column['new']) ~ ' as ' ~ new ~ ')'}) -%}
  {%- endfor -%}
  {{ return(columns) }}
{%- endmacro %}

{# Whether a column becomes wider; refused when its type can hold neither the old values nor the new ones. #}
{% macro cascade_trino_wider(name, old, new) -%}
  {%- if old == new or new == 'unknown' or modules.re.match('array|map|row', old) -%}
    {{ return(false) }}
  {%- endif -%}
  {%- if cascade_on_schema_change() == 'fail' -%}
    {% do cascade_refuse('the model changes the type of ' ~ name ~ ' from ' ~ old ~ ' to ' ~ new ~ ', and its on_schema_change is fail',
      'cast to the type that the table has, or choose another on_schema_change') %}
  {%- endif -%}
  {%- set sizes = ['integer bigint', 'real double'] -%}
  {%- set parts = modules.re.findall('\\d+', old ~ ' ' ~ new) | map('int') | list -%}
  {%- set decimals = old.startswith('decimal') and new.startswith('decimal') and parts[1] == parts[3] -%}
  {%- if old ~ ' ' ~ new in sizes or (decimals and parts[2] > parts[0]) -%}
    {{ return(true) }}
  {%- elif new ~ ' ' ~ old in sizes or decimals -%}
    {{ return(false) }}
  {%- endif -%}
  {% do cascade_refuse('the model changes the type of ' ~ name ~ ' from ' ~ old ~ ' to ' ~ new,
    'cast to the type that the table has, or ' ~ cascade_anew()) %}
{%- endmacro %}

{% macro cascade_trino_names(columns, prefix='') -%}
  {%- for column in columns -%}
    {{ prefix }}{{ adapter.quote(column['name']) }}{{ ', ' if not loop.last }}
  {%- endfor -%}
{%- endmacro %}

{# The rows of a model with the columns of its table, as a query that ends with FROM. #}
{% macro cascade_trino_rows(sql, columns, key=[], unique=false, extra='') -%}
  select
  {%- for column in columns %} {{ column['value'] }} as {{ adapter.quote(column['name']) }}{{ ',' if not loop.last or extra }}{% endfor %} {{ extra }}
  from (
  {% if key or cascade_guards([]) -%}
    {{ cascade_trino_guarded(sql, get_columns_in_query(sql), key, unique, ', cascade_row') }}
  {%- else -%}
    {{ sql }}
  {%- endif %}
  ) as model
{%- endmacro %}

{% macro cascade_trino_append(sql) -%}
  {%- set columns = cascade_trino_columns(sql) -%}
  insert into {{ this }} ({{ cascade_trino_names(columns) }})
  {{ cascade_trino_rows(sql, columns) }}
{%- endmacro %}

{% macro cascade_trino_same(columns, key) -%}
  {%- for name in cascade_key(key, columns | map(attribute='name') | list) -%}
    old.{{ adapter.quote(name) }} = new.{{ adapter.quote(name) }}{{ ' and ' if not loop.last }}
  {%- endfor -%}
{%- endmacro %}

{% macro cascade_trino_merge(sql, key) -%}
  {%- set columns = cascade_trino_columns(sql) -%}
  merge into {{ this }} as old
  using (
    {{ cascade_trino_rows(sql, columns, key, true) }}
  ) as new
  on {{ cascade_trino_same(columns, key) }}
  when matched then update set
    {%- for column in columns %} {{ adapter.quote(column['name']) }} = new.{{ adapter.quote(column['name']) }}{{ ',' if not loop.last }}{% endfor %}
  when not matched then insert ({{ cascade_trino_names(columns) }})
    values ({{ cascade_trino_names(columns, 'new.') }})
{%- endmacro %}

{# Replace the rows of each key by all new ones, in one snapshot: one row of a key comes a second time, for the old rows to
   match. #}
{% macro cascade_trino_delete_insert(sql, key) -%}
  {%- set columns = cascade_trino_columns(sql) -%}
  merge into {{ this }} as old
  using (
    {{ cascade_trino_rows(sql, columns, key, false, 'cascade_new') }}
    cross join unnest(array[0, 1]) as twice(cascade_new)
    where cascade_new = 1 or cascade_row = 1
  ) as new
  on {{ cascade_trino_same(columns, key) }} and new.cascade_new = 0
  when matched then delete
  when not matched and new.cascade_new = 1 then insert ({{ cascade_trino_names(columns) }})
    values ({{ cascade_trino_names(columns, 'new.') }})
{%- endmacro %}

{# Replace a slice of time in one snapshot: a row of its own, beside the new ones, is matched by every old row. #}
{% macro cascade_trino_slice(sql, event_time, begin, end) -%}
  {%- set columns = cascade_trino_columns(sql) -%}
  {%- set time = adapter.quote(event_time) -%}
  merge into {{ this }} as old
  using (
    {{ cascade_trino_rows(sql, columns, extra='1 as cascade_new') }}
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

{# Refuse a microbatch with rows that its next run would not replace, but add again. #}
{% macro cascade_trino_require_inside(sql, event_time, begin, end) -%}
  {%- set time = adapter.quote(event_time) -%}
  {%- set inside = time ~ " >= timestamp '" ~ begin ~ "' and " ~ time ~ " < timestamp '" ~ end ~ "'" -%}
  {%- set outside = run_query('select count(*) from (\n' ~ sql ~ '\n) as model where not coalesce(' ~ inside ~ ', false)').rows[0][0] -%}
  {%- if outside -%}
    {% do cascade_refuse(
      'it has ' ~ outside ~ ' rows whose ' ~ event_time ~ ' is not in their batch, ' ~ begin ~ ' to ' ~ end ~ '; each run would add them again',
      'give what the model reads an event_time, and keep it in the model') %}
  {%- endif -%}
{%- endmacro %}

{# Trino marks rows as deleted in files of their own, one or more a run; every reader opens all of them. #}
{% macro cascade_trino_compact() -%}
  {%- set files = this.incorporate(path={'identifier': this.identifier ~ '$files'}) -%}
  {%- if run_query('select count(*) from ' ~ files ~ ' where content <> 0').rows[0][0] > 20 -%}
    {%- do run_query('alter table ' ~ this ~ ' execute optimize') -%}
  {%- endif -%}
{%- endmacro %}

{% macro trino__cascade_store(sql, mode, key=[], unique=false) %}
  {%- set target_relation = this.incorporate(type='table') -%}
  {{ run_hooks(pre_hooks, inside_transaction=False) }}
  {{ run_hooks(pre_hooks, inside_transaction=True) }}
  {% if config.get('contract').enforced %}
    {{ get_assert_columns_equivalent(sql) }}
  {% endif %}
  {%- set begin, end = config.get('__dbt_internal_microbatch_event_time_start'), config.get('__dbt_internal_microbatch_event_time_end') -%}
  {%- if begin -%}
    {%- do cascade_trino_require_inside(sql, config.get('event_time'), begin, end) -%}
  {%- endif -%}
  {% call statement('main') %}
    {%- if mode == 'replace' -%}
      {{ cascade_trino_replace(sql, key, unique) }}
    {%- elif mode == 'merge' and unique -%}
      {{ cascade_trino_merge(sql, key) }}
    {%- elif mode == 'merge' -%}
      {{ cascade_trino_delete_insert(sql, key) }}
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
  {{ return(cascade_snapshot()) }}
{% endmaterialization %}

{% materialization test, adapter='trino' %}
  {{ return(cascade_test()) }}
{% endmaterialization %}

{% macro trino__cascade_keep(sql) %}
  {% call statement('keep') -%}
    create or replace table {{ this }} as (
    {{ sql }}
    )
  {%- endcall %}
{% endmacro %}

{% materialization seed, adapter='trino' %}
  {%- set table = load_agate_table() -%}
  {%- do store_result('agate_table', response='OK', agate_table=table) -%}
  {%- set columns = [] -%}
  {%- for column in table.columns -%}
    {%- set type = column.data_type.sql -%}
    {%- do columns.append({'name': column.name, 'type': 'timestamp(6)' if type == 'timestamp' else type}) -%}
  {%- endfor -%}
  {# As text in JSON, which costs the planner nothing, in as few statements as Trino's limit on their length allows. #}
  {%- set parts = [[]] -%}
  {%- set size = namespace(of_part=0) -%}
  {%- for row in table.rows -%}
    {%- set values = [] -%}
    {%- for value in row -%}
      {%- do values.append(value | replace('T', ' ') if value and columns[loop.index0].type.startswith('timestamp') else value) -%}
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
