{# Every model is an Iceberg table on the run's branch. On DuckDB the SQL runs in the plugin (duckdb_plugin.py), which
   streams its rows into one commit; DuckDB itself only ever holds views. An engine of an extension brings its own side of it. #}

{# A seed comes from outside, as what is loaded does. Here, not in `dbt_project.yml` of new projects: dbt warns of a
   configuration of seeds where there are none. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
  {{ (custom_schema_name or ('raw' if node.resource_type == 'seed' else target.schema)) | trim }}
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

{# Write a model's rows: `replace`, `merge` by a key, which is unique or not, or `append`, which replaces a microbatch's slice. #}
{% macro cascade_store(sql, mode, key=[], unique=false) %}
  {%- if config.get('contract').enforced -%}
    {%- do cascade_require_decimals(sql) -%}
  {%- endif -%}
  {{ return(adapter.dispatch('cascade_store')(sql, mode, key, unique)) }}
{% endmacro %}

{% macro duckdb__cascade_store(sql, mode, key=[], unique=false) %}
  {%- set target_relation = this.incorporate(type='table') -%}
  {{ run_hooks(pre_hooks, inside_transaction=False) }}
  {{ run_hooks(pre_hooks, inside_transaction=True) }}
  {% if config.get('contract').enforced %}
    {{ get_assert_columns_equivalent(sql) }}
  {% endif %}
  {%- set written = sql -%}
  {%- set names = get_columns_in_query(sql) if key else [] -%}
  {%- if mode != 'replace' -%}
    {%- set shown = [] -%}
    {%- set names = [] -%}
    {%- for column in cascade_columns(sql)['columns'] -%}
      {%- do names.append(column['name']) -%}
      {%- do shown.append(adapter.quote(column['new']) ~ ' as ' ~ adapter.quote(column['name'])) -%}
    {%- endfor -%}
    {%- set sql = 'select ' ~ shown | join(', ') ~ ' from (\n' ~ sql ~ '\n) as model' -%}
  {%- endif -%}
  {%- set key = cascade_key(key, names) -%}
  {% do adapter.commit() %}
  {% do adapter.store_relation('cascade', target_relation, [], '', 'iceberg', {
    'model': written,
    'sql': sql,
    'mode': mode,
    'key': key,
    'unique': unique,
    'guards': cascade_guards(key),
    'on_schema_change': cascade_on_schema_change(),
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

{# dbt's own default, `ignore`, would leave new columns out without a word. #}
{% macro cascade_on_schema_change() %}
  {{ return(config.get('on_schema_change') if 'on_schema_change' in model['unrendered_config'] else 'append_new_columns') }}
{% endmacro %}

{# The columns that an incremental run writes: their name in the model (`new`) and in the table (`name`), and the table's
   type of those that it has; and the columns of the table that the model gave up (`gone`). #}
{% macro cascade_columns(sql) %}
  {%- set policy = cascade_on_schema_change() -%}
  {%- set have = {} -%}
  {%- for column in adapter.get_columns_in_relation(this) -%}
    {%- do have.update({column.name | lower: column}) -%}
  {%- endfor -%}
  {%- set columns = [] -%}
  {%- set extra = [] -%}
  {%- set names = get_columns_in_query(sql) -%}
  {%- for name in names -%}
    {%- if name | lower in have -%}
      {%- do columns.append({'new': name, 'name': have[name | lower].name, 'type': have[name | lower].data_type}) -%}
    {%- else -%}
      {%- do extra.append(name) -%}
      {%- do columns.append({'new': name, 'name': name, 'type': none}) if policy != 'ignore' -%}
    {%- endif -%}
  {%- endfor -%}
  {%- set gone = have.keys() | reject('in', names | map('lower') | list) | list -%}
  {%- if gone and policy != 'sync_all_columns' -%}
    {% do cascade_refuse(
      'its table has ' ~ gone | join(', ') ~ ', which the model no longer has; new rows would have no value there',
      'give the column back to the model under its old name, or let on_schema_change be sync_all_columns, which drops it and its values, or '
      ~ cascade_anew()) %}
  {%- elif extra and policy == 'fail' -%}
    {% do cascade_refuse(
      'the model has the new columns ' ~ extra | join(', ') ~ ', and its on_schema_change is fail',
      'choose another on_schema_change, or ' ~ cascade_anew()) %}
  {%- endif -%}
  {{ return({'columns': columns, 'gone': gone}) }}
{% endmacro %}

{# The columns that an option names, as they are spelled. #}
{% macro cascade_key(key, names, option='unique_key') %}
  {%- set found = [] -%}
  {%- for wanted in key -%}
    {%- set same = [] -%}
    {%- for name in names if name | lower == wanted | lower -%}
      {%- do same.append(name) -%}
    {%- endfor -%}
    {%- if not same -%}
      {% do cascade_refuse('its ' ~ option ~ ' ' ~ wanted ~ ' is none of its columns: ' ~ names | join(', '), 'name columns; make one of an expression') %}
    {%- endif -%}
    {%- do found.append(same[0]) -%}
  {%- endfor -%}
  {{ return(found) }}
{% endmacro %}

{# What no row may be, as a condition (`breaks`) and in words (`says`): keys without a value, and the constraints of an
   enforced contract. #}
{% macro cascade_guards(key) %}
  {%- set guards = [] -%}
  {%- for name in key -%}
    {%- do guards.append({
      'breaks': adapter.quote(name) ~ ' is null',
      'says': 'without a value in ' ~ name ~ ', a column of unique_key: give them one, as with coalesce(), or leave them out',
    }) -%}
  {%- endfor -%}
  {%- if config.get('contract').enforced -%}
    {%- for column in model['columns'].values() -%}
      {%- for constraint in column.get('constraints') or [] -%}
        {%- do guards.extend(cascade_constraint(constraint, [column['name']])) -%}
      {%- endfor -%}
    {%- endfor -%}
    {%- for constraint in model.get('constraints') or [] -%}
      {%- do guards.extend(cascade_constraint(constraint, constraint.get('columns') or [])) -%}
    {%- endfor -%}
  {%- endif -%}
  {{ return(guards) }}
{% endmacro %}

{% macro cascade_constraint(constraint, columns) %}
  {%- set guards = [] -%}
  {%- if constraint['type'] == 'not_null' -%}
    {%- for name in columns -%}
      {%- do guards.append({'breaks': adapter.quote(name) ~ ' is null', 'says': 'without a value in ' ~ name ~ ', against its constraint not_null'}) -%}
    {%- endfor -%}
  {%- elif constraint['type'] == 'check' -%}
    {%- do guards.append({'breaks': 'not (' ~ constraint['expression'] ~ '\n)', 'says': 'against the constraint check: ' ~ constraint['expression']}) -%}
  {%- endif -%}
  {{ return(guards) }}
{% endmacro %}

{# dbt compares the kinds of types; an engine that makes the table of them would round. #}
{% macro cascade_require_decimals(sql) %}
  {%- set columns = [] -%}
  {%- set asked = [] -%}
  {%- for column in model['columns'].values() if modules.re.match('(?i)(decimal|numeric)\\s*[(]', column['data_type'] or '') -%}
    {%- do columns.append(column) -%}
    {%- do asked.append('typeof(any_value(' ~ adapter.quote(column['name']) ~ ')), typeof(cast(null as ' ~ column['data_type'] ~ '))') -%}
  {%- endfor -%}
  {%- if asked -%}
    {%- set types = run_query('select ' ~ asked | join(', ') ~ ' from (\n' ~ sql ~ '\n) as model where false').rows[0] -%}
    {%- for column in columns -%}
      {%- set found, agreed = types[2 * loop.index0], types[2 * loop.index0 + 1] -%}
      {%- if found != agreed -%}
        {% do cascade_refuse('its column ' ~ column['name'] ~ ' is ' ~ found ~ ', and ' ~ agreed ~ ' in its contract',
          'cast to the type that the contract has, or correct the contract') %}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{% endmacro %}

{% macro cascade_refuse(what, fix) %}
  {% do exceptions.raise_compiler_error(this.schema ~ '.' ~ this.identifier ~ ': ' ~ what ~ '. Fix: ' ~ fix ~ '.') %}
{% endmacro %}

{% macro cascade_anew() -%}
  rebuild its table: cascade run --full-refresh --select {{ this.schema }}/{{ this.identifier }}
{%- endmacro %}

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
  {%- set unique_key = config.get('unique_key') -%}
  {%- set key = [] if not unique_key else ([unique_key] if unique_key is string else unique_key) -%}
  {%- set strategy = config.get('incremental_strategy') or ('merge' if key else 'append') -%}
  {%- set known = {'merge': 'merge', 'delete+insert': 'merge', 'append': 'append', 'microbatch': 'append'} -%}
  {%- set rebuild = load_cached_relation(this) is none or should_full_refresh() -%}
  {%- set key = key if known[strategy] == 'merge' else [] -%}
  {{ return(cascade_store(compiled_code, 'replace' if rebuild else known[strategy], key, strategy == 'merge')) }}
{% endmacro %}

{% materialization snapshot, adapter='duckdb' %}
  {{ return(cascade_snapshot()) }}
{% endmaterialization %}

{# dbt's own SELECT tells what has changed; a snapshot is one merge by the id of a version, `dbt_scd_id`. #}
{% macro cascade_snapshot() %}
  {%- set names = config.get('snapshot_table_column_names') or get_snapshot_table_column_names() -%}
  {%- set there = load_cached_relation(this) is not none -%}
  {%- set strategy = strategy_dispatch(config.get('strategy'))(model, 'snapshotted_data', 'source_data', model['config'], there) -%}
  {%- if there -%}
    {%- do adapter.assert_valid_snapshot_target_given_strategy(this, names, strategy) -%}
    {{ return(cascade_store(cascade_snapshot_changes(strategy, names), 'merge', [names.dbt_scd_id], true)) }}
  {%- endif -%}
  {{ return(cascade_store(build_snapshot_table(strategy, compiled_code), 'replace', [names.dbt_scd_id], true)) }}
{% endmacro %}

{# The rows that a snapshot writes: versions that begin, and versions of the table that end, all else of these as it is.
   A column that the model gave up stays, without a value in new versions. #}
{% macro cascade_snapshot_changes(strategy, names) %}
  {%- set staged = snapshot_staging_table(strategy, compiled_code, this) -%}
  {%- set types, columns, new = {}, [], [] -%}
  {%- for column in adapter.get_columns_in_relation(this) -%}
    {%- do types.update({column.name | lower: column.data_type}) -%}
    {%- do columns.append(column.name) -%}
  {%- endfor -%}
  {%- for name in get_columns_in_query(staged) if not modules.re.match('(?i)dbt_(change_type|unique_key(_[0-9]+)?)$', name) -%}
    {%- do new.append(name | lower) -%}
    {%- do columns.append(name) if name | lower not in types -%}
  {%- endfor -%}
  {%- set id, valid_to = names.dbt_scd_id, names.dbt_valid_to -%}
  {%- set own = names.values() | map('lower') | list -%}
  with staged as (
  {{ staged }}
  )
  select
  {%- for column in columns %}
    {%- set name = adapter.quote(column) %}
    {% if column | lower not in new %}null{% elif column | lower in own %}cast(staged.{{ name }} as {{ types[column | lower] }}){% else %}staged.{{ name }}{% endif %} as {{ name }}{{ ',' if not loop.last }}
  {%- endfor %}
  from staged
  where dbt_change_type = 'insert' and {{ id }} not in (select {{ id }} from {{ this }})
  union all
  select
  {%- for column in columns %}
    {%- set name = adapter.quote(column) %}
    {% if column | lower not in types %}null{% elif column | lower == valid_to | lower %}cast(staged.{{ name }} as {{ types[column | lower] }}){% else %}old.{{ name }}{% endif %} as {{ name }}{{ ',' if not loop.last }}
  {%- endfor %}
  from staged
  join {{ this }} as old on old.{{ id }} = staged.{{ id }}
  where dbt_change_type in ('update', 'delete')
{% endmacro %}

{% materialization test, adapter='duckdb' %}
  {{ return(cascade_test()) }}
{% endmaterialization %}

{# With store_failures the rows that fail are a table, which each run replaces; dbt would drop it, and its files with it,
   which other branches may still read. #}
{% macro cascade_test() %}
  {%- set failures = get_limit_subquery_sql(sql, config.get('limit')) -%}
  {%- set kept = should_store_failures() -%}
  {%- if kept -%}
    {%- do adapter.dispatch('cascade_keep')(failures) -%}
    {%- set failures = 'select * from ' ~ this -%}
  {%- endif -%}
  {% call statement('main', fetch_result=True) -%}
    {{ get_test_sql(failures, config.get('fail_calc'), config.get('warn_if'), config.get('error_if'), limit=none) }}
  {%- endcall %}
  {{ return({'relations': [this] if kept else []}) }}
{% endmacro %}

{% macro duckdb__cascade_keep(sql) %}
  {% do adapter.commit() %}
  {% do adapter.store_relation('cascade', this.incorporate(type='table'), [], '', 'iceberg', {
    'model': sql, 'sql': sql, 'mode': 'replace', 'key': [], 'unique': false, 'guards': [], 'description': '',
  }) %}
{% endmacro %}

{# DuckDB guesses at comments, quotes and formats of dates; what a file says is taken as text, with the types of seeds.py. #}
{% materialization seed, adapter='duckdb' %}
  {%- set table = load_agate_table() -%}
  {%- set shown = [] -%}
  {%- for column in table.columns -%}
    {%- set name = adapter.quote(column.name) -%}
    {%- do shown.append('cast(' ~ name ~ ' as ' ~ column.data_type.sql ~ ') as ' ~ name) -%}
  {%- endfor -%}
  {%- set sql -%}
    select {{ shown | join(', ') }} from read_csv({{ cascade_text(adapter.get_seed_file_path(model)) }}, header = true,
      all_varchar = true, skip = 0, comment = '', delim = {{ cascade_text(config.get('delimiter', ',')) }}, quote = '"', escape = '"',
      null_padding = false, strict_mode = true)
  {%- endset -%}
  {% do store_result('agate_table', response='OK', agate_table=table) %}
  {{ return(cascade_store(sql, 'replace')) }}
{% endmaterialization %}

{% macro run_hooks(hooks, inside_transaction=True) %}
  {%- for hook in hooks if hook['transaction'] == inside_transaction -%}
    {%- set sql = render(hook['sql']) | trim -%}
    {%- if sql -%}
      {%- do cascade_check_hook(sql) -%}
      {%- call statement(auto_begin=inside_transaction) -%}
        {{ sql }}
      {%- endcall -%}
    {%- endif -%}
  {%- endfor -%}
{% endmacro %}

{# What a hook writes on DuckDB is in memory, and gone with the process. #}
{% macro cascade_check_hook(sql) %}
  {%- set reads = '(?is)^(\\s|--[^\\n]*\\n|/[*].*?[*]/|[(])*(select|with|from|values|set|reset|pragma|call|show|describe|explain|analyze|load|create\\s+(or\\s+replace\\s+)?(temp|temporary|macro|function)\\b)' -%}
  {%- set writes = '(?i);(\\s|--[^\\n]*\\n|/[*].*?[*]/)*(create|insert|update|delete|merge|copy|drop|alter|truncate)\\b' -%}
  {%- if target.type == 'duckdb' and (not modules.re.match(reads, sql) or modules.re.search(writes, sql)) -%}
    {% do cascade_refuse('its hook writes beside the lakehouse: ' ~ sql | truncate(80), 'write the rows with a model') %}
  {%- endif -%}
{% endmacro %}
