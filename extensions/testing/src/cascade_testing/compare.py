"""Compare the rows of a table with those that a test expects, and say the difference in a way that can be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from cascade.ingestion.cast import cast_column

__all__ = ["difference"]


def difference(found: pa.Table, expected: Sequence[Mapping[str, Any]]) -> str:
    """Say how rows differ from the expected ones, in the columns that these name; empty when they do not.

    The order of rows does not count. An expected value may be written as a source would send it: `"2013-07-01"` is a
    date where the column is one. Of floating-point numbers the first nine digits count.

    Args:
        found: The rows of a table.
        expected: Rows as column to value; all name the same columns.
    """
    columns = list(dict.fromkeys(name for row in expected for name in row))
    if missing := [name for name in columns if name not in found.column_names]:
        return f"there is no column {', '.join(missing)}; there are {', '.join(found.column_names)}"
    wanted: dict[str, list[Any]] = {}
    for name in columns:
        values = [row.get(name) for row in expected]
        cast, failed = cast_column(pa.array(values), found.schema.field(name).type)
        wanted[name] = values if failed else cast.to_pylist()
    here = _counted(found.select(columns).to_pydict(), found.num_rows)
    there = _counted(wanted, len(expected))
    differ = {"missing": there - here, "unexpected": here - there}
    return "\n".join(
        f"{what}: {', '.join(f'{name}={value}' for name, value in zip(columns, row, strict=True)) or 'a row'}"
        for what, rows in differ.items()
        for row in rows.elements()
    )


def _counted(columns: Mapping[str, list[Any]], rows: int) -> Counter[tuple[str, ...]]:
    """Count rows by their values as text, which also those have that Python cannot count."""
    return Counter(zip(*(map(_text, column) for column in columns.values()), strict=True) if columns else [()] * rows)


def _text(value: Any) -> str:
    return repr(float(f"{value:.9g}")) if isinstance(value, float) else repr(value)
