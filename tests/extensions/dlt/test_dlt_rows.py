"""The promises of dlt's sources and resources as rows: every kind of them, their cursors, and hints of columns.

Modules: `cascade_dlt.rows`.
"""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
import pytest
from dlt.sources import DltResource

from cascade.errors import IngestionError, SchemaMismatchError
from cascade.ingestion.forms import FetchContext
from cascade.ingestion.rows import Batch, to_batches
from cascade_dlt.hints import hinted_columns

NOON = datetime(2013, 7, 1, 12)
TZ = pa.timestamp("us", "UTC")
NAIVE = pa.timestamp("us")
SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string())])
ROWS = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "c"}]


def _batches(
    fetched: object, schema: pa.Schema | None = SCHEMA, context: FetchContext | None = None, **more: Any
) -> list[Batch]:
    return list(to_batches(fetched, schema=schema, policy="strict", context=context or FetchContext(), **more))


def _rows(fetched: object, schema: pa.Schema | None = SCHEMA) -> list[dict[str, Any]]:
    batches = _batches(fetched, schema)
    assert not [batch.rejected for batch in batches if batch.rejected]
    return [row for batch in batches for row in batch.rows.to_pylist()]


@pytest.mark.parametrize("schema", [SCHEMA, None], ids=["declared", "inferred"])
@pytest.mark.parametrize("items", [ROWS, [pa.Table.from_pylist(ROWS)]], ids=["dicts", "Arrow"])
def test_rows_of_a_resource_are_loaded(items: list[Any], schema: pa.Schema | None) -> None:
    assert _rows(dlt.resource(items, name="rows"), schema) == ROWS


def test_a_state_that_says_the_same_is_the_same_text() -> None:
    """dlt keeps the rows with the newest cursor as a set, whose order is another one in each process."""

    def state(rows: list[dict[str, Any]]) -> str:
        @dlt.resource(name="events")
        def events(at: Any = dlt.sources.incremental("at")) -> Iterator[list[dict[str, Any]]]:  # noqa: B008
            yield rows

        context = FetchContext()
        _batches(events, pa.schema([("id", pa.int64()), ("at", pa.int64())]), context)
        return context.state

    rows = [{"id": n, "at": 7} for n in range(20)]
    found = {state(rows), state(rows[::-1]), state(rows[5:] + rows[:5])}
    assert len(found) == 1
    [source] = json.loads(found.pop())["sources"].values()
    hashes = source["resources"]["events"]["incremental"]["at"]["unique_hashes"]
    assert len(hashes) == 20
    assert hashes == sorted(hashes)


def test_an_error_inside_a_resource_is_told_as_itself() -> None:
    """dlt wraps it in one that says where it was in its pipes."""

    @dlt.resource
    def broken() -> Iterator[Any]:
        yield ROWS[0]
        raise RuntimeError("the source is away")

    with pytest.raises(RuntimeError, match="the source is away"):
        _batches(broken)


def _events(upto: int) -> DltResource:
    @dlt.resource(name="events")
    def events(at: Any = dlt.sources.incremental("id", initial_value=0)) -> Iterator[list[dict[str, Any]]]:  # noqa: B008
        yield [{"id": n, "name": str(n)} for n in range(1, upto + 1)]

    return events


@dlt.source(name="shop")
def _shop(upto: int) -> list[DltResource]:
    events = _events(upto)

    @dlt.transformer(data_from=events, name="details")
    def details(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for row in rows:
            yield {"id": row["id"], "name": f"detail {row['id']}"}

    return [events, details]


@pytest.mark.parametrize(
    ("fetch", "prefix"),
    [
        (_events, ""),
        (lambda n: _shop(n).with_resources("events"), ""),
        (lambda n: _shop(n).with_resources("details"), "detail "),
        (lambda n: _shop(n).resources["details"], "detail "),
    ],
    ids=["resource", "source", "source_of_transformer", "transformer"],
)
def test_an_incremental_cursor_lives_in_the_given_state(fetch: Any, prefix: str) -> None:
    context = FetchContext()
    first = [row for batch in _batches(fetch(2), context=context) for row in batch.rows.to_pylist()]
    assert context.state
    again = FetchContext(state=context.state)  # as the commit keeps it
    second = [row for batch in _batches(fetch(4), context=again) for row in batch.rows.to_pylist()]
    assert first == [{"id": n, "name": f"{prefix}{n}"} for n in (1, 2)]
    assert second == [{"id": n, "name": f"{prefix}{n}"} for n in (3, 4)]
    assert _batches(fetch(4), context=again) == []


HINTS: dict[str, tuple[dict[str, Any], object, pa.DataType, object]] = {
    "numeric": ({"data_type": "decimal", "precision": 10, "scale": 2}, 12.5, pa.decimal128(10, 2), Decimal("12.50")),
    "numeric_of_ints": ({"data_type": "decimal", "precision": 5, "scale": 2}, 12, pa.decimal128(5, 2), Decimal(12)),
    "decimal": ({"data_type": "decimal"}, Decimal("12.5"), pa.decimal128(38, 9), Decimal("12.5")),
    "too_many_digits": ({"data_type": "decimal", "precision": 50, "scale": 2}, 1, pa.decimal128(38, 9), Decimal(1)),
    "wei": ({"data_type": "wei"}, 10**30, pa.decimal128(38, 0), Decimal(10**30)),
    "bigint": ({"data_type": "bigint"}, 5, pa.int64(), 5),
    "timestamp": ({"data_type": "timestamp"}, "2013-07-01T12:00Z", TZ, NOON.replace(tzinfo=UTC)),
    "naive": ({"data_type": "timestamp", "timezone": False}, "2013-07-01T12:00", NAIVE, NOON),
    "date": ({"data_type": "date"}, "2013-07-01", pa.date32(), NOON.date()),
    "text": ({"data_type": "text"}, 5, pa.string(), "5"),
    "json": ({"data_type": "json"}, [{"a": 1}], pa.string(), '[{"a": 1}]'),
    "double": ({"data_type": "double"}, 5, pa.float64(), 5.0),
    "no_value_yet": ({"data_type": "bool"}, None, pa.bool_(), None),
    "no_type": ({"nullable": False}, 5, pa.int64(), 5),
}


@pytest.mark.parametrize(("hint", "value", "kind", "stored"), HINTS.values(), ids=HINTS)
def test_a_column_hint_of_dlt_is_the_type_of_an_undeclared_column(
    hint: Any, value: object, kind: pa.DataType, stored: object
) -> None:
    resource = dlt.resource([{"theX": value, "y": 1}], name="r", columns={"theX": hint})
    (batch,) = _batches(resource, None)
    assert batch.rows.schema == pa.schema([("the_x", kind), ("y", pa.int64())])
    assert batch.rows["the_x"].to_pylist() == [stored]


def test_what_a_database_or_a_pydantic_model_says_are_hints(tmp_path: Path) -> None:
    import sqlalchemy as sa
    from dlt.sources.sql_database import sql_table
    from pydantic import BaseModel

    class Customer(BaseModel):
        credit: Decimal

    engine = sa.create_engine(f"sqlite:///{tmp_path}/shop.db")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE customers (credit numeric(10, 2))")
    engine.dispose()
    table = sql_table(engine, table="customers", reflection_level="full_with_precision")
    assert hinted_columns(table) == {"credit": pa.decimal128(10, 2)}
    assert hinted_columns(dlt.resource([], name="r", columns=Customer)) == {"credit": pa.decimal128(38, 9)}


def test_a_hint_widens_what_the_table_has_and_another_kind_is_refused() -> None:
    hint: Any = {"x": {"data_type": "decimal", "precision": 10, "scale": 2}}
    narrow = pa.schema([("x", pa.decimal128(5, 2))])
    (batch,) = _batches(dlt.resource([{"x": 1}], columns=hint, name="r"), narrow, inferred={"x"})
    assert batch.rows.schema.field("x").type == pa.decimal128(10, 2)
    (batch,) = _batches(dlt.resource([{"x": 1}], columns=hint, name="r"), narrow)
    assert batch.rows.schema == narrow  # declared
    with pytest.raises(SchemaMismatchError, match=r"`x` is decimal\(10, 2\), and the table has string"):
        _batches(dlt.resource([{"x": 1}], columns=hint, name="r"), pa.schema([("x", pa.string())]), inferred={"x"})


def test_hints_that_are_a_function_are_refused() -> None:
    with pytest.raises(IngestionError, match="are a function"):
        _batches(dlt.resource(ROWS, name="r", table_name=lambda row: "t", columns=lambda row: {}))


@pytest.mark.parametrize("more", [lambda r: r, lambda r: r.with_name("visits"), lambda r: r.add_map(lambda row: row)])
def test_an_empty_cell_of_a_csv_is_null(tmp_path: Path, more: Any) -> None:
    from dlt.sources.filesystem import filesystem, read_csv

    (tmp_path / "a.csv").write_text("id,name,weight\n1,a,\n2,,3.5\n")
    rows = more(filesystem(bucket_url=tmp_path.as_uri(), file_glob="*.csv") | read_csv())
    assert _rows(rows, None) == [{"id": 1, "name": "a", "weight": None}, {"id": 2, "name": None, "weight": 3.5}]


def test_nan_that_a_resource_yields_itself_stays(tmp_path: Path) -> None:
    assert math.isnan(_rows(dlt.resource([{"x": math.nan}], name="read_csv"), None)[0]["x"])


def test_a_source_of_several_resources_asks_which_one_is_meant() -> None:
    with pytest.raises(IngestionError, match=r"selects 2 resources.*`details`, `events`") as caught:
        _batches(_shop(1))
    assert '.with_resources("details")' in caught.value.fix


def test_two_resources_drawn_in_turns_keep_their_states_apart() -> None:
    kept = [FetchContext(rows_per_batch=1) for _ in range(2)]
    streams = [
        to_batches(_events(upto), schema=SCHEMA, policy="strict", context=one)
        for upto, one in zip((2, 5), kept, strict=True)
    ]
    assert [next(stream).rows.num_rows for stream in streams] == [1, 1]
    assert [len([*stream]) for stream in streams] == [1, 4]
    assert ["2" in kept[0].state, "5" in kept[1].state, kept[0].state != kept[1].state] == [True] * 3
