"""Turn whatever a fetch function returns into Arrow tables that fit the target's columns."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa

from cascade.errors import IngestionError, SchemaMismatchError
from cascade.ingestion.cast import Values, cast_column, infer_type
from cascade.ingestion.options import Policy
from cascade.ingestion.text import json_text, snake_case

__all__ = ["Batch", "Policy", "Rejection", "to_batches"]


class Rejection(NamedTuple):
    """A row that cannot be loaded: the row as JSON text, and why."""

    row: str
    reasons: list[str]


class Batch(NamedTuple):
    """Some of the fetched rows. Every fetched row is in `rows` or in `rejected`, never in both.

    Attributes:
        rows: The schema's columns in order and type, then the columns that the policy adds.
        rejected: The rows with values that their column cannot hold.
        extra: The names, as the source has them, of columns that were left out by the policy.
    """

    rows: pa.Table
    rejected: list[Rejection]
    extra: frozenset[str]


def to_batches(
    fetched: object,
    *,
    schema: pa.Schema | None,
    policy: Policy,
    state: dict[str, Any],
    rows_per_batch: int = 100_000,
) -> Iterator[Batch]:
    """Yield what a fetch function returned as batches that fit the target.

    Args:
        fetched: None, a dict, an Arrow table, batch or reader, a pandas or polars frame, a dlt resource or
            source, or any iterable of these.
        schema: The columns of the target. None: all columns are inferred, each from the first batch that has
            a value for it, and the policy is additive.
        policy: What happens to columns that are not in the schema.
        state: The dlt state. Incremental cursors read it and write into it while the batches are drawn.
        rows_per_batch: Larger frames are cut, smaller pages are joined.

    Raises:
        SchemaMismatchError: Columns that the policy refuses, or two that fall on one name.
        IngestionError: Something that is no rows.
    """
    target = _Target(schema, "additive" if schema is None else policy)
    for page in _pages(_flatten(fetched, state, rows_per_batch), rows_per_batch):
        yield target.fit(page)


@dataclass
class _Page:
    """Some rows, column by column; a name may come twice, as Arrow allows it."""

    height: int
    columns: list[tuple[str, Values]]

    @classmethod
    def of_dicts(cls, rows: list[Mapping[str, Any]]) -> _Page:
        names = dict.fromkeys(rows[0])
        if not names.keys() >= set().union(*rows):  # later rows have more
            names = dict.fromkeys(chain.from_iterable(rows))
        return cls(len(rows), [(str(name), _take(rows, name)) for name in names])

    @classmethod
    def of_arrow(cls, rows: pa.Table) -> _Page:
        return cls(rows.num_rows, list(zip(rows.column_names, rows.columns, strict=True)))

    def joins(self, other: _Page) -> bool:
        """Whether both have the same columns, so that they can become one page."""
        return [_shape(column) for column in self.columns] == [_shape(column) for column in other.columns]

    def row(self, position: int) -> dict[str, Any]:
        def value(values: Values) -> Any:
            return values[position] if isinstance(values, list) else values[position].as_py()

        return {name: value(values) for name, values in self.columns}


_Item: TypeAlias = Mapping[str, Any] | _Page


def _take(rows: list[Mapping[str, Any]], name: str) -> list[Any]:
    try:
        return list(map(itemgetter(name), rows))
    except KeyError:
        return [row.get(name) for row in rows]


def _shape(column: tuple[str, Values]) -> tuple[str, object]:
    return column[0], list if isinstance(column[1], list) else column[1].type


def _join(pages: list[_Page]) -> _Page:
    if len(pages) == 1:
        return pages[0]
    columns: list[tuple[str, Values]] = []
    for position, (name, first) in enumerate(pages[0].columns):
        parts = [page.columns[position][1] for page in pages]
        if isinstance(first, list):
            columns.append((name, list(chain.from_iterable(parts))))
        else:
            chunks = [chunk for part in parts if not isinstance(part, list) for chunk in part.chunks]
            columns.append((name, pa.chunked_array(chunks, first.type)))
    return _Page(sum(page.height for page in pages), columns)


def _pages(items: Iterator[_Item], limit: int) -> Iterator[_Page]:
    """Join neighbours of one kind up to the limit."""
    rows: list[Mapping[str, Any]] = []
    held: list[_Page] = []
    for item in items:
        if not isinstance(item, _Page):
            if held:
                yield _join(held)
                held = []
            rows.append(item)
            if len(rows) >= limit:
                yield _Page.of_dicts(rows)
                rows = []
            continue
        if rows:
            yield _Page.of_dicts(rows)
            rows = []
        if held and (sum(page.height for page in held) + item.height > limit or not item.joins(held[0])):
            yield _join(held)
            held = []
        held.append(item)
    if rows:
        yield _Page.of_dicts(rows)
    if held:
        yield _join(held)


def _flatten(fetched: Any, state: dict[str, Any], limit: int) -> Iterator[_Item]:
    """Yield dicts as they are, and frames as pages of at most `limit` rows."""
    if fetched is None:
        return
    if isinstance(fetched, Mapping):
        yield fetched
        return
    for module, name, unpack in _UNPACK:
        # A library that is not loaded has made nothing; it is not imported for the question.
        if module in sys.modules and isinstance(fetched, getattr(sys.modules[module], name)):
            yield from unpack(fetched, state, limit)
            return
    if not isinstance(fetched, Iterable) or isinstance(fetched, str | bytes | bytearray | memoryview):
        kind = f"{type(fetched).__module__}.{type(fetched).__qualname__}"
        raise IngestionError(
            f"The fetch function gave a `{kind}`, which is no rows.",
            where=f"value {_short(fetched)}",
            fix="give dicts, Arrow tables, pandas or polars frames, a dlt resource or source, an iterable of "
            "these, or None for nothing.",
        )
    for item in fetched:
        if type(item) is dict:
            yield item
        else:
            yield from _flatten(item, state, limit)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _arrow_pages(table: pa.Table, state: dict[str, Any], limit: int) -> Iterator[_Page]:
    for start in range(0, table.num_rows, limit):
        yield _Page.of_arrow(table.slice(start, limit))


def _record_pages(batch: pa.RecordBatch, state: dict[str, Any], limit: int) -> Iterator[_Page]:
    return _arrow_pages(pa.Table.from_batches([batch]), state, limit)


def _polars_pages(frame: Any, state: dict[str, Any], limit: int) -> Iterator[_Page]:
    for part in frame.iter_slices(limit):
        yield _Page.of_arrow(part.to_arrow())


def _lazy_pages(frame: Any, state: dict[str, Any], limit: int) -> Iterator[_Page]:
    for part in frame.collect_batches(chunk_size=limit):
        yield from _polars_pages(part, state, limit)


def _pandas_pages(frame: Any, state: dict[str, Any], limit: int) -> Iterator[_Page]:
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    for start in range(0, len(frame), limit):
        part = frame.iloc[start : start + limit]
        columns = [(str(name), _pandas_values(part.iloc[:, i])) for i, name in enumerate(part.columns)]
        yield _Page(len(part), columns)


def _pandas_values(series: Any) -> Values:
    """A missing value of pandas, NaN included, is null."""
    if series.dtype != object:
        try:
            values = pa.array(series, from_pandas=True)
            return values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
        except (pa.ArrowException, TypeError, ValueError):
            pass
    return [None if missing else value for value, missing in zip(series.tolist(), series.isna(), strict=True)]


def _source_rows(source: Any, state: dict[str, Any], limit: int) -> Iterator[_Item]:
    names = sorted(source.selected_resources)
    if len(names) == 1:
        return _resource_rows(source.selected_resources[names[0]], state, limit)
    example = (names or sorted(source.resources) or ["name"])[0]
    raise IngestionError(
        f"The dlt source selects {len(names)} resources, and a table is filled from one: {_listed(names)}.",
        where=f"source `{source.name}`, resources {sorted(source.resources)}",
        fix=f'return `source.with_resources("{example}")`, and an ingestion for each of the others.',
    )


def _resource_rows(resource: Any, state: dict[str, Any], limit: int) -> Iterator[_Item]:
    """Open a resource on our state, without a pipeline: dlt keeps an injected state and writes into it."""
    from dlt.common.configuration.container import Container
    from dlt.common.pipeline import StateInjectableContext

    os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
    with Container().injectable_context(StateInjectableContext(state=state)):
        opened = iter(resource)  # holds on to the state from here on
    return _flatten(opened, state, limit)


# Where the class of a frame or a resource lives, and what makes rows of it.
_UNPACK: tuple[tuple[str, str, Callable[[Any, dict[str, Any], int], Iterator[_Item]]], ...] = (
    ("pyarrow", "Table", _arrow_pages),
    ("pyarrow", "RecordBatch", _record_pages),
    ("polars", "DataFrame", _polars_pages),
    ("polars", "LazyFrame", _lazy_pages),
    ("pandas", "DataFrame", _pandas_pages),
    ("dlt.extract.source", "DltSource", _source_rows),
    ("dlt.extract.resource", "DltResource", _resource_rows),
)


@dataclass
class _Target:
    """The columns of the target, which grow under the additive policy, and where each comes from."""

    schema: pa.Schema | None
    policy: Policy
    added: dict[str, pa.Field] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.declared: dict[str, pa.Field] = {} if self.schema is None else {f.name: f for f in self.schema}
        self.by_snake: dict[str, str] = {snake_case(name): name for name in reversed(list(self.declared))}

    def fit(self, page: _Page) -> Batch:
        """Cast a page to the columns of the target."""
        columns, extra = self._match(page)
        problems: dict[int, list[str]] = {}
        cast: dict[str, pa.ChunkedArray] = {}
        fields = {**self.declared, **self.added}
        for name, column in fields.items():
            if name not in columns:
                columns[name] = pa.chunked_array([pa.nulls(page.height)])
            cast[name], wrong = cast_column(columns[name], column.type)
            for position, reason in wrong.items():
                problems.setdefault(position, []).append(f"column `{name}`: {reason}")
            if not column.nullable and cast[name].null_count:
                for position, missing in enumerate(cast[name].is_null().to_pylist()):
                    if missing and position not in wrong:
                        problems.setdefault(position, []).append(f"column `{name}`: must not be null")
        if not fields:  # a table without columns cannot hold rows
            problems = {position: ["no column has a value yet"] for position in range(page.height)}
        rows = pa.Table.from_arrays(list(cast.values()), schema=pa.schema(list(fields.values())))
        if problems and fields:
            rows = rows.filter(pa.array([position not in problems for position in range(page.height)]))
        rejected = [Rejection(json_text(page.row(p)), problems[p]) for p in sorted(problems)]
        return Batch(rows, rejected, extra)

    def _match(self, page: _Page) -> tuple[dict[str, Values], frozenset[str]]:
        """Find the column that each name of the source belongs to."""
        columns: dict[str, Values] = {}
        extra: dict[str, Values] = {}
        for name, values in page.columns:
            column = name if name in self.declared else self.by_snake.get(snake_case(name))
            if column is None and self.policy == "additive":
                column = snake_case(name)
                if not self._add(name, column, values):
                    continue
            if column is None:
                extra[name] = values
                continue
            if column in columns or self.sources.setdefault(column, name) != name:
                raise SchemaMismatchError(
                    f"`{self.sources[column]}` and `{name}` are both the column `{column}`.",
                    where=f"fetched columns {[name for name, _ in page.columns]}",
                    fix="rename or leave out one of them before the rows are returned.",
                )
            columns[column] = values
        if extra and self.policy == "strict":
            raise SchemaMismatchError(
                f"The fetched rows have columns that the table does not have: {_listed(extra)}.",
                where=f"columns of the table: {_listed(self.declared)}",
                fix='declare them, or choose `schema_policy="additive"` to add them, `"drop_extra"` to leave them out.',
            )
        return columns, frozenset(extra)

    def _add(self, name: str, column: str, values: Values) -> bool:
        """Give a column that is not declared the type of its first values; without one it has to wait."""
        if not column:
            raise SchemaMismatchError(
                f"A fetched column is called `{name}`, which gives no column name.",
                fix="rename it before the rows are returned.",
            )
        if column not in self.added:
            inferred = infer_type(values)
            if inferred is None:
                return False
            self.added[column] = pa.field(column, inferred)
        return True


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
