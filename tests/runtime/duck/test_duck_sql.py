"""The promises of `cascade.duck.sql`: names and values are what they are in DuckDB's SQL, whatever is in them.

Modules: `cascade.duck.session`.
"""

import datetime as dt
from decimal import Decimal

import duckdb
import pytest

from cascade.duck.sql import Value, identifier, literal, literals


@pytest.mark.parametrize("name", ["order", 'say "hi"', "o'neil", "größe ☂", "a.b"])
def test_a_name_is_one_identifier(name: str) -> None:
    assert duckdb.sql(f"SELECT 1 AS {identifier(name)}").columns == [name]


@pytest.mark.parametrize("value", ["o'neil", 'a "b"', "", 7, Decimal("1.50"), True, dt.date(2024, 2, 29)])
def test_a_value_is_one_literal(value: Value) -> None:
    assert duckdb.sql(f"SELECT {literal(value)}").fetchall() == [(value,)]


def test_several_values_are_a_list() -> None:
    values = ["o'neil", "x"]
    assert duckdb.sql(f"SELECT [{literals(values)}]").fetchall() == [(values,)]
