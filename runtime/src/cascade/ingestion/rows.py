"""Turn whatever a fetch function returns into Arrow tables that fit the target's columns."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cascade.errors import IngestionError, SchemaMismatchError
from cascade.iceberg.schema import grows, iceberg_type
from cascade.ingestion.cast import Values, cast_column, compact, grown, infer_type, strange, together, widened
from cascade.ingestion.forms import FORMS, FetchContext, Page, class_names, form_of, unreadable
from cascade.ingestion.options import Policy
from cascade.ingestion.text import json_text, listed, record, shown, snake_case
from cascade.ingestion.values import kind_of
from cascade.names import COLUMN_PREFIX
from cascade.plugins import installed

__all__ = ["FETCHED", "Batch", "Policy", "to_batches"]

FETCHED = logging.getLogger(__name__)  # told of the rows of each page, at the level DEBUG
# Dicts that become Arrow at once: so few that the processor's cache holds them.
_PAGE_ROWS = 1000
_BATCH_BYTES = 64 << 20
# Iterating over these gives no rows, or loses the source's cursor: only a form knows what they hold.
_ONLY_AS_FORMS = frozenset(
    ("builtins.str", "builtins.bytes", "dlt.DltResource", "dlt.DltSource", "pandas.DataFrame", "polars.DataFrame")
)


class Batch(NamedTuple):
    """Some of the fetched rows. Every fetched row is in `rows` or in `rejected`, never in both."""

    rows: pa.Table  # the schema's columns in order and type, then the columns that the policy adds
    rejected: list[tuple[str, list[str]]]  # rows that cannot be loaded, as JSON text, and why
    uncast: pa.Table  # these rows with the columns of `rows`; null where the column cannot hold the value
    extra: frozenset[str]  # names, as the source has them, of columns that the policy left out
    absent: frozenset[str]  # columns of the schema that the source did not bring


def to_batches(
    fetched: object, *, schema: pa.Schema | None, policy: Policy, context: FetchContext, inferred: Collection[str] = ()
) -> Iterator[Batch]:
    """Yield what a fetch function returned as batches that fit the target.

    Args:
        fetched: None, a dict, an Arrow table, batch or reader, an object of a form that a package brings, or any
            iterable of these.
        schema: The columns of the target. None: all columns are inferred, each from the first batch that has
            a value for it, and the policy is additive.
        policy: What happens to columns that are not in the schema.
        context: What forms may know of the load; sources read their state there, and replace it.
        inferred: Columns of the schema that nobody declared: the table has them from earlier rows, and they
            become wider for these where Iceberg can widen them.

    Raises:
        SchemaMismatchError: Columns that the policy refuses, two that fall on one name, or one whose type is
            not what the source states.
        IngestionError: A value that cannot be read as rows.
    """
    context.decimals = any("decimal" in str(field.type) for field in schema or ())
    target = _Target(schema, "additive" if schema is None else policy, set(inferred), context.types)
    for page in _joined(_pages(fetched, context), context.rows_per_batch):
        yield target.fit(page)


def _joined(pages: Iterable[Page], limit: int) -> Iterator[Page]:
    """Join neighbours of one shape up to the limit."""
    for _, run in groupby(pages, attrgetter("shape")):
        held: list[Page] = []
        height = size = 0
        for page in run:
            FETCHED.debug("%s rows", page.height)
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


def _one_page(pages: list[Page]) -> Page:
    if len(pages) == 1:
        return pages[0]
    names, height = pages[0].names, sum(page.height for page in pages)
    parts: list[Sequence[Values]] = [page.columns for page in pages]
    if any(page.names != names for page in pages):  # dicts, whose names differ
        names = list(dict.fromkeys(chain.from_iterable(page.names for page in pages)))
        known = [dict(zip(page.names, page.columns, strict=True)) for page in pages]
        missing = [pa.chunked_array([pa.nulls(page.height)]) for page in pages]
        parts = [[own.get(name, null) for name in names] for own, null in zip(known, missing, strict=True)]
    return Page(pages[0].shape, height, names, [together(column) for column in zip(*parts, strict=True)])


def _pages(fetched: Any, context: FetchContext) -> Iterator[Page]:
    """Yield what was fetched as pages of at most `limit` rows."""
    enough = min(context.rows_per_batch, _PAGE_ROWS)
    parts = _parts(fetched, context)
    if type(parts) is list and set(map(type, parts)) == {dict}:
        yield from (_page_of_dicts(parts[at : at + enough]) for at in range(0, len(parts), enough))
        return
    dicts: list[dict[Any, Any]] = []
    for item in parts:
        row = item.copy() if type(item) is dict else _row(item)  # a source may fill one dict again and again
        if row is not None:
            dicts.append(row)
            if len(dicts) < enough:
                continue
        if dicts:
            page, dicts = _page_of_dicts(dicts), []
            yield page
        if row is None:
            yield from [item] if isinstance(item, Page) else _pages(item, context)
    if dicts:
        yield _page_of_dicts(dicts)


def _row(item: Any) -> dict[Any, Any] | None:
    return dict(item) if isinstance(item, Mapping) else None if isinstance(item, Page) else record(item)


def _parts(fetched: Any, context: FetchContext) -> Iterable[Any]:
    """The parts of what was fetched: dicts, pages, or more that has parts."""
    if fetched is None:
        return ()
    if isinstance(fetched, pa.RecordBatch):
        fetched = pa.Table.from_batches([fetched])
    if isinstance(fetched, pa.Table):
        return _arrow_pages(fetched, context.rows_per_batch)
    if (form := form_of(fetched)) is not None:
        return form(fetched, context)
    if (row := _row(fetched)) is not None:
        return [row]
    names = class_names(type(fetched))
    if isinstance(fetched, Iterable) and _ONLY_AS_FORMS.isdisjoint(names):
        return fetched
    known = ", ".join(record.name for record in installed(FORMS)) or "none"
    raise IngestionError(
        f"The fetch function gave a `{type(fetched).__module__}.{type(fetched).__qualname__}`, which cannot be read "
        "as rows.",
        where=f"value {shown(fetched)}",
        fix="give dicts, dataclasses, Arrow tables, an iterable of these, or None for nothing; or install the package "
        f"that brings the form `{names[0]}` ({FORMS}); installed are {known}.",
    )


def _page_of_dicts(rows: list[dict[Any, Any]]) -> Page:
    names = list(rows[0])
    try:
        if sum(map(len, rows)) != len(names) * len(rows):
            raise KeyError
        columns = [list(map(itemgetter(name), rows)) for name in names]
    except KeyError:  # the names differ
        names = list(dict.fromkeys(chain.from_iterable(rows)))
        columns = [[row.get(name) for row in rows] for name in names]
    return Page(dict, len(rows), names, list(map(compact, columns)))


def _arrow_pages(table: pa.Table, limit: int) -> Iterator[Page]:
    for start in range(0, len(table), limit):
        part = table.slice(start, limit)
        yield Page(part.schema, len(part), part.column_names, part.columns)


class _Target:
    """The columns of the target, which grow under the additive policy, and where each comes from."""

    def __init__(
        self, schema: pa.Schema | None, policy: Policy, inferred: set[str], types: Mapping[str, pa.DataType]
    ) -> None:
        self.policy = policy
        self.inferred = inferred
        self.types = types
        self.fields: dict[str, pa.Field] = {field.name: field for field in schema or ()}
        self.by_snake = {snake_case(name): name for name in reversed(self.fields)}
        self.sources: dict[str, str] = {}

    def fit(self, page: Page) -> Batch:
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

    def _match(self, page: Page) -> tuple[dict[str, Values], frozenset[str]]:
        """Find the column that each name of the source belongs to."""
        columns: dict[str, Values] = {}
        extra: list[str] = []
        for name, values in zip(map(str, page.names), page.columns, strict=True):
            if name.startswith(COLUMN_PREFIX):  # rows of another table of Cascade; this table gets its own
                continue
            if not isinstance(values, list) and (kind := strange(values.type)):
                raise unreadable(name, kind)
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
        inferred = self.types.get(column) or infer_type(values)
        if inferred is None:
            return None
        self.fields[column] = pa.field(column, inferred)
        self.by_snake[column] = column
        self.inferred.add(column)
        return column

    def _widen(self, column: str, values: Values) -> None:
        """Widen a column for more digits; a type that the source states decides, and must not contradict the table."""
        have = self.fields[column].type
        stated = self.types.get(column)
        if stated is not None and kind_of(stated) != kind_of(have):
            raise SchemaMismatchError(
                f"The source says that `{column}` is {iceberg_type(stated)}, and the table has {iceberg_type(have)}.",
                where=f"column `{column}`",
                fix="change what the source says, declare the table's type with `iceberg_schema=`, or load into a new "
                "table.",
            )
        wider = widened(values, have) if stated is None else stated if grows(stated, have) else have
        self.fields[column] = self.fields[column].with_type(wider)
