"""Data frames of pandas and polars as rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from cascade.ingestion.cast import Values, chunked
from cascade.ingestion.forms import FetchContext, Page, unreadable

__all__ = ["lazy_polars_pages", "pandas_pages", "polars_pages"]


def pandas_pages(frame: Any, context: FetchContext) -> Iterator[Page]:
    """Yield the rows of a frame of pandas; an index with a name is a column."""
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index(allow_duplicates=True)
    for start in range(0, len(frame), context.rows_per_batch):
        part = frame.iloc[start : start + context.rows_per_batch]
        columns = [_pandas_values(part.iloc[:, i]) for i in range(part.shape[1])]
        yield Page(list(part.dtypes.items()), len(part), list(part.columns), columns)


def _pandas_values(series: Any) -> Values:
    """A missing value of pandas, NaN included, is null."""
    if series.dtype != object:
        try:
            values = chunked(pa.array(series, from_pandas=True))
            if not isinstance(values.type, pa.BaseExtensionType):  # periods and intervals say more than their storage
                return values
        except (pa.ArrowException, TypeError, ValueError):
            pass
    return [None if missing else value for value, missing in zip(series.tolist(), series.isna(), strict=True)]


def polars_pages(frame: Any, context: FetchContext) -> Iterator[pa.Table]:
    """Yield the rows of a frame of polars."""
    for name, kind in frame.schema.items():
        # polars would hand over the addresses of objects; Arrow has no such integers.
        if str(kind) in ("Object", "Int128", "UInt128"):
            raise unreadable(name, f"polars {kind}")
    return (part.to_arrow() for part in frame.iter_slices(context.rows_per_batch))


def lazy_polars_pages(frame: Any, context: FetchContext) -> Iterable[Any]:
    """Return the rows of a lazy frame of polars as frames, without holding all of them."""
    batches: Iterable[Any] = frame.collect_batches(chunk_size=context.rows_per_batch)
    return batches
