"""Turn whatever a fetch function returns into Arrow tables that fit the target's columns."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cascade.errors import IngestionError, SchemaMismatchError
from cascade.iceberg.schema import grows, iceberg_type
from cascade.ingestion.cast import Values, cast_column, chunked, grown, infer_type, python_values, strange, widened
from cascade.ingestion.dlt_source import hinted_columns, only_resource, resource_rows
from cascade.ingestion.options import Policy
from cascade.ingestion.text import json_text, listed, record, shown, snake_case
from cascade.ingestion.values import kind_of
from cascade.names import COLUMN_PREFIX

__all__ = ["Batch", "Policy", "to_batches"]


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
        inferred: Columns of the schema that nobody declared: the table has them from earlier rows, and they
            become wider for these where Iceberg can widen them.
        opened: Called with each dlt resource before it is asked for rows.
        rows_per_batch: Larger frames are cut, smaller pages are joined.

    Raises:
        SchemaMismatchError: Columns that the policy refuses, two that fall on one name, or one whose type is
            not what dlt says.
        IngestionError: A value that cannot be read as rows.
    """
    source = _Source(state, rows_per_batch, opened)
    target = _Target(schema, "additive" if schema is None else policy, set(inferred), source.hints)
    for page in _pages(_flatten(fetched, source), rows_per_batch):
        yield target.fit(page)


@dataclass
class _Source:
    """What the parts of a fetched object need: dlt's state, rows per page; and what dlt says about columns."""

    state: dict[str, Any]
    limit: int
    opened: Callable[[Any], object] | None
    hints: dict[str, pa.DataType] = dataclasses.field(default_factory=dict)


class _Page(NamedTuple):
    """Some rows, column by column; a name may come twice, as Arrow and pandas allow it."""

    height: int
    columns: list[tuple[str, Values]]

    def row(self, position: int) -> dict[str, Any]:
        return {
            n: v[position] if isinstance(v, list) else python_values(v[position : position + 1])[0]
            for n, v in self.columns
        }


def _page_of_dicts(rows: list[dict[str, Any]]) -> _Page:
    names = dict.fromkeys(rows[0])
    if not names.keys() >= set().union(*rows):  # later rows have more
        names = dict.fromkeys(chain.from_iterable(rows))
    return _Page(len(rows), [(str(name), _take(rows, name)) for name in names])


def _take(rows: list[dict[str, Any]], name: str) -> list[Any]:
    try:
        return list(map(itemgetter(name), rows))
    except KeyError:
        return [row.get(name) for row in rows]


def _page_of_frames(frames: list[Any]) -> _Page:
    if isinstance(frames[0], pa.Table):
        table = pa.concat_tables(frames)
        return _Page(table.num_rows, list(zip(table.column_names, table.columns, strict=True)))
    frame = frames[0] if len(frames) == 1 else sys.modules["pandas"].concat(frames)
    return _Page(len(frame), [(str(name), _pandas_values(frame.iloc[:, i])) for i, name in enumerate(frame.columns)])


def _shape(frame: Any) -> object:
    return frame.schema if isinstance(frame, pa.Table) else list(frame.dtypes.items())


def _pages(items: Iterator[Any], limit: int) -> Iterator[_Page]:
    """Join neighbours of one shape up to the limit."""
    for kind, run in groupby(items, type):
        if kind is dict:
            while rows := list(islice(run, limit)):
                yield _page_of_dicts(rows)
                rows.clear()  # before the next ones are fetched: memory holds one batch of dicts
            continue
        for _, frames in groupby(run, _shape):
            held: list[Any] = []
            for frame in frames:
                if held and sum(map(len, held)) + len(frame) > limit:
                    yield _page_of_frames(held)
                    held = []
                held.append(frame)
            yield _page_of_frames(held)


def _flatten(fetched: Any, source: _Source) -> Iterator[Any]:
    """Yield dicts as they are, and Arrow tables and pandas frames of at most `limit` rows."""
    if fetched is None:
        return
    row = fetched if isinstance(fetched, Mapping) else record(fetched)
    if row is not None:
        yield dict(row)
        return
    if isinstance(fetched, pa.RecordBatch):
        fetched = pa.Table.from_batches([fetched])
    if isinstance(fetched, pa.Table):
        yield from (fetched.slice(start, source.limit) for start in range(0, fetched.num_rows, source.limit))
        return
    if "pandas" in sys.modules and isinstance(fetched, sys.modules["pandas"].DataFrame):
        if any(name is not None for name in fetched.index.names):
            fetched = fetched.reset_index(allow_duplicates=True)
        yield from (fetched.iloc[start : start + source.limit] for start in range(0, len(fetched), source.limit))
        return
    for module, name, unpack in _UNPACK:
        # A library that is not loaded has made nothing; it is not imported for the question.
        if module in sys.modules and isinstance(fetched, getattr(sys.modules[module], name)):
            fetched = unpack(fetched, source)
            break
    if not isinstance(fetched, Iterable) or isinstance(fetched, str | bytes | bytearray | memoryview):
        kind = f"{type(fetched).__module__}.{type(fetched).__qualname__}"
        raise IngestionError(
            f"The fetch function gave a `{kind}`, which cannot be read as rows.",
            where=f"value {shown(fetched)}",
            fix="give dicts, dataclasses, Arrow tables, pandas or polars frames, a dlt resource or source, an iterable "
            "of these, or None for nothing.",
        )
    for item in fetched:
        if type(item) is dict:
            yield item
        else:
            yield from _flatten(item, source)


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


# Where the class of a frame or a resource lives, and what gives its parts.
_UNPACK: tuple[tuple[str, str, Callable[[Any, _Source], Iterator[Any]]], ...] = (
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
        for name, values in page.columns:
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
                    where=f"fetched columns {[name for name, _ in page.columns]}",
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
                f"A fetched column is called `{name}`, which gives no column name.",
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
