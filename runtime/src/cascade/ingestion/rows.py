"""Turn whatever a fetch function returns into Arrow tables that fit the target's columns."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cascade.errors import IngestionError, SchemaMismatchError
from cascade.iceberg.schema import grows, iceberg_type
from cascade.ingestion.cast import (
    Values,
    cast_column,
    chunked,
    compact,
    grown,
    infer_type,
    python_values,
    strange,
    together,
    widened,
)
from cascade.ingestion.dlt_source import hinted_columns, only_resource, resource_rows
from cascade.ingestion.json_pages import read_page
from cascade.ingestion.options import Policy
from cascade.ingestion.text import json_text, listed, record, shown, snake_case
from cascade.ingestion.values import kind_of
from cascade.names import COLUMN_PREFIX

__all__ = ["Batch", "Policy", "to_batches"]

# Dicts that become Arrow at once: so few that the processor's cache holds them.
_PAGE_ROWS = 1000
_BATCH_BYTES = 64 << 20


class Batch(NamedTuple):
    """Some of the fetched rows. Every fetched row is in `rows` or in `rejected`, never in both."""

    rows: pa.Table  # the schema's columns in order and type, then the columns that the policy adds
    rejected: list[tuple[str, list[str]]]  # rows that cannot be loaded, as JSON text, and why
    uncast: pa.Table  # these rows with the columns of `rows`; null where the column cannot hold the value
    extra: frozenset[str]  # names, as the source has them, of columns that the policy left out
    absent: frozenset[str]  # columns of the schema that the source did not bring


def to_batches(
    fetched: object,
    *,
    schema: pa.Schema | None,
    policy: Policy,
    state: dict[str, Any],
    inferred: Collection[str] = (),
    opened: Callable[[Any], object] | None = None,
    rows_per_batch: int = 50_000,
) -> Iterator[Batch]:
    """Yield what a fetch function returned as batches that fit the target.

    Args:
        fetched: None, a dict, an Arrow table, batch or reader, a pandas or polars frame, a dlt resource or
            source, or any iterable of these.
        schema: The columns of the target. None: all columns are inferred, each from the first batch that has
            a value for it, and the policy is additive.
        policy: What happens to columns that are not in the schema.
        state: The dlt state. Incremental cursors read it and write into it while the batches are drawn.
        inferred: Columns of the schema that nobody declared: the table has them from earlier rows, and they
            become wider for these where Iceberg can widen them.
        opened: Called with each dlt resource before it is asked for rows.
        rows_per_batch: Larger frames are cut, smaller pages are joined.

    Raises:
        SchemaMismatchError: Columns that the policy refuses, two that fall on one name, or one whose type is
            not what dlt says.
        IngestionError: A value that cannot be read as rows.
    """
    decimals = any("decimal" in str(field.type) for field in schema or ())
    source = _Source(state, rows_per_batch, opened, decimals)
    target = _Target(schema, "additive" if schema is None else policy, set(inferred), source.hints)
    for page in _joined(_pages(fetched, source), rows_per_batch):
        yield target.fit(page)


@dataclass
class _Source:
    """What the parts of a fetched object need: dlt's state, rows per page; and what dlt says about columns."""

    state: dict[str, Any]
    limit: int
    opened: Callable[[Any], object] | None
    decimals: bool
    hints: dict[str, pa.DataType] = dataclasses.field(default_factory=dict)
    json_pages: int = 0  # so far


class _Page(NamedTuple):
    """Some rows, column by column; a name may come twice, as Arrow and pandas allow it."""

    shape: object  # neighbours of one shape are joined
    height: int
    names: list[Any]
    columns: list[Values]

    def row(self, position: int) -> dict[str, Any]:
        parts = (v[position : position + 1] for v in self.columns)
        values = (part[0] if isinstance(part, list) else python_values(part)[0] for part in parts)
        return dict(zip(map(str, self.names), values, strict=True))


def _joined(pages: Iterable[_Page], limit: int) -> Iterator[_Page]:
    """Join neighbours of one shape up to the limit."""
    for _, run in groupby(pages, attrgetter("shape")):
        held: list[_Page] = []
        height = size = 0
        for page in run:
            if held and height + page.height > limit:
                yield _one_page(held)
                held, height, size = [], 0, 0
            held.append(page)
            height += page.height
            size += sum(values.nbytes for values in page.columns if not isinstance(values, list))
            if height >= limit or size >= _BATCH_BYTES:
                yield _one_page(held)
                held, height, size = [], 0, 0
        if held:
            yield _one_page(held)


def _one_page(pages: list[_Page]) -> _Page:
    if len(pages) == 1:
        return pages[0]
    names, height = pages[0].names, sum(page.height for page in pages)
    parts: list[Sequence[Values]] = [page.columns for page in pages]
    if any(page.names != names for page in pages):  # dicts, whose names differ
        names = list(dict.fromkeys(chain.from_iterable(page.names for page in pages)))
        known = [dict(zip(page.names, page.columns, strict=True)) for page in pages]
        missing = [pa.chunked_array([pa.nulls(page.height)]) for page in pages]
        parts = [[own.get(name, null) for name in names] for own, null in zip(known, missing, strict=True)]
    return _Page(pages[0].shape, height, names, [together(column) for column in zip(*parts, strict=True)])


def _pages(fetched: Any, source: _Source) -> Iterator[_Page]:
    """Yield what was fetched as pages of at most `limit` rows."""
    enough = min(source.limit, _PAGE_ROWS)
    if type(fetched) is list and set(map(type, fetched)) == {dict}:
        yield from (_page_of_dicts(fetched[at : at + enough]) for at in range(0, len(fetched), enough))
        return
    dicts: list[dict[Any, Any]] = []
    for item in _parts(fetched, source):
        row = item if type(item) is dict else _row(item)
        if row is not None:
            dicts.append(row)
            if len(dicts) < enough:
                continue
        if dicts:
            page, dicts = _page_of_dicts(dicts), []
            yield page
        if row is None:
            yield from [item] if isinstance(item, _Page) else _pages(item, source)
    if dicts:
        yield _page_of_dicts(dicts)


def _row(item: Any) -> dict[Any, Any] | None:
    if isinstance(item, Mapping):
        return dict(item)
    return None if isinstance(item, _Page) else record(item)


def _parts(fetched: Any, source: _Source) -> Iterable[Any]:
    """The parts of what was fetched: dicts, pages, or more that has parts."""
    for module, name, unpack in _UNPACK:
        # A library that is not loaded has made nothing; it is not imported for the question.
        if module in sys.modules and isinstance(fetched, getattr(sys.modules[module], name)):
            return unpack(fetched, source)
    if (row := _row(fetched)) is not None:
        return [row]
    if isinstance(fetched, Iterable) and not isinstance(fetched, str):
        return fetched
    kind = f"{type(fetched).__module__}.{type(fetched).__qualname__}"
    raise IngestionError(
        f"The fetch function gave a `{kind}`, which cannot be read as rows.",
        where=f"value {shown(fetched)}",
        fix="give dicts, dataclasses, Arrow tables, pandas or polars frames, a dlt resource or source, JSON as bytes, "
        "an iterable of these, or None for nothing.",
    )


def _page_of_dicts(rows: list[dict[Any, Any]]) -> _Page:
    names = list(rows[0])
    try:
        if sum(map(len, rows)) != len(names) * len(rows):
            raise KeyError
        columns = [list(map(itemgetter(name), rows)) for name in names]
    except KeyError:  # the names differ
        names = list(dict.fromkeys(chain.from_iterable(rows)))
        columns = [[row.get(name) for row in rows] for name in names]
    return _Page(dict, len(rows), names, list(map(compact, columns)))


def _arrow_pages(table: pa.Table, source: _Source) -> Iterator[_Page]:
    for start in range(0, len(table), source.limit):
        part = table.slice(start, source.limit)
        yield _Page(part.schema, len(part), part.column_names, part.columns)


def _pandas_pages(frame: Any, source: _Source) -> Iterator[_Page]:
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index(allow_duplicates=True)
    for start in range(0, len(frame), source.limit):
        part = frame.iloc[start : start + source.limit]
        columns = [_pandas_values(part.iloc[:, i]) for i in range(part.shape[1])]
        yield _Page(list(part.dtypes.items()), len(part), list(part.columns), columns)


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


def _polars_pages(frame: Any, source: _Source) -> Iterator[pa.Table]:
    for name, kind in frame.schema.items():
        # polars would hand over the addresses of objects; Arrow has no such integers.
        if str(kind) in ("Object", "Int128", "UInt128"):
            raise _unreadable_error(name, f"polars {kind}")
    return (part.to_arrow() for part in frame.iter_slices(source.limit))


def _unreadable_error(name: str, kind: object) -> SchemaMismatchError:
    return SchemaMismatchError(
        f"The fetched column `{name}` is of the type {kind}, whose values Cascade cannot read.",
        fix="convert it to text, numbers or another plain type before it is returned.",
    )


def _resource_rows(resource: Any, source: _Source) -> Iterator[Any]:
    source.hints.update(hinted_columns(resource))
    if source.opened:
        source.opened(resource)
    return resource_rows(resource, source.state)


def _json_rows(page: bytes, source: _Source) -> list[dict[str, Any]]:
    source.json_pages += 1
    return read_page(page, source.json_pages, decimals=source.decimals)


# Where the class of what was fetched lives, and what gives its parts.
_UNPACK: tuple[tuple[str, str, Callable[[Any, _Source], Iterable[Any]]], ...] = (
    ("types", "NoneType", lambda _nothing, _source: ()),
    ("builtins", "bytes", _json_rows),
    ("pyarrow", "RecordBatch", lambda batch, _: [pa.Table.from_batches([batch])]),
    ("pyarrow", "Table", _arrow_pages),
    ("pandas", "DataFrame", _pandas_pages),
    ("polars", "DataFrame", _polars_pages),
    ("polars", "LazyFrame", lambda frame, source: frame.collect_batches(chunk_size=source.limit)),
    ("dlt.extract.source", "DltSource", lambda found, source: _resource_rows(only_resource(found), source)),
    ("dlt.extract.resource", "DltResource", _resource_rows),
)


class _Target:
    """The columns of the target, which grow under the additive policy, and where each comes from."""

    def __init__(
        self, schema: pa.Schema | None, policy: Policy, inferred: set[str], hints: Mapping[str, pa.DataType]
    ) -> None:
        self.policy = policy
        self.inferred = inferred
        self.hints = hints
        self.fields: dict[str, pa.Field] = {field.name: field for field in schema or ()}
        self.by_snake = {snake_case(name): name for name in reversed(self.fields)}
        self.sources: dict[str, str] = {}

    def fit(self, page: _Page) -> Batch:
        """Cast a page to the columns of the target."""
        columns, extra = self._match(page)
        missing = pa.chunked_array([pa.nulls(page.height)])
        problems: dict[int, list[str]] = {}
        fitted: list[pa.ChunkedArray] = []
        for name, field in self.fields.items():
            values, wrong = cast_column(columns.get(name, missing), field.type)
            if not field.nullable:
                for position in pc.indices_nonzero(values.is_null()).to_pylist():
                    wrong.setdefault(position, "must not be null")
            for position, reason in wrong.items():
                problems.setdefault(position, []).append(f"column `{name}`: {reason}")
            fitted.append(values)
        rows = pa.Table.from_arrays(fitted, schema=pa.schema(list(self.fields.values())))
        if not fitted:  # a table without columns cannot hold rows
            problems = {position: ["no column has a value yet"] for position in range(page.height)}
        bad = sorted(problems)
        uncast = rows.take(pa.array(bad, pa.int64())) if fitted else rows
        if bad and fitted:
            rows = rows.filter(pa.array([position not in problems for position in range(page.height)]))
        rejected = [(json_text(page.row(position)), problems[position]) for position in bad]
        return Batch(rows, rejected, uncast, extra, frozenset(self.fields.keys() - columns.keys()))

    def _match(self, page: _Page) -> tuple[dict[str, Values], frozenset[str]]:
        """Find the column that each name of the source belongs to."""
        columns: dict[str, Values] = {}
        extra: list[str] = []
        for name, values in zip(map(str, page.names), page.columns, strict=True):
            if name.startswith(COLUMN_PREFIX):  # rows of another table of Cascade; this table gets its own
                continue
            if not isinstance(values, list) and (kind := strange(values.type)):
                raise _unreadable_error(name, kind)
            column = name if name in self.fields else self.by_snake.get(snake_case(name))
            if column is None and self.policy != "additive":
                extra.append(name)
                continue
            column = column or self._add(name, values)
            if column is None:
                continue
            if column in columns or self.sources.setdefault(column, name) != name:
                raise SchemaMismatchError(
                    f"`{self.sources[column]}` and `{name}` are both the column `{column}`.",
                    where=f"fetched columns {page.names}",
                    fix="rename or leave out one of them before the rows are returned.",
                )
            columns[column] = values
            if column in self.inferred:
                self._widen(column, values)
            grown_type, inner = grown(values, self.fields[column].type, name)
            if self.policy == "additive":
                self.fields[column] = self.fields[column].with_type(grown_type)
            else:
                extra += inner
        if extra and self.policy == "strict":
            raise SchemaMismatchError(
                f"The fetched rows have columns that the table does not have: {listed(extra)}.",
                where=f"columns of the table: {listed(self.fields)}",
                fix='declare them, or choose `schema_policy="additive"` to add them, `"drop_extra"` to leave them out.',
            )
        return columns, frozenset(extra)

    def _add(self, name: str, values: Values) -> str | None:
        """Add a column, whose type is that of its first values; without one it has to wait."""
        column = snake_case(name)
        if not column:
            raise SchemaMismatchError(
                f"A fetched column is called {shown(name)}, which gives no column name.",
                fix="rename it before the rows are returned.",
            )
        inferred = self.hints.get(column) or infer_type(values)
        if inferred is None:
            return None
        self.fields[column] = pa.field(column, inferred)
        self.by_snake[column] = column
        self.inferred.add(column)
        return column

    def _widen(self, column: str, values: Values) -> None:
        """Widen a column for more digits; a hint of dlt decides its type, and must not contradict the table."""
        have = self.fields[column].type
        hint = self.hints.get(column)
        if hint is not None and kind_of(hint) != kind_of(have):
            raise SchemaMismatchError(
                f"dlt says that the column `{column}` is {iceberg_type(hint)}, and the table has {iceberg_type(have)}.",
                fix="change the hint, declare the type that the table has with `iceberg_schema=`, or load into a new "
                "table.",
            )
        wider = widened(values, have) if hint is None else hint if grows(hint, have) else have
        self.fields[column] = self.fields[column].with_type(wider)
