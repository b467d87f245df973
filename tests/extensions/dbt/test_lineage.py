"""Which columns a column is computed from is read from the SQL of both engines, and nothing is guessed.

Modules: `cascade_dbt.events`, in test_transform.py.
"""

import pytest

from cascade.errors import TransformError
from cascade_dbt.lineage import column_lineage, columns_from

INPUTS = {
    "raw.orders": ["id", "customer_id", "Amount", "tags", "at"],
    "raw.customers": ["id", "name", "select"],
}
ORDERS, CUSTOMERS = 'iceberg."raw"."orders"', '"dev"."raw"."customers"'
EACH = {name.lower(): {f"raw.orders.{name}"} for name in INPUTS["raw.orders"]}
CASES = {
    "names and expressions": (
        f"select id as order_id, amount * 2 as twice, count(*) as n, 1 as one from {ORDERS} group by 1, 2",
        {"order_id": {"raw.orders.id"}, "twice": {"raw.orders.Amount"}, "n": set(), "one": set()},
    ),
    "a star": (f"select * from {ORDERS}", EACH),
    "a join": (
        f"select o.*, upper(c.name) || cast(o.amount as varchar) as label from {ORDERS} as o"
        f" left join {CUSTOMERS} as c on c.id = o.customer_id",
        {**EACH, "label": {"raw.customers.name", "raw.orders.Amount"}},
    ),
    "common table expressions, as of ephemeral models": (
        "with __dbt__cte__a as"
        f" (select *, row_number() over (partition by customer_id order by at) as rn from {ORDERS})"
        ' select id, rn as "Rank" from (select id, rn from __dbt__cte__a where rn = 1) as b',
        {"id": {"raw.orders.id"}, "rank": {"raw.orders.at", "raw.orders.customer_id"}},
    ),
    "a union": (
        f"select id, name from {CUSTOMERS} union all select id, cast(amount as varchar) from {ORDERS}",
        {"id": {"raw.customers.id", "raw.orders.id"}, "name": {"raw.customers.name", "raw.orders.Amount"}},
    ),
    "a subquery that is a value": (
        f"select id, (select max(name) from {CUSTOMERS} as c where c.id = o.customer_id) as who from {ORDERS} as o",
        {"id": {"raw.orders.id"}, "who": {"raw.customers.name"}},
    ),
    "names that are words of SQL": (f'select "select" as s from {CUSTOMERS}', {"s": {"raw.customers.select"}}),
    "lists": (
        f"select id, tag from {ORDERS} cross join unnest(tags) as t(tag)",
        {"id": {"raw.orders.id"}, "tag": {"raw.orders.tags"}},
    ),
    "recursion": (
        f"with recursive r as (select id, customer_id from {ORDERS} union all"
        f" select r.id, o.customer_id from r join {ORDERS} as o on o.id = r.customer_id) select * from r",
        {"id": {"raw.orders.id"}, "customer_id": {"raw.orders.customer_id"}},
    ),
    "a table that is not told": (
        f"select a.x, o.id from elsewhere.a as a cross join {ORDERS} as o",
        {"x": set(), "id": {"raw.orders.id"}},
    ),
    "a column that may be of several tables": (
        f"select o.id, z from {ORDERS} as o cross join elsewhere.a cross join elsewhere.b",
        {"id": {"raw.orders.id"}},
    ),
}


@pytest.mark.parametrize("dialect", ["duckdb", "trino"])
@pytest.mark.parametrize(("sql", "expected"), CASES.values(), ids=CASES)
def test_a_column_is_traced_to_the_tables_through(sql: str, expected: dict[str, set[str]], dialect: str) -> None:
    found = column_lineage(sql, dialect, INPUTS)
    assert {column: {f"{table}.{one}" for table, one in pairs} for column, pairs in found.items()} == expected


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("selec from", "its SQL cannot be read: ParseError"),
        ("select 1 as a; select 2 as b", "its SQL cannot be read: SqlglotError"),
        ("select * from elsewhere.a", "a `*` of columns that are not known"),
    ],
)
def test_sql_that_cannot_be_read_is_told(sql: str, says: str) -> None:
    with pytest.raises(TransformError, match="SQL") as refused:
        column_lineage(sql, "duckdb", INPUTS)
    assert says in refused.value.what


CHAIN = {
    "silver.clean": f"select id, amount * 2 as twice, customer_id from {ORDERS}",
    "silver.named": f"select c.id, upper(c.name) as name from {CUSTOMERS} as c where c.id > 0",
    "gold.sums": "select customer_id, sum(twice) as total, count(*) as n from silver.clean group by 1",
    "marts.top": "with best as (select customer_id, max(total) as best from gold.sums group by 1)"
    " select b.customer_id, n.name, b.best from best as b join silver.named as n on n.id = b.customer_id",
    "marts.torn": "selec from gold.sums",
    "marts.after": "select x from marts.torn",
}
READS = {
    "silver.clean": {"raw.orders"},
    "silver.named": {"raw.customers"},
    "gold.sums": {"silver.clean"},
    "marts.top": {"gold.sums", "silver.named"},
    "marts.torn": {"gold.sums"},
    "marts.after": {"marts.torn"},
}
COLUMNS = {
    **INPUTS,
    "silver.clean": ["id", "twice", "customer_id"],
    "silver.named": ["id", "name"],
    "gold.sums": ["customer_id", "total", "n"],
    "marts.torn": ["x"],
}
TORN = ("marts.torn.*", "marts.after.x")


@pytest.mark.parametrize("dialect", ["duckdb", "trino"])
@pytest.mark.parametrize(
    ("table", "column", "expected"),
    [
        ("raw.orders", "Amount", ("silver.clean.twice", "gold.sums.total", "marts.top.best", *TORN)),
        ("raw.customers", "name", ("silver.named.name", "marts.top.name")),
        ("raw.orders", "tags", ()),
        ("gold.sums", "n", TORN),  # that SQL cannot be read may hide a column
        ("marts.top", "best", ()),
    ],
)
def test_a_column_is_followed_to_all_that_come_from_it(
    table: str, column: str, expected: tuple[str, ...], dialect: str
) -> None:
    def lineage(name: str) -> dict[str, tuple[tuple[str, str], ...]]:
        return column_lineage(CHAIN[name], dialect, {read: COLUMNS[read] for read in READS[name]})

    assert columns_from(table, column, READS, lineage) == expected
