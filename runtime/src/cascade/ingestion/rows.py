"""Turn whatever a fetch function returns into Arrow tables that fit the target's columns."""

from __future__ import annotations

import dataclasses
import math
import os
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
from cascade.ingestion.cast import Values, cast_column, chunked, grown, infer_type, strange, widened
from cascade.ingestion.options import Policy
from cascade.ingestion.text import json_text, shown, snake_case
from cascade.ingestion.values import kind_of
from cascade.names import COLUMN_PREFIX

__all__ = ["Batch", "Policy", "Rejection", "hinted_columns", "to_batches"]


class Rejection(NamedTuple):
    """A row that cannot be loaded: the row as JSON text, and why."""

    row: str
    reasons: list[str]


class Batch(NamedTuple):
    """Some of the fetched rows. Every fetched row is in `rows` or in `rejected`, never in both.

    Attributes:
        rows: The schema's columns in order and type, then the columns that the policy adds.
        rejected: The rows with values that their column cannot hold.
        uncast: These rows once more, with the columns of `rows`: null where the column cannot hold the value.
        extra: The names, as the source has them, of columns that were left out by the policy.
        absent: The schema's columns that the source did not bring.
    """

    rows: pa.Table
    rejected: list[Rejection]
    uncast: pa.Table
    extra: frozenset[str]
    absent: frozenset[str]


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
        IngestionError: Something that is no rows.
    """
    source = _Source(state, rows_per_batch, opened)
    target = _Target(schema, "additive" if schema is None else policy, set(inferred), source.hints)
    for page in _pages(_flatten(fetched, source), rows_per_batch):
        yield target.fit(page)


def hinted_columns(resource: Any) -> dict[str, pa.DataType]:
    """Return the types that the column hints of a dlt resource ask for, by Cascade's column names.

    Args:
        resource: A `DltResource`: `columns=`, a Pydantic model, or what a database said about a table.

    Raises:
        IngestionError: The hints are a function of the rows, which come too late.
    """
    if callable(resource.columns):
        raise IngestionError(
            "The column hints of the dlt resource are a function, which Cascade does not call.",
            where=f"resource `{resource.name}`",
            fix="give the hints as a dict, or declare the columns with `iceberg_schema=`.",
        )
    hints = {snake_case(name): hint for name, hint in (resource.columns or {}).items() if hint.get("data_type")}
    return {name: _hinted_type(hint) for name, hint in hints.items()}


def _hinted_type(hint: Mapping[str, Any]) -> pa.DataType:
    precision, scale = hint.get("precision"), hint.get("scale")
    if hint["data_type"] == "decimal" and precision and scale is not None and 0 <= scale <= precision <= 38:
        return pa.decimal128(precision, scale)
    if hint["data_type"] == "timestamp" and hint.get("timezone") is False:
        return pa.timestamp("us")
    return _HINTED[hint["data_type"]]


# dlt's data types.
_HINTED = {
    "bigint": pa.int64(),
    "binary": pa.binary(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "decimal": pa.decimal128(38, 9),
    "double": pa.float64(),
    "json": pa.string(),
    "text": pa.string(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us", "UTC"),
    "wei": pa.decimal128(38, 0),
}


@dataclass
class _Source:
    """What the parts of a fetched object need: dlt's state, rows per page; and what dlt says about columns."""

    state: dict[str, Any]
    limit: int
    opened: Callable[[Any], object] | None
    hints: dict[str, pa.DataType] = dataclasses.field(default_factory=dict)


@dataclass
class _Page:
    """Some rows, column by column; a name may come twice, as Arrow allows it."""

    height: int
    columns: list[tuple[str, Values]]

    @classmethod
    def of_dicts(cls, rows: list[dict[str, Any]]) -> _Page:
        names = dict.fromkeys(rows[0])
        if not names.keys() >= set().union(*rows):  # later rows have more
            names = dict.fromkeys(chain.from_iterable(rows))
        return cls(len(rows), [(str(name), _take(rows, name)) for name in names])

    @classmethod
    def of_arrow(cls, rows: pa.Table) -> _Page:
        return cls(rows.num_rows, list(zip(rows.column_names, rows.columns, strict=True)))

    @classmethod
    def of_pandas(cls, frame: Any) -> _Page:
        return cls(len(frame), [(str(name), _pandas_values(frame.iloc[:, i])) for i, name in enumerate(frame.columns)])

    def shape(self) -> list[tuple[str, object]]:
        """Pages of one shape can become one page."""
        return [(name, list if isinstance(values, list) else values.type) for name, values in self.columns]

    def row(self, position: int) -> dict[str, Any]:
        def value(values: Values) -> Any:
            return values[position] if isinstance(values, list) else values[position].as_py()

        return {name: value(values) for name, values in self.columns}


def _take(rows: list[dict[str, Any]], name: str) -> list[Any]:
    try:
        return list(map(itemgetter(name), rows))
    except KeyError:
        return [row.get(name) for row in rows]


def _pages(items: Iterator[Any], limit: int) -> Iterator[_Page]:
    """Join neighbours of one kind up to the limit."""
    for kind, run in groupby(items, type):
        if kind is _Page:
            yield from _joined(run, limit)
        else:
            while rows := list(islice(run, limit)):
                yield _Page.of_dicts(rows)
                rows.clear()  # before the next ones are fetched: memory holds one batch of dicts


def _joined(pages: Iterator[_Page], limit: int) -> Iterator[_Page]:
    held: list[_Page] = []
    for page in pages:
        if held and (sum(page.height for page in held) + page.height > limit or page.shape() != held[0].shape()):
            yield _join(held)
            held = []
        held.append(page)
    yield _join(held)


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


def _flatten(fetched: Any, source: _Source) -> Iterator[dict[str, Any] | _Page]:
    """Yield dicts as they are, and frames as pages of at most `limit` rows."""
    if fetched is None:
        return
    if isinstance(fetched, Mapping):
        yield dict(fetched)
        return
    if isinstance(fetched, pa.RecordBatch):
        fetched = pa.Table.from_batches([fetched])
    if isinstance(fetched, pa.Table):
        for start in range(0, fetched.num_rows, source.limit):
            yield _Page.of_arrow(fetched.slice(start, source.limit))
        return
    for module, name, unpack in _UNPACK:
        # A library that is not loaded has made nothing; it is not imported for the question.
        if module in sys.modules and isinstance(fetched, getattr(sys.modules[module], name)):
            fetched = unpack(fetched, source)
            break
    if not isinstance(fetched, Iterable) or isinstance(fetched, str | bytes | bytearray | memoryview):
        kind = f"{type(fetched).__module__}.{type(fetched).__qualname__}"
        raise IngestionError(
            f"The fetch function gave a `{kind}`, which is no rows.",
            where=f"value {shown(fetched)}",
            fix="give dicts, Arrow tables, pandas or polars frames, a dlt resource or source, an iterable of "
            "these, or None for nothing.",
        )
    for item in fetched:
        if type(item) is dict or type(item) is _Page:
            yield item
        else:
            yield from _flatten(item, source)


def _pandas_pages(frame: Any, source: _Source) -> Iterator[_Page]:
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    return (_Page.of_pandas(frame.iloc[start : start + source.limit]) for start in range(0, len(frame), source.limit))


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
        if str(kind) == "Object":  # polars would hand over the addresses of the objects
            raise _unreadable(name, "polars Object")
    return (part.to_arrow() for part in frame.iter_slices(source.limit))


def _unreadable(name: str, kind: object) -> SchemaMismatchError:
    return SchemaMismatchError(
        f"The fetched column `{name}` is of the type {kind}, whose values Cascade cannot read.",
        fix="convert it to text, numbers or another plain type before it is returned.",
    )


def _source_rows(dlt_source: Any, source: _Source) -> Iterator[Any]:
    names = sorted(dlt_source.selected_resources)
    if len(names) == 1:
        return _resource_rows(dlt_source.selected_resources[names[0]], source)
    example = (names or sorted(dlt_source.resources) or ["name"])[0]
    raise IngestionError(
        f"The dlt source selects {len(names)} resources, and a table is filled from one: {_listed(names)}.",
        where=f"source `{dlt_source.name}`, resources {sorted(dlt_source.resources)}",
        fix=f'return `source.with_resources("{example}")`, and an ingestion for each of the others.',
    )


def _resource_rows(resource: Any, source: _Source) -> Iterator[Any]:
    """Open a resource on our state, without a pipeline: dlt keeps an injected state and writes into it."""
    from dlt.common.configuration.container import Container
    from dlt.common.pipeline import StateInjectableContext

    os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
    source.hints.update(hinted_columns(resource))
    if source.opened:
        source.opened(resource)
    with Container().injectable_context(StateInjectableContext(state=source.state)):
        rows = iter(resource)  # holds on to the state from here on
    return map(_without_nan, rows) if _reads_csv(resource) else rows


def _reads_csv(resource: Any) -> bool:
    """Whether dlt's `read_csv` is where the rows come from: pandas has NaN for a cell without text."""
    pipe = resource._pipe
    while pipe is not None:
        if any((getattr(step, "__module__", ""), getattr(step, "__name__", "")) == _READ_CSV for step in pipe.steps):
            return True
        pipe = pipe.parent
    return False


def _without_nan(row: Any) -> Any:
    if not isinstance(row, dict):
        return row
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


_READ_CSV = ("dlt.sources.filesystem.readers", "_read_csv")

# Where the class of a frame or a resource lives, and what gives its parts.
_UNPACK: tuple[tuple[str, str, Callable[[Any, _Source], Iterator[Any]]], ...] = (
    ("polars", "DataFrame", _polars_pages),
    ("polars", "LazyFrame", lambda frame, source: frame.collect_batches(chunk_size=source.limit)),
    ("pandas", "DataFrame", _pandas_pages),
    ("dlt.extract.source", "DltSource", _source_rows),
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
        rejected = [Rejection(json_text(page.row(position)), problems[position]) for position in bad]
        return Batch(rows, rejected, uncast, extra, frozenset(self.fields.keys() - columns.keys()))

    def _match(self, page: _Page) -> tuple[dict[str, Values], frozenset[str]]:
        """Find the column that each name of the source belongs to."""
        columns: dict[str, Values] = {}
        extra: list[str] = []
        for name, values in page.columns:
            if name.startswith(COLUMN_PREFIX):  # rows of another table of ours; this one gets its own
                continue
            if not isinstance(values, list) and (kind := strange(values.type)):
                raise _unreadable(name, kind)
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
                f"The fetched rows have columns that the table does not have: {_listed(extra)}.",
                where=f"columns of the table: {_listed(self.fields)}",
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
        """Make room for more digits; a hint of dlt is what the type is, or the load is refused."""
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


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
