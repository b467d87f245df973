"""What every portable macro, and every one of dbt's that our pages recommend, must give: one list for both engines."""

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

__all__ = ["CASES", "Case"]


@dataclass(frozen=True)
class Case:
    """A query and its rows.

    Attributes:
        name: Names it in a test, and its file.
        sql: The query, with Jinja.
        rows: What it gives, in this order.
    """

    name: str
    sql: str
    rows: list[tuple[Any, ...]]


def _each(macro: str, kind: str, *pairs: tuple[str, Any], null: Any = None) -> tuple[str, list[tuple[Any, ...]]]:
    """Apply a macro to a column `a` of values, and to null."""
    values = ", ".join(f"({i}, cast({literal} as {kind}))" for i, (literal, _) in enumerate([*pairs, ("null", null)]))
    expected = [(expected,) for _, expected in [*pairs, ("null", null)]]
    return (
        f"select v from (select n, {{{{ {macro} }}}} as v from (values {values}) as t(n, a)) as found order by n",
        expected,
    )


def _stamp(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def _utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


_DAY, _STAMP, _INSTANT = "date", "timestamp(6)", "{{ cascade_type_timestamptz() }}"
_EDGE = "'1969-12-31 23:59:59.999600'"

_TIME = {
    "parse_timestamp": _each(
        "cascade_parse_timestamp('a', '%d.%m.%Y %H:%M:%S')",
        "varchar",
        ("'29.02.2024 13:14:15'", _stamp("2024-02-29T13:14:15")),
        ("'29.02.2023 00:00:00'", None),
        ("'1.2.1950 3:4:5'", _stamp("1950-02-01T03:04:05")),
        ("' 29.02.2024 13:14:15 '", _stamp("2024-02-29T13:14:15")),
        ("'29.02.2024 13:14:15 Uhr'", None),
        ("'x'", None),
        ("''", None),
    ),
    "parse_timestamp_words": _each(
        "cascade_parse_timestamp('a', '%b %d %Y %I:%M %p')",
        "varchar",
        ("'Mar 05 2024 12:30 AM'", _stamp("2024-03-05T00:30:00")),
        ("'mar 5 2024 12:30 pm'", _stamp("2024-03-05T12:30:00")),
        ("'Mai 05 2024 01:00 AM'", None),
    ),
    "parse_date": _each(
        "cascade_parse_date('a', '100%% %d/%m/%Y')",
        "varchar",
        ("'100% 29/02/2024'", dt.date(2024, 2, 29)),
        ("'100% 31/04/2024'", None),
        ("'29/02/2024'", None),
    ),
    "parse_iso_timestamp": _each(
        "cascade_parse_iso_timestamp('a')",
        "varchar",
        ("'2024-02-29T10:00:00Z'", _utc("2024-02-29T10:00:00")),
        ("'2024-02-29T10:00:00.123456+02:00'", _utc("2024-02-29T08:00:00.123456")),
        ("'2024-02-29T10:00:00.123456789Z'", _utc("2024-02-29T10:00:00.123456")),
        ("'1969-12-31T23:59:59.999-05:00'", _utc("1970-01-01T04:59:59.999")),
        ("'2024-02-29T10:00'", _utc("2024-02-29T10:00:00")),
        ("'2023-02-29T10:00:00Z'", None),
        ("'2024-02-29T25:00:00Z'", None),
        ("'2024-02-29 10:00:00Z'", None),
        ("'2024-02-29'", None),
        ("''", None),
    ),
    "type_timestamptz": _each(
        "'cast(a as ' ~ cascade_type_timestamptz() ~ ')'",
        "varchar",
        ("'2024-02-29 10:00:00.123456 Europe/Berlin'", _utc("2024-02-29T09:00:00.123456")),
        ("'1969-07-01 00:00:00+00:00'", _utc("1969-07-01T00:00:00")),
    ),
    "format_timestamp": _each(
        "cascade_format_timestamp('a', '%Y-%m-%d %H:%M:%S %I %p %a %A %b %B %j %%')",
        _STAMP,
        ("'2024-03-05 06:07:08.123456'", "2024-03-05 06:07:08 06 AM Tue Tuesday Mar March 065 %"),
        (_EDGE, "1969-12-31 23:59:59 11 PM Wed Wednesday Dec December 365 %"),
        ("'2024-02-29 13:00:00'", "2024-02-29 13:00:00 01 PM Thu Thursday Feb February 060 %"),
    ),
    "format_date": _each("cascade_format_timestamp('a', '%Y-%m')", _DAY, ("'2024-02-29'", "2024-02")),
    "epoch_seconds": _each(
        "cascade_epoch('a')", _STAMP, ("'2024-02-29 10:00:00.9'", 1709200800), (_EDGE, -1), ("'1970-01-01'", 0)
    ),
    "epoch_milliseconds": _each(
        "cascade_epoch('a', 'millisecond')", _STAMP, ("'2024-02-29 10:00:00.123456'", 1709200800123), (_EDGE, -1)
    ),
    "epoch_microseconds": _each(
        "cascade_epoch('a', unit='microsecond')",
        _STAMP,
        ("'2024-02-29 10:00:00.123456'", 1709200800123456),
        (_EDGE, -400),
    ),
    "epoch_of_instant": _each("cascade_epoch('a')", _INSTANT, ("'2024-02-29 10:00:00 America/New_York'", 1709218800)),
    "from_epoch_seconds": _each(
        "cascade_from_epoch('a')",
        "bigint",
        ("1709200800", _utc("2024-02-29T10:00:00")),
        ("-1", _utc("1969-12-31T23:59:59")),
    ),
    "from_epoch_milliseconds": _each(
        "cascade_from_epoch('a', 'millisecond')",
        "bigint",
        ("1709200800123", _utc("2024-02-29T10:00:00.123")),
        ("-999", _utc("1969-12-31T23:59:59.001")),
    ),
    "from_epoch_microseconds": _each(
        "cascade_from_epoch('a', 'microsecond')", "bigint", ("-1", _utc("1969-12-31T23:59:59.999999"))
    ),
    "local_time": _each(
        "cascade_local_time('a', 'America/New_York')",
        _INSTANT,
        ("'2024-03-10 06:59:59 UTC'", _stamp("2024-03-10T01:59:59")),
        ("'2024-03-10 07:00:00 UTC'", _stamp("2024-03-10T03:00:00")),
        ("'2024-11-03 06:30:00.123456 UTC'", _stamp("2024-11-03T01:30:00.123456")),
        ("'1969-12-31 00:00:00 UTC'", _stamp("1969-12-30T19:00:00")),
    ),
    "from_local_time": _each(
        "cascade_from_local_time('a', 'America/New_York')",
        _STAMP,
        ("'2024-03-10 01:59:59'", _utc("2024-03-10T06:59:59")),
        ("'2024-03-10 03:00:00.123456'", _utc("2024-03-10T07:00:00.123456")),
        ("'1969-07-01'", _utc("1969-07-01T04:00:00")),
    ),
    "day_of_week": _each(
        "cascade_day_of_week('a')", _DAY, ("'2024-01-07'", 7), ("'2024-01-08'", 1), ("'1969-12-31'", 3)
    ),
}

_JSON = (
    """'{"a": {"b": "x"}}'""",
    """'{"a": [1, 2]}'""",
    """'{"a": null}'""",
    """'{"a": true}'""",
    """'{"a": "ü😀\\u00e9"}'""",
    """'{"a": ""}'""",
    """'{"a": -12}'""",
    """'{"b": 1}'""",
    """'[1]'""",
    "'nonsense'",
    "''",
)
_ARRAYS = "(select 1 as n, array[1, 2, 3] as a union all select 2, array[1, null] union all select 3, null) as t"


def _arrays(macro: str, *expected: Any) -> tuple[str, list[tuple[Any, ...]]]:
    return f"select v from (select n, {{{{ {macro} }}}} as v from {_ARRAYS}) as found order by n", [
        (v,) for v in expected
    ]


_TEXT = {
    "regexp_like": _each(
        "cascade_regexp_like('a', '^[A-Zé]+$')", "varchar", ("'ABé'", True), ("'abc'", False), ("''", False)
    ),
    "regexp_like_quote": _each("""cascade_regexp_like('a', "it's")""", "varchar", ("'it''s'", True), ("'its'", False)),
    "regexp_extract": _each(
        "cascade_regexp_extract('a', '[äö]+')", "varchar", ("'xäöx'", "äö"), ("'y'", None), ("''", None)
    ),
    "regexp_extract_group": _each(
        r"cascade_regexp_extract('a', 'id=(\\d+)(z)?', 1)", "varchar", ("'id=12 id=3'", "12"), ("'id='", None)
    ),
    "regexp_extract_no_group": _each(
        "cascade_regexp_extract('a', '(b)(z)?', 2)", "varchar", ("'abc'", ""), ("'bz'", "z"), ("'y'", None)
    ),
    "regexp_replace": _each("cascade_regexp_replace('a', '[^0-9]')", "varchar", ("'+1 (2) 3'", "123"), ("''", "")),
    "regexp_replace_groups": _each(
        r"cascade_regexp_replace('a', '(\\w+)@(\\w+)', '\\2 $1 \\1')", "varchar", ("'me@you a@b'", "you $1 me b $1 a")
    ),
    "regexp_replace_backslash": _each(r"cascade_regexp_replace('a', 'x', '\\\\1')", "varchar", ("'axb'", r"a\1b")),
    "json_text": _each(
        "cascade_json_text('a', '$.a')",
        "varchar",
        *zip(_JSON, [None, None, None, "true", "ü😀é", "", "-12", None, None, None, None], strict=True),
    ),
    "json_text_path": _each(
        "cascade_json_text('a', '$.a.b')", "varchar", *zip(_JSON, ["x", *[None] * 10], strict=True)
    ),
    "json_text_element": _each(
        "cascade_json_text('a', '$.a[1]')", "varchar", *zip(_JSON, [None, "2", *[None] * 9], strict=True)
    ),
    "json_text_number": _each(
        "'cast(' ~ cascade_json_text('a', '$.a') ~ ' as double)'",
        "varchar",
        ("""'{"a": 1.50}'""", 1.5),
        ("""'{"a": -1e3}'""", -1000.0),
    ),
    "json_array": _each(
        "cascade_json_array('a', '$.a')",
        "varchar",
        *zip(_JSON, [None, ["1", "2"], *[None] * 9], strict=True),
        ("""'{"a": ["x", 1, null, true]}'""", ["x", "1", None, "true"]),
        ("""'{"a": []}'""", []),
        ("""'{"a": [{"b": 1}]}'""", None),
        ("""'{"a": [[1]]}'""", None),
    ),
    "array_length": _arrays("cascade_array_length('a')", 3, 2, None),
    "array_contains": _arrays("cascade_array_contains('a', 2)", True, False, None),
    "array_contains_null": _arrays("cascade_array_contains('a', 'cast(null as integer)')", None, None, None),
    "array_element": _arrays("cascade_array_element('a', 2)", 2, None, None),
    "array_element_beyond": _arrays("cascade_array_element('a', 9)", None, None, None),
    "array_element_last": _arrays("cascade_array_element('a', -1)", 3, None, None),
    "array_join": _arrays("cascade_array_join('a', ', ')", "1, 2, 3", "1", None),
    "array_transform": _arrays("cascade_array_transform('a', 'x', 'x + 1')", [2, 3, 4], [2, None], None),
    "array_filter": _arrays("cascade_array_filter('a', 'x', 'x > 1')", [2, 3], [], None),
    "array_unnest": (
        f"select n, x from {_ARRAYS} cross join unnest(a) as e(x) order by n, x",
        [(1, 1), (1, 2), (1, 3), (2, 1), (2, None)],
    ),
}

_PAIRS = "(values (1, 7, 2), (2, -7, 2), (3, 7, -2), (4, 7, 0), (5, 0, 5), (6, null, 1)) as t(n, a, b)"
_GROUPS = "(values (1, 1), (1, 2), (1, 10), (1, null), (2, 5), (3, null), (4, -1), (4, 2)) as t(g, a)"
_HUNDRED = "({{ dbt.generate_series(100) }})"
_MANY = f"(select i * 100 + k as x from {_HUNDRED} as a(i) cross join {_HUNDRED} as b(k)) as t"
_VERSIONS = (
    "with versions as (select * from (values (1, 1, 'a'), (1, 2, 'é'), (2, null, 'c'), (2, -1, 'd')) as v(k, o, x))"
)


def _grouped(macro: str, *expected: Any) -> tuple[str, list[tuple[Any, ...]]]:
    return f"select v from (select g, {{{{ {macro} }}}} as v from {_GROUPS} group by g) as found order by g", [
        (v,) for v in expected
    ]


def _pairs(macro: str, *expected: Any) -> tuple[str, list[tuple[Any, ...]]]:
    return f"select v from (select n, {{{{ {macro} }}}} as v from {_PAIRS}) as found order by n", [
        (v,) for v in expected
    ]


_NUMBERS = {
    "is_nan": _each(
        "cascade_is_nan('a')", "double", ("'NaN'", True), ("'Infinity'", False), ("0", False), ("-1.5", False)
    ),
    "is_nan_of_real": _each("cascade_is_nan('a')", "real", ("'NaN'", True), ("0.5", False)),
    "safe_divide": _pairs("cascade_safe_divide('a', 'b')", 3.5, -3.5, -3.5, None, 0.0, None),
    "integer_divide": _pairs("cascade_integer_divide('a', 'b')", 3, -3, -3, None, 0, None),
    "approx_count_distinct": _grouped("cascade_approx_count_distinct('a')", 3, 1, 0, 2),
    "approx_count_distinct_many": (
        f"select abs({{{{ cascade_approx_count_distinct('x') }}}} - 10000) < 1000 as close from {_MANY}",
        [(True,)],
    ),
    "percentile": _grouped("cascade_percentile('a', 0.25)", 1.5, 5.0, None, -0.25),
    "percentile_least": _grouped("cascade_percentile('a', 0)", 1.0, 5.0, None, -1.0),
    "percentile_greatest": _grouped("cascade_percentile('a', 1)", 10.0, 5.0, None, 2.0),
    "median": _grouped("cascade_median('a')", 2.0, 5.0, None, 0.5),
    "approx_percentile": (
        f"select abs({{{{ cascade_approx_percentile('x', 0.9) }}}} - 9100) < 200 as close from {_MANY}",
        [(True,)],
    ),
    "deduplicate": (
        _VERSIONS + " select * from ({{ cascade_deduplicate('versions', 'k', 'o desc') }}) as latest order by k",
        [(1, 2, "é"), (2, -1, "d")],
    ),
    "deduplicate_columns": (
        _VERSIONS
        + ", latest as ({{ cascade_deduplicate('versions', 'k, x', 'o') }}) select x, k from latest order by x",
        [("a", 1), ("c", 2), ("d", 2), ("é", 1)],
    ),
}

_SPANS = {
    "day": (1, 1, -8),
    "week": (0, 0, -2),
    "month": (1, 1, 0),
    "quarter": (0, 1, 0),
    "year": (0, 1, 0),
    "hour": (23, 1, -193),
    "minute": (1322, 1, -11580),
    "second": (79320, 1, -694800),
    "millisecond": (79320000, 1, -694800000),
}
_SPAN_ENDS = (
    "(values (1, timestamp '2024-01-31 10:59:00', timestamp '2024-02-01 09:01:00'),"
    " (2, timestamp '1969-12-31 23:59:59.9996', timestamp '1970-01-01 00:00:00'),"
    " (3, timestamp '2024-03-10 01:00:00', timestamp '2024-03-02 00:00:00'),"
    " (4, cast(null as timestamp), timestamp '2024-03-02 00:00:00')) as t(n, a, b)"
)
_LATER = {
    "millisecond": ("2024-01-31T10:00:00.001", "1970-01-01T00:00:00.000600"),
    "second": ("2024-01-31T10:00:01", "1970-01-01T00:00:00.999600"),
    "hour": ("2024-01-31T11:00:00", "1970-01-01T00:59:59.999600"),
    "day": ("2024-02-01T10:00:00", "1970-01-01T23:59:59.999600"),
    "week": ("2024-02-07T10:00:00", "1970-01-07T23:59:59.999600"),
    "month": ("2024-02-29T10:00:00", "1970-01-31T23:59:59.999600"),
    "quarter": ("2024-04-30T10:00:00", "1970-03-31T23:59:59.999600"),
    "year": ("2025-01-31T10:00:00", "1970-12-31T23:59:59.999600"),
}
_STARTS = {
    "day": ("2024-02-29", "1969-12-31"),
    "week": ("2024-02-26", "1969-12-29"),
    "month": ("2024-02-01", "1969-12-01"),
    "quarter": ("2024-01-01", "1969-10-01"),
    "year": ("2024-01-01", "1969-01-01"),
}
_WORDS = ("'a,b,c'", "''", "'ä😀,b'", "','")
_LISTS = (
    "(values (1, 'x', 'b'), (1, 'y', 'a'), (1, null, 'c'), (2, null, 'a'), (3, 'é', 'a'), (3, '', 'b')) as t(g, a, o)"
)


def _words(macro: str, *expected: Any) -> tuple[str, list[tuple[Any, ...]]]:
    return _each(macro, "varchar", *zip(_WORDS, expected, strict=True))


def _lists(macro: str, *expected: Any) -> tuple[str, list[tuple[Any, ...]]]:
    return f"select v from (select g, {{{{ {macro} }}}} as v from {_LISTS} group by g) as found order by g", [
        (v,) for v in expected
    ]


_DBT = {
    **{
        f"dateadd_{unit}": _each(
            f"dbt.dateadd('{unit}', 1, 'a')", _STAMP, ("'2024-01-31 10:00:00'", _stamp(first)), (_EDGE, _stamp(second))
        )
        for unit, (first, second) in _LATER.items()
    },
    "dateadd_of_date": _each(
        "'cast(' ~ dbt.dateadd('day', -1, 'a') ~ ' as date)'", _DAY, ("'2024-03-01'", dt.date(2024, 2, 29))
    ),
    **{
        f"datediff_{unit}": (
            f"select v from (select n, {{{{ dbt.datediff('a', 'b', '{unit}') }}}} as v from {_SPAN_ENDS}) as f"
            " order by n",
            [*((v,) for v in expected), (None,)],
        )
        for unit, expected in _SPANS.items()
    },
    **{
        f"date_trunc_{unit}": _each(
            f"dbt.date_trunc('{unit}', 'a')", _STAMP, ("'2024-02-29 10:00:00'", _stamp(first)), (_EDGE, _stamp(second))
        )
        for unit, (first, second) in _STARTS.items()
    },
    "date_trunc_of_date": _each(
        "'cast(' ~ dbt.date_trunc('month', 'a') ~ ' as date)'", _DAY, ("'2024-02-29'", dt.date(2024, 2, 1))
    ),
    "last_day": _each(
        "dbt.last_day('a', 'month')",
        _DAY,
        ("'2024-02-01'", dt.date(2024, 2, 29)),
        ("'1969-12-31'", dt.date(1969, 12, 31)),
    ),
    "last_day_quarter": _each("dbt.last_day('a', 'quarter')", _STAMP, ("'2024-02-01'", dt.date(2024, 3, 31))),
    "date": ("select {{ dbt.date(2024, 2, 29) }} as v", [(dt.date(2024, 2, 29),)]),
    "current_timestamp": ("select {{ dbt.current_timestamp() }} > timestamp '2020-01-01 00:00:00' as v", [(True,)]),
    "generate_series": (
        "select generated_number from ({{ dbt.generate_series(3) }}) as s order by 1",
        [(1,), (2,), (3,)],
    ),
    "date_spine": (
        "select date_day from"
        """ ({{ dbt.date_spine('day', "date '2024-02-28'", "date '2024-03-01'") }}) as s order by 1""",
        [(_stamp("2024-02-28"),), (_stamp("2024-02-29"),)],
    ),
    "date_spine_hour": (
        "select date_hour from"
        """ ({{ dbt.date_spine('hour', "timestamp '1969-12-31 23:00:00'", "timestamp '1970-01-01 01:00:00'") }})"""
        " as s order by 1",
        [(_stamp("1969-12-31T23:00:00"),), (_stamp("1970-01-01T00:00:00"),)],
    ),
    "split_part": _words("""dbt.split_part('a', "','", 2)""", "b", None, "b", ""),
    "split_part_first": _words("""dbt.split_part('a', "','", 1)""", "a", "", "ä😀", ""),
    "split_part_last": _words("""dbt.split_part('a', "','", -1)""", "c", "", "b", ""),
    "split_part_beyond": _words("""dbt.split_part('a', "','", -3)""", "a", None, None, None),
    "split_part_long": _each("""dbt.split_part('a', "', '", -1)""", "varchar", ("'a, b, c'", "c")),
    "length": _words("dbt.length('a')", 5, 0, 4, 1),
    "position": _words("""dbt.position("','", 'a')""", 2, 0, 3, 1),
    "right": _words("dbt.right('a', 2)", ",c", "", ",b", ","),
    "right_none": _words("dbt.right('a', 0)", "", "", "", ""),
    "replace": _words("""dbt.replace('a', "','", "'.'")""", "a.b.c", "", "ä😀.b", "."),
    "concat": _words("""dbt.concat(['a', "'x'"])""", "a,b,cx", "x", "ä😀,bx", ",x"),
    "hash": _each(
        "dbt.hash('a')",
        "varchar",
        ("'ä😀,b'", "2ae85244ec000a666fdd448f55ea14c7"),
        ("''", "d41d8cd98f00b204e9800998ecf8427e"),
    ),
    "hash_of_integer": _each("dbt.hash('a')", "integer", ("1", "c4ca4238a0b923820dcc509a6f75849b")),
    "safe_cast": _each(
        "dbt.safe_cast('a', 'integer')", "varchar", ("'12'", 12), ("'-7'", -7), ("'x'", None), ("''", None)
    ),
    "safe_cast_date": _each(
        "dbt.safe_cast('a', 'date')", "varchar", ("'2024-02-29'", dt.date(2024, 2, 29)), ("'2023-02-29'", None)
    ),
    "cast_bool_to_text": _each("dbt.cast_bool_to_text('a')", "boolean", ("true", "true"), ("false", "false")),
    "listagg": _lists("""dbt.listagg('a', "', '", 'order by o')""", "y, x", None, "é, "),
    "listagg_limit": _lists("""dbt.listagg('a', "', '", 'order by o', 1)""", "y", None, "é"),
    "listagg_integers": (
        """select {{ dbt.listagg('x', "','", 'order by x') }} as v from (values (2), (-1)) as t(x)""",
        [("-1,2",)],
    ),
    "listagg_nothing": (f"""select {{{{ dbt.listagg('a', "','") }}}} as v from {_LISTS} where g > 9""", [(None,)]),
    "bool_or": _lists("dbt.bool_or('a = o')", False, None, False),
    "any_value": _lists("dbt.any_value('g')", 1, 2, 3),
    "array_append": ("select {{ dbt.array_append('array[1, 2]', 3) }} as v", [([1, 2, 3],)]),
    "array_concat": ("select {{ dbt.array_concat('array[1]', 'array[2]') }} as v", [([1, 2],)]),
    "array_construct": (
        "select {{ dbt.array_construct([1, 2]) }} as v, {{ dbt.array_construct([]) }} as w",
        [([1, 2], [])],
    ),
    "types": (
        "select cast(1.1 as {{ dbt.type_float() }}) as a, cast(1.1 as {{ dbt.type_numeric() }}) as b,"
        " cast(1 as {{ dbt.type_bigint() }}) as c, cast('é' as {{ dbt.type_string() }}) as d,"
        " cast('1969-12-31 23:59:59.999999' as {{ dbt.type_timestamp() }}) as e, cast(1 as {{ dbt.type_int() }}) as f,"
        " cast(1 as {{ dbt.type_boolean() }}) as g",
        [(1.1, Decimal("1.100000"), 1, "é", _stamp("1969-12-31T23:59:59.999999"), 1, True)],
    ),
    "except": (
        "select x from (values (1), (2), (2), (null)) as t(x) {{ dbt.except() }} select 2 order by 1",
        [(1,), (None,)],
    ),
    "intersect": ("select x from (values (1), (2), (2)) as t(x) {{ dbt.intersect() }} select 2", [(2,)]),
    "string_literal": ("""select {{ dbt.string_literal(dbt.escape_single_quotes("it's")) }} as v""", [("it's",)]),
}

#: Every case; the names of dbt's own macros begin with `dbt_`.
CASES = [
    Case(prefix + name, sql, rows)
    for prefix, group in (("", _TIME), ("", _TEXT), ("", _NUMBERS), ("dbt_", _DBT))
    for name, (sql, rows) in group.items()
]
