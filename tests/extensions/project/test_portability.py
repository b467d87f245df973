"""SQL that one of the engines refuses or understands differently is found, with its line and a remedy.

Modules: `cascade_project.portability.check`, `cascade_project.portability.findings`,
`cascade_project.portability.render`, `cascade_project.portability.statement`, `cascade_project.portability.typed`.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cascade.config import Settings
from cascade_dbt.project import MACROS, parse_project
from cascade_project.portability import Finding, Report, check_project, check_statement
from support.dbt import dbt_project
from support.portable.running import DuckDB, render
from support.portable.table import ENTRIES, REMEDIES, check_entry

PROJECT = dbt_project("""\
models: { shop: { +schema: silver, laptop: { +meta: { cascade: { engines: [embedded] } } } } }
""")
SCHEMA = """\
sources: [{ name: raw, tables: [{ name: orders }] }]
models:
  - name: typed
    data_tests:
      - positive: { arguments: { expression: "cents::double" } }
    columns:
      - name: cents
        data_tests:
          - not_null: { config: { where: "created ilike 'a'" } }
"""
FILES = {
    "dbt_project.yml": PROJECT,
    "models/schema.yml": SCHEMA,
    "macros/ours.sql": (
        "{# Ours. #}\n{% macro as_text(value) %}\n  {{ value }}::varchar\n{% endmacro %}\n\n"
        "{% macro day_of(value) -%}\n  {{ return(adapter.dispatch('day_of')(value)) }}\n{%- endmacro %}\n"
        "{% macro duckdb__day_of(value) %} strftime({{ value }}, '%d') {% endmacro %}\n"
        "{% macro trino__day_of(value) %} date_format({{ value }}, '%d') {% endmacro %}\n"
    ),
    "tests/generic/positive.sql": (
        "{% test positive(model, expression) %}\n\nselect *\nfrom {{ model }}\n"
        "where ({{ expression }}) < 0\n  qualify true\n{% endtest %}\n"
    ),
    "tests/none_left.sql": "select *\nfrom {{ ref('typed') }}\nwhere cents == 0\n",
    # Everything is in the common subset here, though a careless reader would stumble.
    "models/clean.sql": (
        "{{ config(materialized='incremental', unique_key='id') }}\n"
        "-- a comment with x::int, qualify, and it's quote\n"
        "with days as ({{ dbt.date_spine('day', \"date '2024-01-01'\", \"date '2024-02-01'\") }}),\n"
        "ranked(id, place) as (select id, row_number() over (partition by id order by id) from"
        " {{ source('raw', 'orders') }})\n"
        "select\n  r.id, 'it''s :: // qualify [1] {x}' as \"text::int\",\n"
        "  {% for name in ['a', 'b'] %}max(case when kind = '{{ name }}' then 1 end) as {{ name }}"
        "{{ ',' if not loop.last }}\n"
        "  {% endfor %}\n"
        "from {{ ref('typed') }} as r\n"
        "join ({{ cascade_deduplicate(source('raw', 'orders'), 'id', 'id') }}) as o(id, kind) on o.id = r.id\n"
        "where {{ dbt.datediff('r.created', 'o.created', 'day') }} > 1\n"
        "{% if is_incremental() %}\n  and r.id > (select max(id) from {{ this }})\n{% endif %}\n"
        "group by r.id\n"
    ),
    "models/branches.sql": (
        "select {{ day_of('created') }} as day,\n"
        "{% if target.type == 'duckdb' %}\n  list_sum(amounts) as total\n{% else %}\n"
        "  reduce(amounts, 0, (s, x) -> s + x, s -> s) as total\n{% endif %}\nfrom {{ source('raw', 'orders') }}\n"
    ),
    "models/typed.sql": (
        "select id, amount as cents, created, date_trunc('month', created_on) as month\n"
        "from {{ source('raw', 'orders') }}\n"
    ),
    "models/wrong.sql": (
        "{{ config(materialized='incremental') }}\n\n"
        "select\n"
        "  id::bigint as id,\n"
        "  {{ as_text('id') }} as name,\n"
        "  cents / 100 as euros,\n"
        "  list_sum([cents]) as total, levenshtein_distance('a', 'b') as distance\n"
        "from {{ ref('typed') }}\n"
        "{%- if is_incremental() %}\n"
        "where month > today()\n"
        "{% endif %}\n"
        "limit 10 offset 1\n"
    ),
    "models/broken.sql": "select a b c from {{ ref('typed') }}\n",
    "models/laptop/mine.sql": "select id::int as id, levenshtein_distance('a', 'b') as d from {{ ref('typed') }}\n",
    "models/nobody.sql": "{{ config(meta={'cascade': {'engines': ['spark']}}) }} select 1 as id\n",
    "models/dynamic.sql": (
        "{% set found = run_query('select 1') %}\nselect {% for row in found %}{{ row[0] }}::int as a{% endfor %}\n"
    ),
    "models/skipped.sql": "select {{ 1 / 0 }} as x\n",
}
COLUMNS = {
    "raw": {
        "orders": {"id": "bigint", "amount": "integer", "created": "timestamp", "created_on": "date", "kind": "varchar"}
    }
}

# Everyday SQL that both engines understand alike.
COMMON = r"""
select a, b from t where a like 'x%' escape '\'
select count(*) filter (where x > 1) as n from t
select case when a in (1,2) then 'x' else 'y' end as k, coalesce(a, 0) as c from t left join u using (id)
with a as (select 1 as x), b(y) as (select x from a) select y from b union all select 2
select row_number() over (partition by a order by b desc nulls last) as rn from t
select sum(x) over (order by d rows between unbounded preceding and current row) as v from t
select cast(a as decimal(10, 2)) as a, cast(b as varchar) as b, try_cast(c as date) as c from t
select extract(year from d) as y, year(d) as y2, date_trunc('day', ts) as dd from t
select t.a, u.x from t cross join unnest(t.arr) as u(x)
select t.a, u.x, u.n from t cross join unnest(t.arr) with ordinality as u(x, n)
select a from t where exists (select 1 from u where u.id = t.id) and a is not distinct from 3
select a, count(*) as n from t group by a having count(*) > 1 order by n desc
select a, sum(cast(x as double)) / nullif(count(*), 0) as avg_x from t group by grouping sets ((a), ())
select a, b, count(*) as n from t group by rollup (a, b)
select substr(a, 1, 3) as p, upper(a) as u, trim(a) as t, replace(a, 'x', 'y') as r from t
select length(a) as l, lower(a) || '-' || b as c from t
select max_by(a, ts) as last_a, min_by(a, ts) as first_a, any_value(b) as b, bool_or(c) as c from t group by k
select lag(a, 1) over (order by b) as p, first_value(a) over w as f from t window w as (order by b)
select a from t order by b offset 5 limit 10
select a from t fetch first 3 rows only
select timestamp '2024-01-01 00:00:00' as a, date '2024-01-01' as b, interval '1' day as c
select x.a from (values (1, 'a'), (2, 'b')) as x(a, b) where x.b <> 'a'
select a as "order", "group" from "schema"."table"
select a from t where d between date '2024-01-01' and current_date - interval '7' day
select current_timestamp as now, now() as n2
select round(x, 2) as r, abs(x) as a, floor(x) as f, ceil(x) as c, power(x, 2) as p from t
select sqrt(x) as s, mod(x, 3) as m, x % 3 as m2 from t
select array[1, 2] as a, cardinality(array[1]) as n
select concat_ws('-', a, b) as k, strpos(a, 'x') as p, starts_with(a, 'x') as s, split(a, ',') as parts from t
select if(a > 1, 'x', 'y') as v, nullif(a, 0) as n from t
select a from t where a = any (select b from u)
select a, 'it''s -- no comment // :: qualify' as b /* x::int */ from t -- y::int
select distinct a from t intersect select b from u except select c from v
select cast(row(1, 'x') as row(a integer, b varchar)).a as v
select count(distinct a) as n, cast(count(*) as bigint) * 100 as k from t
select greatest(a, coalesce(b, a)) as g from t
with recursive r(n) as (select 1 union all select n + 1 from r where n < 5) select n from r
select a from lateral_table
select t.left_at, t.right_at, t.range_id, t.first from t
select sum(a) filter (where b) as x, avg(a) as y, stddev(a) as z, corr(a, b) as c, approx from t
select (select max(x) from u where u.id = t.id) as m from t
"""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "pyproject.toml").write_text("[tool.cascade]\n")
    settings = Settings(project_dir=folder)
    for name, text in FILES.items():
        path = settings.dbt_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # dbt evaluates plain divisions while it parses; what only fails here comes later.
        path.write_text(text if name != "models/skipped.sql" else "select 1 as x\n")
    found = parse_project(settings)
    assert found is not None
    (settings.dbt_path / "models/skipped.sql").write_text(FILES["models/skipped.sql"])
    return found, settings.dbt_path


def look(manifest: tuple[Path, Path], engine: str = "embedded") -> Report:
    columns = json.loads(json.dumps(COLUMNS))
    return check_project(*manifest, MACROS, engine=engine, columns=columns)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def report(manifest: tuple[Path, Path]) -> Report:
    return look(manifest)


def places(report: Report, file: str) -> list[tuple[int | None, int | None, str, str]]:
    return [(f.line, f.column, f.engine, f.finding) for f in report.findings if f.file == file]


def test_each_place_in_a_model_is_named_with_line_and_column(report: Report) -> None:
    """The lines of the user's file, whatever Jinja made of it."""
    assert places(report, "models/wrong.sql") == [
        (4, 5, "trino", "Trino has no `::`"),
        (6, 9, "trino", "a quotient of integers has a fraction on DuckDB, none on Trino"),
        (7, 3, "trino", "Trino has no function `list_sum`"),
        (7, 31, "embedded", "DuckDB has no function `levenshtein_distance`"),
        (10, 15, "trino", "Trino has no `today`"),
        (12, 10, "trino", "Trino wants `OFFSET` before `LIMIT`"),
    ]


def test_a_macro_of_the_project_is_named_at_its_own_line(report: Report) -> None:
    assert places(report, "macros/ours.sql") == [(3, 14, "trino", "Trino has no `::`")]


def test_tests_are_looked_at_and_their_arguments(report: Report) -> None:
    """What stands in a YAML file is named there."""
    assert places(report, "tests/generic/positive.sql") == [(6, 3, "trino", "Trino has no `QUALIFY`")]
    assert places(report, "tests/none_left.sql") == [(3, 13, "trino", "Trino has no `==`")]
    assert places(report, "models/schema.yml") == [
        (5, 52, "trino", "Trino has no `::`"),
        (9, 51, "trino", "Trino has no `ILIKE`"),
    ]


def test_types_follow_from_the_contract_through_the_models(report: Report) -> None:
    assert places(report, "models/typed.sql") == [
        (1, 38, "trino", "a truncated date is a timestamp on DuckDB, a date on Trino")
    ]


@pytest.mark.parametrize("file", ["models/clean.sql", "models/branches.sql"])
def test_portable_sql_has_no_findings(report: Report, file: str) -> None:
    """Texts, comments, loops, our macros and dbt's, and code that asks for the engine itself."""
    assert places(report, file) == []


def test_sql_that_nobody_can_read_breaks_on_both(report: Report) -> None:
    found = places(report, "models/broken.sql")
    assert [engine for _, _, engine, _ in found] == ["embedded", "trino"]
    assert all("cannot read this SQL" in finding and line == 1 for line, _, _, finding in found)


def test_a_model_may_be_for_one_engine(manifest: tuple[Path, Path], report: Report) -> None:
    """Only what breaks there counts; set to the other engine, the project has a problem."""
    assert [f[2:] for f in places(report, "models/laptop/mine.sql")] == [
        ("embedded", "DuckDB has no function `levenshtein_distance`")
    ]
    said = "models/laptop/mine.sql: model `mine` is for the engine embedded only, and the engine that is set is trino"
    assert said not in report.problems
    assert said in look(manifest, "trino").problems


def test_a_wrong_engine_in_meta_is_a_problem(report: Report) -> None:
    assert report.problems == [
        "models/nobody.sql: `nobody` has meta.cascade.engines ['spark']; give a list of embedded, trino"
    ]


def test_what_means_something_else_is_about_the_engine_that_is_not_set(manifest: tuple[Path, Path]) -> None:
    found = [f for f in look(manifest, "trino").findings if f.kind == "differs"]
    assert {f.engine for f in found} == {"embedded"}


def test_what_needs_dbt_is_said_to_be_left_out(report: Report) -> None:
    """Nothing is skipped silently; a model that depends on a query is still searched for the table's entries."""
    assert len(report.skipped) == 1
    assert report.skipped[0].startswith("models/skipped.sql: skipped: ZeroDivisionError")
    assert places(report, "models/dynamic.sql") == [(2, 42, "trino", "Trino has no `::`")]


@pytest.mark.parametrize("sql", COMMON.strip().splitlines())
def test_everyday_sql_has_no_findings(sql: str) -> None:
    assert check_statement(sql) == []


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_of_the_table_is_found(name: str) -> None:
    entry = ENTRIES[name]
    found = check_statement(entry.bad, engine="trino" if entry.engine == "trino" else "embedded")
    mine = next(f for f in found if f.remedy == entry.remedy and _says(f, entry.says))
    assert (mine.line, mine.kind) == (1, "differs" if entry.engine == "both" else "breaks")
    assert mine.column is not None


def _says(finding: Finding, text: str) -> bool:
    return finding.finding.startswith(text.split("`{}`", maxsplit=1)[0])


@pytest.mark.parametrize("name", [name for name, good in REMEDIES.items() if "{{" not in good])
def test_a_remedy_has_no_findings_itself(name: str) -> None:
    assert check_statement(REMEDIES[name]) == []


@pytest.fixture(scope="module")
def remedies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return render(tmp_path_factory.mktemp("dbt") / "project", "duckdb", REMEDIES)


@pytest.mark.parametrize("name", ENTRIES)
def test_the_table_tells_the_truth_about_duckdb(name: str, remedies: dict[str, str]) -> None:
    """`tests/integration` asks Trino."""
    check_entry(DuckDB(), ENTRIES[name], remedies.get(name, ""))


def test_loading_a_project_does_not_import_the_parser() -> None:
    """It costs a third of a second, which only `cascade validate` pays."""
    code = (
        "import sys, cascade.framework.definitions, cascade_cli.config\n"
        "sys.exit('cascade_project.portability' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
