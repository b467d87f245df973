"""The promises of `cascade_project.portability.standins`: SQL gives its columns, whatever stands for its tables."""

import duckdb
import pytest
from pyiceberg.types import IntegerType, ListType, LongType, NestedField, StringType, StructType

from cascade.errors import CascadeError
from cascade_project.portability.standins import with_stand_ins

_PART = StructType(NestedField(1, "x", IntegerType()), NestedField(2, "Y z", ListType(3, StringType())))
TABLES = {"silver.a": {"id": LongType(), "Order": StringType(), "part": _PART}}

QUERIES: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "by its own name": ('select a.id from "silver"."a"', [("id", "BIGINT")]),
    "by an alias": ('select b."Order" from "silver"."a" as b', [("Order", "VARCHAR")]),
    "below a name of the model": ('with a as (select * from "silver"."a") select part from a', []),
    "in a subquery": ("select 1 as one where exists (select id from silver.a)", [("one", "INTEGER")]),
    "through an ephemeral model": ('select id + 1 as id from "silver"."between"', [("id", "BIGINT")]),
    "without any": ("select 1 as one", [("one", "INTEGER")]),
}


@pytest.mark.parametrize(("sql", "columns"), QUERIES.values(), ids=QUERIES)
def test_a_stand_in_is_read_in_place_of_the_table(sql: str, columns: list[tuple[str, str]]) -> None:
    inside = {"silver.between": 'select id from "silver"."a"'}
    statement = with_stand_ins(sql, inside, TABLES, "duckdb")
    found = duckdb.sql(statement)
    expected = columns or [("part", 'STRUCT(x INTEGER, "Y z" VARCHAR[])')]
    assert [(name, str(kind)) for name, kind in zip(found.columns, found.types, strict=True)] == expected
    assert found.fetchall() == []


def test_sql_that_cannot_be_read_says_so() -> None:
    with pytest.raises(CascadeError, match="its SQL cannot be read"):
        with_stand_ins("select from from silver.a where", {}, TABLES, "duckdb")
