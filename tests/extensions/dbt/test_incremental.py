"""What a dbt model may ask of its table, and what is refused: one dbt project, run twice, each case a model of its own.

On servers dbt runs on Trino.

Modules: `cascade_dbt.seeds`.
"""

import datetime as dt
import decimal
import json
import re
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest

from cascade.errors import TransformError
from cascade.lakehouse import Lakehouse
from cascade_dbt.limits import problems, require_buildable
from cascade_dbt.project import DBT, dbt_environment, render_profile
from cascade_dbt.targets import target_of
from support.dbt import dbt_project
from support.lakes import Rows, put, read, settings_in

pytestmark = pytest.mark.on_servers("nessie", shared=True)

PROJECT = dbt_project("""\
models: { shop: { +schema: silver, refused: { +tags: refused } } }
seeds:
  shop:
    +schema: raw
    declared: { +column_types: { code: varchar, at: timestamp } }
    spelled: { +column_types: { CODE: varchar } }
    unknown: { +column_types: { cod: varchar } }
    typed: { +column_types: { price: "decimal(10, 2)", day: date, ok: boolean, N: bigint } }
    mistyped: { +column_types: { day: date } }
    rounded: { +column_types: { n: integer } }
    cut: { +column_types: { w: varchar(3) } }
    less_exact: { +column_types: { p: "decimal(10, 2)" } }
    bare: { +column_types: { p: decimal } }
    piped: { +delimiter: "|" }
on-run-start: ["select 1"]
on-run-end: ["select 1"]
""")
# Batches end with the present.
BEGIN = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0) - dt.timedelta(days=1)


def values(columns: str, *rows: str) -> str:
    return f"select * from (values {', '.join(f'({row})' for row in rows)}) as t({columns})"


def model(first: str, second: str | None = None, **config: Any) -> str:
    """Return a model that is incremental, and gives other rows from its second run on."""
    options = {"materialized": "incremental", **config}
    head = "{{ config(" + ", ".join(f"{name}={value!r}" for name, value in options.items()) + ") }}\n"
    if second is None:
        return head + first
    return f"{head}{{% if is_incremental() %}}{second}{{% else %}}{first}{{% endif %}}"


@dataclass
class Case:
    """A model, and what comes of it.

    Attributes:
        sql: The model.
        first: What dbt says of the first run: an empty text for success.
        second: The same of the second run.
        rows: What the table holds in the end; `None`: there is none.
        engines: The engines that it is for.
        table: The table, where it is not called as the model is.
    """

    sql: str
    first: str = ""
    second: str = ""
    rows: list[tuple[Any, ...]] | None = None
    engines: tuple[str, ...] = ("duckdb", "trino")
    table: str = ""


GROUPS = values("id, g", "1, 'a'", "2, 'a'", "3, 'b'")
LATER = values("id, g", "4, 'a'", "5, 'a'", "6, 'c'")
TWICE = values("id, g", "1, 'a'", "2, 'b'", "2, 'c'")
NULLS = values("id, g", "1, 'a'", "2, cast(null as varchar)", "3, cast(null as varchar)")
ONE = values("id, v", "1, 10")
WIDE = "select 2 as id, cast(20 as bigint) as v"
TEXT = "select 2 as id, 'x' as v"
NEW = "select 2 as id, 20 as v, 7 as extra"
RENAMED = "select 2 as id, 20 as w"
BROKEN = values("id, v", "1, 10", "cast(null as integer), 20", "3, -5")
STRUCT = "select 1 as id, {'a': 1, 'b': 2} as s"
NULL = "select 1 as id, null as v"
FULL = r"cascade run --full-refresh --select silver/"

CASES = {
    "replaces_groups": Case(
        model(GROUPS, LATER, incremental_strategy="delete+insert", unique_key="g"),
        rows=[(3, "b"), (4, "a"), (5, "a"), (6, "c")],
    ),
    "refreshed_groups": Case(
        model(GROUPS, incremental_strategy="delete+insert", unique_key="g", full_refresh=True),
        rows=[(1, "a"), (2, "a"), (3, "b")],
    ),
    "replaces_by_two": Case(
        model(GROUPS, LATER, incremental_strategy="delete+insert", unique_key=["g", "id"]),
        rows=[(1, "a"), (2, "a"), (3, "b"), (4, "a"), (5, "a"), (6, "c")],
    ),
    "merges": Case(
        model(GROUPS, values("id, g", "3, 'z'", "4, 'a'"), unique_key="ID"),
        rows=[(1, "a"), (2, "a"), (3, "z"), (4, "a")],
    ),
    "appends_with_a_key": Case(
        model(TWICE, incremental_strategy="append", unique_key="id"),
        rows=[(1, "a"), (1, "a"), (2, "b"), (2, "b"), (2, "c"), (2, "c")],
    ),
    "twice_at_first": Case(model(TWICE, unique_key="id"), r"unique_key id = 2", r"unique_key id = 2"),
    "twice_later": Case(
        model(GROUPS, TWICE, unique_key="id"), second=r"unique_key id = 2", rows=[(1, "a"), (2, "a"), (3, "b")]
    ),
    "null_at_first": Case(
        model(NULLS, incremental_strategy="delete+insert", unique_key="g"),
        r"silver\.null_at_first[\s\S]*without a value in g, a column of unique_key|"
        r"without a value in g, a column of unique_key[\s\S]*silver\.null_at_first",
        r"without a value in g, a column of unique_key: give them one",
    ),
    "null_later": Case(
        model(GROUPS, NULLS, unique_key=["id", "g"]),
        second=r"without a value in g, a column of unique_key",
        rows=[(1, "a"), (2, "a"), (3, "b")],
    ),
    "no_such_key": Case(model(GROUPS, unique_key="nobody"), r"nobody is none of its columns: id, g", r"nobody"),
    "nothing_new": Case(model(ONE, f"{ONE} where id > 5", unique_key="id"), rows=[(1, 10)]),
    "nothing_new_appended": Case(model(ONE, f"{ONE} where id > 5"), rows=[(1, 10)]),
    "nothing_new_replaced": Case(
        model(ONE, f"{ONE} where id > 5", incremental_strategy="delete+insert", unique_key="id"), rows=[(1, 10)]
    ),
    "moves_columns": Case(model(ONE, "select 20 as v, 2 as id"), rows=[(1, 10), (2, 20)]),
    "spells_columns_anew": Case(model(ONE, "select 20 as V, 2 as ID", unique_key="iD"), rows=[(1, 10), (2, 20)]),
    "adds_when_appending": Case(model(ONE, NEW), rows=[(1, 10, None), (2, 20, 7)]),
    "adds_to_groups": Case(
        model(ONE, NEW, incremental_strategy="delete+insert", unique_key="id"), rows=[(1, 10, None), (2, 20, 7)]
    ),
    "renames_in_groups": Case(
        model(
            ONE,
            RENAMED,
            incremental_strategy="delete+insert",
            unique_key="id",
            on_schema_change="sync_all_columns",
        ),
        rows=[(1, None), (2, 20)],
    ),
    "forbids_gone": Case(model(ONE, "select 2 as id", on_schema_change="fail"), second=r"has v, which", rows=[(1, 10)]),
    "narrows": Case(
        model(values("id, v", "1, cast(10 as bigint)"), "select 2 as id, 20 as v"), rows=[(1, 10), (2, 20)]
    ),
    "forbids_narrower": Case(
        model(values("id, v", "1, cast(10 as bigint)"), "select 2 as id, 20 as v", on_schema_change="fail"),
        second=r"changes the type of v from",
        rows=[(1, 10)],
    ),
    "as_view": Case(model(ONE, materialized="view"), rows=[(1, 10)]),
    "reads_ephemeral": Case(model("select id + 1 as id from {{ ref('passing') }}", materialized="table"), rows=[(2,)]),
    "aliased": Case(model(ONE, materialized="table", alias="other_name"), rows=[(1, 10)], table="silver.other_name"),
    "elsewhere": Case(model(ONE, materialized="table", schema="raw"), rows=[(1, 10)], table="raw.elsewhere"),
    "versioned": Case(model(ONE, materialized="table"), rows=[(1, 10)], table="silver.versioned_v1"),
    "reads_version": Case(model("select * from {{ ref('versioned', v=1) }}", materialized="table"), rows=[(1, 10)]),
    "reserved": Case(model(ONE, materialized="table", alias="order"), rows=[(1, 10)], table="silver.order"),
    "odd_columns": Case(
        model(
            'select 1 as "my key", 2 as "select", 3 as "größe"',
            'select 4 as "größe", 1 as "my key", 5 as "select"',
            unique_key="my key",
        ),
        rows=[(1, 5, 4)],
    ),
    "ends_with_a_comment": Case(model(ONE + " -- one", "select 2 as id, 20 as v -- two"), rows=[(1, 10), (2, 20)]),
    "reads_itself": Case(
        model(
            "{% if load_cached_relation(this) %}select id, v + 1 as v from {{ this }}{% else %}" + ONE + "{% endif %}",
            materialized="table",
        ),
        rows=[(1, 11)],
    ),
    "unit_tested": Case(
        model("select id + 1 as id from {{ ref('as_view') }} where v > 1", materialized="table"), rows=[(2,)]
    ),
    "unit_failed": Case(
        model("select id + 1 as id from {{ ref('as_view') }}", materialized="table"), "skipped", "skipped"
    ),
    "warned": Case(model(values("id, v", "1, cast(null as integer)"), materialized="table"), rows=[(1, None)]),
    "after_warning": Case(model("select id from {{ ref('warned') }}", materialized="table"), rows=[(1,)]),
    "tolerated": Case(model(values("id, v", "1, cast(null as integer)"), materialized="table"), rows=[(1, None)]),
    "failed": Case(model(values("id, v", "1, cast(null as integer)"), materialized="table"), rows=[(1, None)]),
    "after_failure": Case(model("select id from {{ ref('failed') }}", materialized="table"), "skipped", "skipped"),
    "adds_by_default": Case(model(ONE, NEW, unique_key="id"), rows=[(1, 10, None), (2, 20, 7)]),
    "ignores": Case(
        model(ONE, NEW + " -- the end", unique_key="id", on_schema_change="ignore"), rows=[(1, 10), (2, 20)]
    ),
    "forbids": Case(
        model(ONE, NEW, unique_key="id", on_schema_change="fail"), second=r"new columns extra", rows=[(1, 10)]
    ),
    "forbids_types": Case(
        model(ONE, WIDE, unique_key="id", on_schema_change="fail"), second=r"changes the type of v from", rows=[(1, 10)]
    ),
    "renames": Case(
        model(ONE, RENAMED, unique_key="id"), second=rf"has v, which the model[\s\S]*{FULL}", rows=[(1, 10)]
    ),
    "renames_ignored": Case(
        model(ONE, RENAMED, unique_key="id", on_schema_change="ignore"), second=r"has v, which", rows=[(1, 10)]
    ),
    "renames_in_step": Case(
        model(ONE, RENAMED, unique_key="id", on_schema_change="sync_all_columns"), rows=[(1, None), (2, 20)]
    ),
    "widens": Case(model(ONE, WIDE, unique_key="id", on_schema_change="sync_all_columns"), rows=[(1, 10), (2, 20)]),
    "changes_type": Case(
        model(ONE, TEXT, unique_key="id", on_schema_change="sync_all_columns"), second=FULL, rows=[(1, 10)]
    ),
    "renames_a_field": Case(
        model(STRUCT, "select 2 as id, {'a': 1, 'c': 2} as s"),
        second=rf"has s\.b, which the model[\s\S]*silver\.renames_a_field[\s\S]*{FULL}",
        rows=[(1, {"a": 1, "b": 2})],
        engines=("duckdb",),
    ),
    "adds_a_field": Case(
        model(STRUCT, "select 2 as id, {'a': 1, 'b': 2, 'c': 3} as s"),
        rows=[(1, {"a": 1, "b": 2, "c": None}), (2, {"a": 1, "b": 2, "c": 3})],
        engines=("duckdb",),
    ),
    "forbids_fields": Case(
        model(STRUCT, "select 2 as id, {'a': 1, 'b': 2, 'c': 3} as s", on_schema_change="fail"),
        second=r"changes the type of s\.c from nothing to int",
        rows=[(1, {"a": 1, "b": 2})],
        engines=("duckdb",),
    ),
    "moves_fields": Case(
        model(STRUCT, "select {'b': 2, 'a': 1} as s, 2 as id", on_schema_change="fail"),
        rows=[(1, {"a": 1, "b": 2}), (2, {"a": 1, "b": 2})],
        engines=("duckdb",),
    ),
    "names_a_column_twice": Case(
        model(ONE, "select 2 as id, 20 as v, 30 as V"),
        second=r"several columns of one name: V, v",
        rows=[(1, 10)],
        engines=("duckdb",),
    ),
    "spells_a_field_anew": Case(
        model("select 1 as id, {'a': 1} as s", "select 2 as id, {'A': 1} as s"),
        second=r"has s\.a, which the model no longer has",
        rows=[(1, {"a": 1})],
        engines=("duckdb",),
    ),
    **{
        name: Case(sql, refused, refused, engines=("duckdb",))
        for name, sql, refused in (
            ("typeless", NULL, r"no type for these columns: `v` \(null\)[\s\S]*silver\.typeless[\s\S]*cast them in"),
            (
                "nested_key",
                model("select [1] as k, 1 as v", unique_key="k"),
                r"`k` is a list<int>, which cannot be a key",
            ),
            ("two_selects", "select 1 as id; select 2 as id", r"SELECT and SELECT[\s\S]*silver\.two_selects"),
            ("writing", "create table kept as select 1 as id", r"is CREATE, and not one SELECT"),
            ("same_names", "select 1 as id, 2 as v, 3 as V", r"several columns of one name: V, v[\s\S]*silver\.same_"),
            ("far_away", "select date 'infinity' as d", r"more than Iceberg can keep[\s\S]*silver\.far_away"),
            (
                "huge",
                "select 170141183460469231731687303715884105727 as n",
                r"more than Iceberg can[\s\S]*silver\.huge",
            ),
        )
    },
    "keeps_contract": Case(model(ONE, ONE, materialized="table", contract={"enforced": True}), rows=[(1, 10)]),
    "breaks_not_null": Case(
        model(BROKEN, materialized="table", contract={"enforced": True}),
        r"without a value in id, against its constraint not_null",
        r"not_null",
    ),
    "breaks_check": Case(
        model(
            ONE,
            values("id, v", "2, -5"),
            incremental_strategy="append",
            contract={"enforced": True},
            on_schema_change="fail",
        ),
        second=r"against the constraint check: v > 0",
        rows=[(1, 10)],
    ),
    "breaks_type": Case(
        model("select 1 as id, 'x' as v", materialized="table", contract={"enforced": True}),
        r"data type mismatch",
        r"data type mismatch",
    ),
    "lacks_a_column": Case(
        model("select 1 as id", materialized="table", contract={"enforced": True}),
        r"missing in definition|missing in contract",
        r"missing in",
    ),
    "less_precise": Case(
        model("select 1 as id, cast(1.234 as decimal(18, 3)) as v", materialized="table", contract={"enforced": True}),
        r"(?i)its column v is decimal\(18,3\), and decimal\(10,2\) in its contract",
        r"(?i)its column v is decimal\(18,3\), and decimal\(10,2\) in its contract",
    ),
    "comments_only": Case(
        model(values("id, v", "1, 10", "1, 10"), materialized="table", contract={"enforced": True}),
        rows=[(1, 10), (1, 10)],
    ),
    "keeps_all": Case(
        model(values("id, v", "1, cast(null as integer)"), materialized="table", contract={"enforced": True}),
        rows=[(1, None)],
    ),
    "breaks_all": Case(
        model(values("id, v", "11, 10"), materialized="table", contract={"enforced": True}),
        r"against the constraint check: id < v",
        r"constraint check",
    ),
    "breaks_a_view": Case(
        model(values("id, v", "11, 10"), materialized="view", contract={"enforced": True}),
        r"against the constraint check: id < v",
        r"constraint check",
    ),
    "hooked_by_macro": Case(
        model(ONE, pre_hook="{{ 'create' }} table kept as select 1 as id"),
        r"hook writes beside the lakehouse: create table kept",
        r"hook writes",
        engines=("duckdb",),
    ),
    "hooked_around": Case(
        model(ONE, materialized="table", pre_hook=["select 1", ""], post_hook="select count(*) from {{ this }}"),
        rows=[(1, 10)],
    ),
    "commented_check": Case(
        model(ONE, materialized="table", contract={"enforced": True}), rows=[(1, 10)], engines=("duckdb",)
    ),
    "hooked_reading": Case(model(ONE, pre_hook="-- look\nselect 1", full_refresh=True), rows=[(1, 10)]),
    **{
        f"by_{kind}": Case(
            model(
                f"select id, at_{kind} from {{{{ ref('days_{kind}') }}}}",
                incremental_strategy="microbatch",
                event_time=f"at_{kind}",
                batch_size="day",
                begin=f"{BEGIN:%Y-%m-%d}",
            )
        )
        for kind in ("date", "timestamp", "timestamptz")
    },
}
BATCHES = {
    "incremental_strategy": "microbatch",
    "event_time": "at_timestamp",
    "batch_size": "day",
    "begin": f"{BEGIN:%Y-%m-%d}",
}
DAYS = "{{ ref('days_timestamp') }}"
# dbt says only in its log why a batch failed.
CASES |= {
    name: Case(model(sql, **BATCHES), "ERROR", "ERROR")
    for name, sql in (
        ("batch_moved", f"select id, at_timestamp + interval '30' hour as at_timestamp from {DAYS}"),
        ("batch_unfiltered", "select id, at_timestamp from {{ source('raw', 'days') }}"),
        ("batch_by_text", f"select id, cast(at_timestamp as varchar) as at_timestamp from {DAYS}"),
        ("batch_without", f"select id from {DAYS}"),
    )
}
CASES["batch_refreshed"] = Case(
    model(f"select id, at_timestamp from {DAYS}", full_refresh=True, **BATCHES).replace(
        f"'{BATCHES['begin']}'", "env_var('SHOP_BEGIN')"
    ),
    rows=[(3, BEGIN.replace(tzinfo=None) + dt.timedelta(days=1))],
    engines=("duckdb",),
)
MICROBATCHES = [name for name in CASES if name.startswith("by_")]
# What is refused before anything runs.
REFUSED = {
    **{
        option: (model(GROUPS, unique_key="id", **{option: ["g"]}), rf"option {option} is not supported")
        for option in ("merge_update_columns", "merge_exclude_columns", "incremental_predicates")
    },
    **{
        option: (model(GROUPS, materialized="table", **{option: value}), rf"option {option} is not supported")
        for option, value in {
            "grants": {"select": ["bi"]},
            "indexes": [{"columns": ["id"]}],
            "partitioned_by": ["id"],
            "sorted_by": ["id"],
            "sql_header": "select 1",
        }.items()
    },
    "overwrites": (model(GROUPS, incremental_strategy="insert_overwrite"), r"'insert_overwrite' is not known"),
    "keyless": (model(GROUPS, incremental_strategy="merge"), r"'merge' needs a unique_key"),
    "keyless_groups": (model(GROUPS, incremental_strategy="delete+insert"), r"'delete\+insert' needs a unique_key"),
    "misspells": (model(ONE, on_schema_change="apend"), r"'apend' is none of ignore, append_new"),
    "hopes": (
        model(ONE, materialized="table", contract={"enforced": True}),
        r"nothing enforces the constraint unique",
    ),
    "outside": (model(ONE, materialized="external"), r"materialized='external' is not kept"),
    "by_name": (model(ONE, materialized="my_own"), r"materialized='my_own' is not kept"),
    "meant": (model(ONE, meta={"cascade": {"alway": True}}), r"means nothing"),
}
REFUSED_ON_DUCKDB = {
    "hooked": (model(ONE, pre_hook="create table kept as select 1 as id"), r"writes beside the lakehouse: create"),
    "hooked_twice": (
        model(ONE, post_hook="select 1; -- so\ndrop table kept"),
        r"writes beside the lakehouse: -- so\ndrop",
    ),
}
PYTHON = "def model(dbt, session):\n    return session.sql('select 1 as id')\n"
COLUMNS = {
    "keeps_contract": [("id", [{"type": "not_null"}]), ("v", [{"type": "check", "expression": "v > 0"}])],
    "breaks_not_null": [("id", [{"type": "not_null"}]), ("v", [])],
    "breaks_check": [("id", []), ("v", [{"type": "check", "expression": "v > 0"}])],
    "commented_check": [("id", []), ("v", [{"type": "check", "expression": "v > 0 -- always"}])],
    "hopes": [("id", [{"type": "unique"}]), ("v", [])],
    "breaks_type": [("id", []), ("v", [])],
    "lacks_a_column": [("id", []), ("v", [])],
    "less_precise": [("id", []), ("v", [])],
    "comments_only": [("id", [{"type": "unique", "warn_unsupported": False}]), ("v", [])],
    "keeps_all": [("id", []), ("v", [])],
    "breaks_all": [("id", []), ("v", [])],
    "breaks_a_view": [("id", []), ("v", [])],
}
TYPES = {("less_precise", "v"): "decimal(10, 2)"}
OF_ALL = [{"type": "check", "expression": "id < v"}, {"type": "not_null", "columns": ["id"]}]
CONSTRAINTS = {"keeps_all": OF_ALL, "breaks_all": OF_ALL, "breaks_a_view": OF_ALL}
TESTS = {
    "warned": {"severity": "warn"},
    "tolerated": {"error_if": ">1", "warn_if": ">1"},
    "failed": {},
}
UNIT_TESTS = {"unit_tested": 8, "unit_failed": 9}
DAY = dt.date(2024, 2, 1)
NOON = dt.datetime(2026, 1, 31, 12)
SEEDS: dict[str, tuple[str, list[tuple[Any, ...]] | str]] = {
    "comments": ("id,t\n1,a\n#2,b\n3,c\n", [("1", "a"), ("#2", "b"), ("3", "c")]),
    "dates": (
        "id,d,t,iso\n1,01/02/2024,01/02/2024 10:00:00,2024-02-01\n",
        [(1, "01/02/2024", "01/02/2024 10:00:00", DAY)],
    ),
    "late": (
        "id,v\n" + "".join(f"{n},{n}\n" for n in range(25_000)) + "25000,x\n",
        [*((n, str(n)) for n in range(25_000)), (25_000, "x")],
    ),
    "gaps": ("id,n,b,d\n1,5,true,2024-02-01\n2,,,\n", [(1, 5, True, DAY), (2, None, None, None)]),
    "words": ("id,w\n1,t\n2,f\n", [(1, "t"), (2, "f")]),
    "nulls": ("id,w\n1,null\n2,NULL\n3,\n4, x \n", [(1, "null"), (2, "NULL"), (3, None), (4, " x ")]),
    "zeros": ("id,zip\n1,007\n2,10\n", [(1, "007"), (2, "10")]),
    "truth": ("id,b\n1,true\n2,FALSE\n", [(1, True), (2, False)]),
    "hours": ("id,at\n1,2026-01-31T12:00\n2,2026-01-31 12:00:00.000\n", [(1, NOON), (2, NOON)]),
    "far_days": ("id,d\n1,2024-02-30\n", [(1, "2024-02-30")]),
    "quoted": ('id,w\r\n1,"a\nb"\r\n2,"say ""hi"", you"', [(1, "a\nb"), (2, 'say "hi", you')]),
    "marked": ("\ufeffid,w\n1,\u00e9\U0001f600\n", [(1, "\u00e9\U0001f600")]),
    "piped": ("id|w\n1|a,b\n", [(1, "a,b")]),
    "nobody": ("id,w\n", []),
    "long": (
        "id,phone,price\n1234567890123456789,+4930,99999999999999.99\n9223372036854775807,5,0.30000000000000004\n",
        [
            (1234567890123456789, "+4930", "99999999999999.99"),
            (9223372036854775807, "5", "0.30000000000000004"),
        ],
    ),
    "floats": ("v\n0.30000000000000004\n-1.50\n1e30\n", [(0.30000000000000004,), (-1.5,), (1e30,)]),
    "declared": (
        "id,code,at\n1,007,2026-01-31 12:00:00\n2,,\n",
        [(1, "007", NOON), (2, None, None)],
    ),
    "typed": (
        "price,day,ok,n\n1.5,2024-02-01,true,007\n",
        [(decimal.Decimal("1.50"), DAY, True, 7)],
    ),
    "spelled": ("id,code\n1,5\n", [(1, "5")]),
    "rounded": ("id,n\n1,5\n2,1.6\n", r"column n: '1\.6' is no integer"),
    "cut": ("id,w\n1,abc\n2,abcd\n", r"column w: 'abcd' is no varchar\(3\)"),
    "less_exact": ("id,p\n1,1.500\n2,1.005\n", r"column p: '1\.005' is no decimal\(10, 2\)"),
    "bare": ("id,p\n1,1.5\n", r"column p: decimal has other digits on each engine"),
    "unknown": ("id,code\n1,007\n", r"its column_types cod is none of its columns: id, code"),
    "mistyped": ("id,day\n1,2024-02-01\n2,x\n", r"column \"day\"|cast to date: x"),
    "ragged": ("id,v\n1,2\n3\n", r"(?i)column"),
    "ragged_more": ("id,v\n1,2\n3,4,5\n", r"(?i)column"),
    "doubled": ("id,v,V\n1,2,3\n", r"several columns of one name: V, v"),
    "doubled_exactly": ("id,v,v\n1,2,3\n", r"several columns of one name"),
}


@dataclass
class Shop:
    """A dbt project that ran twice."""

    lakehouse: Lakehouse
    engine: str
    said: list[dict[str, str]]

    def rows(self, table: str) -> Rows:
        return read(self.lakehouse.catalog, "fix", table)


def build(lakehouse: Lakehouse) -> dict[str, str]:
    """Let dbt build all; return what it says of each model, an empty text for success."""
    settings = lakehouse.settings
    target = settings.data_path / "dbt" / "here"
    branch = lakehouse.ensure_branch()
    places = {"profiles-dir": render_profile(settings), "target-path": target, "log-path": target}
    with dbt_environment(settings, branch, target_of(settings).prepare(lakehouse.catalog, branch, ["silver", "raw"])):
        subprocess.run(
            [
                *DBT,
                "--quiet",
                "--no-use-colors",
                "build",
                "--exclude=tag:refused",
                *(f"--{name}={value}" for name, value in places.items()),
            ],
            cwd=settings.dbt_path,
            stdout=subprocess.DEVNULL,
            check=False,
        )
    results = json.loads((target / "run_results.json").read_text("utf-8"))["results"]
    said = {}
    for result in results:
        kind, _, name, *rest = result["unique_id"].split(".")
        passed = result["status"] in ("success", "pass")
        said[rest[0] if kind == "unit_test" else name] = "" if passed else f"{result['status']}: {result['message']}"
    return said


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    settings = settings_in(folder)
    engine = "duckdb" if settings.engine == "embedded" else "trino"
    files = {
        "dbt_project.yml": PROJECT,
        "models/schema.yml": json.dumps(schema()),
        **{f"models/{name}.sql": case.sql for name, case in CASES.items() if engine in case.engines},
        **{f"models/refused/{name}.sql": sql for name, (sql, _) in refused(engine).items()},
        "models/refused/snake.py": PYTHON,
        "models/passing.sql": "{{ config(materialized='ephemeral') }} select 1 as id",
        **{f"seeds/{name}.csv": text for name, (text, _) in SEEDS.items()},
    }
    for kind in ("date", "timestamp", "timestamptz"):
        files[f"models/days_{kind}.sql"] = (
            f"{{{{ config(event_time='at_{kind}') }}}} select id, at_{kind} from {{{{ source('raw', 'days') }}}}"
        )
    (folder / "pyproject.toml").write_text("[tool.cascade]\n")
    for place, text in files.items():
        path = settings.dbt_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    lakehouse = Lakehouse(settings, "fix")
    days = [BEGIN + dt.timedelta(hours=n) for n in (0, 5, 23, 24)]
    rows = [
        {"id": n, "at_date": day.date(), "at_timestamp": day.replace(tzinfo=None), "at_timestamptz": day}
        for n, day in enumerate(days)
    ]
    put(lakehouse.catalog, "fix", "raw.days", rows)
    said = []
    with pytest.MonkeyPatch.context() as environment:
        for begin in (BEGIN, BEGIN + dt.timedelta(days=1)):
            environment.setenv("SHOP_BEGIN", f"{begin:%Y-%m-%d}")
            said.append(build(lakehouse))
    return Shop(lakehouse, engine, said)


def refused(engine: str) -> dict[str, tuple[str, str]]:
    return REFUSED | REFUSED_ON_DUCKDB if engine == "duckdb" else REFUSED


def schema() -> dict[str, Any]:
    models: list[dict[str, Any]] = [{"name": "versioned", "versions": [{"v": 1, "defined_in": "versioned"}]}]
    for name, columns in COLUMNS.items():
        typed = [
            {"name": c, "data_type": TYPES.get((name, c), "integer"), "constraints": constraints}
            for c, constraints in columns
        ]
        models.append({"name": name, "columns": typed, "constraints": CONSTRAINTS.get(name, [])})
    for name, config in TESTS.items():
        models.append({"name": name, "columns": [{"name": "v", "data_tests": [{"not_null": {"config": config}}]}]})
    unit_tests = [
        {
            "name": f"counts_{name}",
            "model": name,
            "given": [{"input": "ref('as_view')", "rows": [{"id": 7, "v": 5}]}],
            "expect": {"rows": [{"id": expected}]},
        }
        for name, expected in UNIT_TESTS.items()
    ]
    sources = [{"name": "raw", "tables": [{"name": "days"}]}]
    return {"sources": sources, "models": models, "unit_tests": unit_tests}


@pytest.mark.parametrize("name", CASES)
def test_a_model_does_what_dbt_documents_or_is_refused_and_keeps_its_rows(shop: Shop, name: str) -> None:
    case = CASES[name]
    if shop.engine not in case.engines:
        return
    for said, expected in zip((run[name] for run in shop.said), (case.first, case.second), strict=True):
        assert re.search(expected, said) if expected else said == ""
    if name in MICROBATCHES:
        assert [row["id"] for row in shop.rows(f"silver.{name}")] == [0, 1, 2, 3]
        return
    table = case.table or f"silver.{name}"
    there = table in shop.lakehouse.catalog.pointers("fix")
    assert (sorted(tuple(row.values()) for row in shop.rows(table)) if there else None) == case.rows


def test_what_cannot_be_done_is_refused_before_anything_runs(shop: Shop) -> None:
    """All of it at once, each with its file and its remedy."""
    settings = shop.lakehouse.settings
    manifest = json.loads((settings.data_path / "dbt" / "here" / "manifest.json").read_text("utf-8"))
    found = {problem.name: problem for problem in problems(settings, manifest)}
    expected = {name: says for name, (_, says) in refused(shop.engine).items()}
    expected |= {"snake": "written in python, and models are SQL"}
    assert found.keys() == expected.keys()
    for name, says in expected.items():
        assert re.search(says, found[name].what), found[name]
        assert found[name].fix
        assert name in found[name].file
    with pytest.raises(
        TransformError, match=rf"{len(expected)} things[\s\S]*models/refused/outside\.sql: outside: materialized"
    ):
        require_buildable(settings, manifest)


def test_a_test_that_warns_stops_nothing_and_a_unit_test_that_fails_stops_its_model(shop: Shop) -> None:
    for said in shop.said:
        assert said["not_null_warned_v"].startswith("warn: Got 1 result")
        assert said["not_null_tolerated_v"] == said["counts_unit_tested"] == ""
        assert said["not_null_failed_v"].startswith("fail: Got 1 result")
        assert "actual differs from expected" in said["counts_unit_failed"]


@pytest.mark.parametrize("name", ["replaces_groups", "merges", "widens", "by_date"])
def test_an_incremental_run_is_one_snapshot(shop: Shop, name: str) -> None:
    expected = 4 if name == "by_date" else 2  # two days, twice
    assert len(shop.lakehouse.table(f"silver.{name}").snapshots()) == expected


@pytest.mark.parametrize("name", SEEDS)
def test_a_seed_is_what_its_file_says(shop: Shop, name: str) -> None:
    """Nothing of a line is taken for a comment or for null, and what is written otherwise than its type is text."""
    expected, said = SEEDS[name][1], shop.said[1][name]
    if isinstance(expected, str):
        assert re.search(expected, said)
        assert f"raw.{name}" not in shop.lakehouse.catalog.pointers("fix")
        return
    assert said == ""
    assert sorted(map(str, shop.rows(f"raw.{name}"))) == sorted(map(str, _as_rows(shop, name, expected)))


def _as_rows(shop: Shop, name: str, expected: list[tuple[Any, ...]]) -> Rows:
    names = shop.lakehouse.table(f"raw.{name}").schema().column_names
    return [dict(zip(names, row, strict=True)) for row in expected]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("batch_moved", "3 rows whose at_timestamp is not in their batch"),
        ("batch_unfiltered", "1 rows whose at_timestamp is not in their batch"),
        ("batch_by_text", "event_time `at_timestamp` is string"),
        ("batch_without", "event_time `at_timestamp` is none of its columns"),
    ],
)
def test_a_batch_whose_rows_would_be_added_again_is_refused(shop: Shop, name: str, why: str) -> None:
    log = (shop.lakehouse.settings.data_path / "dbt" / "here" / "dbt.log").read_text("utf-8")
    if shop.engine == "duckdb":
        assert re.search(rf"{why}[^\n]*\s+where: model silver\.{name}", log)
    elif "rows" in why:
        assert f"silver.{name}: it has {why}" in log
