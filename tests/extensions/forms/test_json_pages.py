"""The promises of pages of JSON. Modules: `cascade_forms.json_pages`."""

import datetime
import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from cascade.errors import IngestionError
from cascade.ingestion.forms import FetchContext
from cascade.ingestion.rows import to_batches

TZ = pa.timestamp("us", "UTC")
NOON = datetime.datetime(2013, 7, 1, 12, tzinfo=datetime.UTC)


def _rows(*pages: bytes, schema: pa.Schema | None = None) -> list[dict[str, Any]]:
    batches = list(to_batches(iter(pages), schema=schema, policy="additive", context=FetchContext()))
    assert not [batch.rejected for batch in batches if batch.rejected]
    return [row for batch in batches for row in batch.rows.to_pylist()]


PAGES: dict[str, tuple[bytes, list[dict[str, Any]]]] = {
    "list": (b'[{"a": 1, "b": "x"}, {"a": null, "b": "\\u20ac"}]', [{"a": 1, "b": "x"}, {"a": None, "b": "€"}]),
    "lines": (b'{"a": 1}\n{"a": 2}\r\n\n{"a": 3}\n', [{"a": 1}, {"a": 2}, {"a": 3}]),
    "pretty": (b'[\n  {\n    "a": 1\n  },\n  {\n    "a": 2\n  }\n]\n', [{"a": 1}, {"a": 2}]),
    "missing_names": (b'[{"a": 1}, {"b": true}]', [{"a": 1, "b": None}, {"a": None, "b": True}]),
    "ints_and_floats": (b'[{"a": 1}, {"a": 2.5}]', [{"a": 1.0}, {"a": 2.5}]),
    "text_that_looks_like_a_time": (b'[{"a": "2013-07-01"}]', [{"a": "2013-07-01"}]),
    "name_twice": (b'[{"a": 1, "a": 2}]', [{"a": 2}]),
    "nested": (b'[{"a": {"y": [1], "x": "2013-07-01"}}]', [{"a": '{"x": "2013-07-01", "y": [1]}'}]),
    "mixed": (b'[{"a": 1}, {"a": "x"}]', [{"a": "1"}, {"a": "x"}]),
    "huge": (b'[{"a": 18446744073709551617}]', [{"a": "18446744073709551617"}]),
    "more_digits_than_a_float": (b'[{"a": 9007199254740993}, {"a": 1}]', [{"a": 9007199254740993}, {"a": 1}]),
    "empty": (b"[]", []),
    "blank": (b" \n", []),
}


@pytest.mark.parametrize(("page", "expected"), PAGES.values(), ids=PAGES)
def test_a_page_of_json_is_its_objects(page: bytes, expected: list[dict[str, Any]]) -> None:
    assert _rows(page) == expected


DECLARED: dict[str, tuple[bytes, pa.DataType, object]] = {
    "decimal": (b"12345678901234567.89", pa.decimal128(38, 2), Decimal("12345678901234567.89")),
    "decimal_in_text": (b'"12345678901234567.89"', pa.decimal128(38, 2), Decimal("12345678901234567.89")),
    "short_decimal": (b"0.1", pa.decimal128(5, 2), Decimal("0.10")),
    "list_of_decimals": (b"[12345678901234567.89]", pa.list_(pa.decimal128(38, 2)), [Decimal("12345678901234567.89")]),
    "long": (b"9007199254740993", pa.int64(), 9007199254740993),
    "double": (b"0.1", pa.float64(), 0.1),
    "zone": (b'"2013-07-01T14:00:00+02:00"', TZ, NOON),
    "zulu": (b'"2013-07-01T12:00:00.000Z"', TZ, NOON),
    "naive": (b'"2013-07-01 12:00:00"', pa.timestamp("us"), NOON.replace(tzinfo=None)),
    "date": (b'"2013-07-01"', pa.date32(), NOON.date()),
    "struct": (b'{"x": 1}', pa.struct([("x", pa.int64())]), {"x": 1}),
}


@pytest.mark.parametrize("beside", [b"null", b"[18446744073709551617]"], ids=["short", "long"])
@pytest.mark.parametrize(("value", "kind", "expected"), DECLARED.values(), ids=DECLARED)
def test_values_are_what_the_table_declares_to_the_last_digit(
    value: bytes, kind: pa.DataType, expected: object, beside: bytes
) -> None:
    """A page with long numbers is read in another way."""
    page = b'[{"v": %s, "beside": %s}, {"v": null}]' % (value, beside)
    rows = _rows(page, schema=pa.schema([("v", kind), ("beside", pa.string())]))
    assert [row["v"] for row in rows] == [expected, None]


@pytest.mark.parametrize("before", range(9))
def test_a_long_number_is_seen_wherever_it_begins(before: int) -> None:
    page = b'[{"a": "%s", "n": 9223372036854775808, "m": 1234567890123456789}]' % (b"x" * before)
    assert _rows(page) == [{"a": "x" * before, "n": "9223372036854775808", "m": 1234567890123456789}]


def test_pages_whose_columns_differ_make_one_batch() -> None:
    pages = [b'[{"id": 1, "n": null}]', b'[{"n": 2, "id": 2}]', b'[{"id": 3, "n": 0.5, "more": "x"}]']
    (batch,) = to_batches(iter(pages), schema=None, policy="additive", context=FetchContext())
    assert batch.rows.to_pylist() == [
        {"id": 1, "n": None, "more": None},
        {"id": 2, "n": 2.0, "more": None},
        {"id": 3, "n": 0.5, "more": "x"},
    ]


def test_a_long_page_is_cut() -> None:
    page = json.dumps([{"id": n} for n in range(10)]).encode()
    batches = list(to_batches(page, schema=None, policy="additive", context=FetchContext(rows_per_batch=4)))
    assert [batch.rows.num_rows for batch in batches] == [4, 4, 2]


WRONG = {
    "no_json": (b"<html>", "Expecting value", "page 2, line 1, column 1"),
    "one_object": (b'{"data": [{"a": 1}],\n "next": null}', "Expecting property name", "page 2, line 1, column 21"),
    "number": (b"17", "17 is no object", "page 2, object 1"),
    "list_of_numbers": (b"[1, 2]", "1 is no object", "page 2, object 1"),
    "null_row": (b'[{"a": 1}, null]', "None is no object", "page 2, object 2"),
    "list_of_lists": (b"[[1]]", r"\[1\] is no object", "page 2, object 1"),
    "cut": (b'[{"a": 1}, {"a"', "Expecting ':' delimiter", "page 2, line 1, column 16"),
    "cut_line": (b'{"a": 1}\n{"a": ', "Expecting value", "page 2, line 2, column 7"),
    "more_after_it": (b'[{"a": 1}] []', "Extra data", "page 2, line 1, column 12"),
    "name_after_it": (b'[{"a": 1}], "b": [2]', "Extra data", "page 2, line 1, column 11"),
    "latin": (b'[{"a": "\xe9"}]', "not UTF-8", "page 2, line 1, byte 8"),
    "spaces_before": (b'\n\n[{"a": nul}]', "Expecting value", "page 2, line 3, column 8"),
}


@pytest.mark.parametrize(("page", "why", "where"), WRONG.values(), ids=WRONG)
def test_what_is_no_list_of_objects_is_refused_with_its_page_and_place(page: bytes, why: str, where: str) -> None:
    with pytest.raises(IngestionError, match=f"is not a list of objects: .*{why}") as caught:
        _rows(b'[{"a": 0}]', page)
    assert caught.value.where.startswith(where)
