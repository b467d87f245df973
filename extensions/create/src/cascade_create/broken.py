"""Rows that break a rule, for the test of a check: the table's contract lets them in, and the check must find them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cascade.config import Settings, use_settings
from cascade.names import MAIN
from cascade_create.render import Raw

if TYPE_CHECKING:
    from cascade.ingestion.contract import Contract

__all__ = ["breaking_rows"]

_Rows = list[dict[str, Any]]
_EDGES: tuple[Any, ...] = (None, "", "?", -1, 0, 1_000_000_000, False, dt.date(1900, 1, 1), dt.date(2999, 1, 1))


def breaking_rows(settings: Settings, table: str, rule: str, arguments: Sequence[Any]) -> _Rows | None:
    """Return rows that a check must find, each with the columns that it needs; None where none are known.

    Args:
        settings: The project's settings.
        table: The table that is checked.
        rule: The rule.
        arguments: Those of the built-in check, or the statement of `sql`.
    """
    contract = _contract(settings, table)
    schema = _schema(settings, table, contract)
    plain = {field.name: _value(field.type) for field in schema}
    needed = {name: plain[name] for name in plain if contract and _is_needed(contract, schema, plain, name)}
    candidates = _by_sql(table, arguments[0], schema, plain) if rule == "sql" else _by_rule(rule, arguments, plain)
    for candidate in candidates:
        rows = [needed | row for row in candidate]
        if contract is None or (rows and not contract.check(_arrow(rows, schema))):
            return [{name: _written(value) for name, value in row.items()} for row in rows]
    return None


def _by_rule(rule: str, arguments: Sequence[Any], plain: Mapping[str, Any]) -> Iterator[_Rows]:
    """Yield rows that a built-in check does not let pass."""
    if rule == "row_count":
        least = int(str(arguments[0]).partition("=")[2])
        column = next(iter(plain), "id")
        if least > 1:
            yield [{column: plain.get(column, number)} for number in range(1, least)][:20]
        return
    columns = arguments if rule in ("not_null", "unique") else arguments[:1]
    row = {column: plain.get(column, "a") for column in columns}
    if rule == "not_null":
        yield [row, {**row, columns[0]: None}]
    elif rule == "unique":
        yield [row, row]
    elif rule == "in_range":
        _, low, high = arguments
        yield [{columns[0]: _beyond(high, 1) if low is None else _beyond(low, -1)}]
    elif rule == "accepted_values":
        values = arguments[1]
        numbers = all(isinstance(value, int | float) for value in values)
        yield [{columns[0]: max(values) + 1 if numbers else f"not {values[0]}"}]
    elif rule == "matches":
        yield from ([{columns[0]: text}] for text in ("?", "", "0", "a") if not re.fullmatch(arguments[1], text))


def _beyond(bound: Any, step: int) -> Any:
    return bound + (dt.timedelta(days=step) if isinstance(bound, dt.date) else step)


def _by_sql(table: str, sql: str, schema: pa.Schema, plain: Mapping[str, Any]) -> Iterator[_Rows]:
    """Yield rows that a statement selects: one value of an ordinary row is replaced by an odd one."""
    import duckdb

    changed = [{**plain, name: value} for name in plain for value in _EDGES]
    with duckdb.connect() as connection:
        candidates: list[_Rows] = [[dict(plain)], *([row] for row in changed), [dict(plain), dict(plain)]]
        for rows in candidates:
            try:
                found = _arrow(rows, schema)
                connection.register("found", found)
                namespace, _, name = table.partition(".")
                connection.execute(f'create schema if not exists "{namespace}"')
                connection.execute(f'create or replace table "{namespace}"."{name}" as from found')
                if connection.execute(sql).fetchall():
                    yield [{name: value for name, value in row.items() if name in sql} for row in rows]
            except (duckdb.Error, pa.ArrowException):
                continue  # another type, or a table that is not there


def _contract(settings: Settings, table: str) -> Contract | None:
    """Return the contract of the workflow that loads a table; None for a table without."""
    from cascade.framework.discovery import discover
    from cascade.ingestion import load_plan
    from cascade.ingestion.contract import contract_of

    with use_settings(settings):
        for item in discover(settings.workflows_path).items:
            keys = getattr(item.value, "keys", ()) if item.kind == "assets" else ()
            if table in {".".join(key.path) for key in keys}:
                try:
                    options = load_plan(item.value, dict.fromkeys(item.value.required_resource_keys)).options
                except (AttributeError, TypeError):  # an asset that loads nothing
                    return None
                return contract_of(options.validation_schema) if options.validation_schema else None
    return None


def _schema(settings: Settings, table: str, contract: Contract | None) -> pa.Schema:
    """Return the columns of a table: those of its contract, or of `main`; empty where it is not known yet."""
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    from cascade.lakehouse import Lakehouse

    lakehouse = Lakehouse(settings, MAIN)
    if contract:
        schema = schema_to_pyarrow(contract.schema, include_field_ids=False)
    elif table in lakehouse.tables():
        schema = schema_to_pyarrow(lakehouse.table(table).schema(), include_field_ids=False)
    else:
        schema = pa.schema([])
    return pa.schema([field for field in schema if not field.name.startswith("_cascade")])


def _is_needed(contract: Contract, schema: pa.Schema, plain: Mapping[str, Any], name: str) -> bool:
    """Say whether a row without this column breaks the contract."""
    return bool(contract.check(_arrow([{**plain, name: None}], schema)))


def _arrow(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{**dict.fromkeys(schema.names), **row} for row in rows], schema=schema)


def _value(kind: pa.DataType) -> Any:
    """Return an ordinary value of a type."""
    tests = {
        pa.types.is_boolean: True,
        pa.types.is_integer: 1,
        pa.types.is_floating: 1.0,
        pa.types.is_decimal: Decimal(1),
        pa.types.is_date: dt.date(2026, 1, 1),
        pa.types.is_timestamp: dt.datetime(2026, 1, 1, tzinfo=dt.UTC if getattr(kind, "tz", None) else None),
        pa.types.is_list: [],
        pa.types.is_large_list: [],
        pa.types.is_string: "a",
        pa.types.is_large_string: "a",
    }
    return next((value for fits, value in tests.items() if fits(kind)), None)


def _written(value: Any) -> Any:
    """Return a value as a test writes it: times and decimals as text, which the workflow's columns take."""
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat()
    return Raw(str(value)) if isinstance(value, Decimal) else value
