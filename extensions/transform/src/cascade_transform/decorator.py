"""The decorator `@cascade_transform`: a function of tables becomes an ingestion that reads them on its branch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

import dagster as dg

from cascade.config import current_settings
from cascade.duck.sql import identifier
from cascade.errors import DefinitionError
from cascade.ingestion import cascade_ingestion
from cascade.ingestion.connector import options_of
from cascade.ingestion.options import Options
from cascade.ingestion.partitions import definition_of, refusal
from cascade.ingestion.slices import rows_of
from cascade.names import INGESTED_AT_COLUMN, PARTITION_COLUMN
from cascade.options import known_options
from cascade.plugins import get_transformation

if TYPE_CHECKING:
    import pyarrow as pa

    from cascade.lakehouse import Lakehouse

__all__ = ["cascade_transform"]

Transform = Callable[..., object]
# Makes rows of tables, by the names of parameters or of tables, and of the function's other arguments.
_Compute = Callable[[Mapping[str, Any], Mapping[str, Any]], object]

# In which form a parameter gets a table: by the library and the name of its annotation.
_FORMS: Mapping[str, Callable[[Any], Any]] = {
    "pyarrow.Table": lambda table: table,
    "pandas.DataFrame": lambda table: table.to_pandas(),
    "polars.DataFrame": lambda table: _polars().from_arrow(table),
    "polars.LazyFrame": lambda table: _polars().from_arrow(table).lazy(),
    "duckdb.DuckDBPyRelation": lambda table: _duckdb().from_arrow(table),
}
# Names of `write` for ingestion: rows of a table that is made of others belong to partitions, or to the whole.
_WRITES = {"replace": "replace_partition", "merge": "merge", "append": "append"}
# What is said by this decorator itself, or makes no sense for it.
_NOT_HANDED_ON = {
    *("table_name", "namespace", "unique_key", "write", "partitions", "order_by", "deps"),
    *("source", "options"),
}
_MORE = sorted({field.name for field in fields(Options)} - _NOT_HANDED_ON)


@known_options
def cascade_transform(
    *,
    table: str,
    reads: Sequence[str],
    key: str | Sequence[str] | None = None,
    write: str | None = None,
    partitions: Any = "none",
    transformation: str | None = None,
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> Callable[[Transform], dg.AssetsDefinition]:
    """Define an asset whose function makes a table of other tables, as one commit on the run's branch.

    The function has one parameter for each table that it reads, named as the table (`weather_hourly`) or with its
    namespace (`silver__weather_hourly`). It gets the rows as its annotation says: `pa.Table` (also without one),
    `pd.DataFrame`, `pl.DataFrame`, `pl.LazyFrame` or `duckdb.DuckDBPyRelation`, and returns rows in one of these
    forms, or dicts. Its other parameters are those of an ingestion: `partition_dates`, `context`, resources.
    Rows are cast, checked, set aside and written as those of `@cascade_ingestion`, on the branch of the run.

    Args:
        table: The table that is made, `namespace.table`.
        reads: The tables that are read, `namespace.table`: of ingestions, models, seeds, and other transformations.
        key: Column or columns that name a row.
        write: `replace`: the table holds what the function returns, with partitions those of the run; `merge`: rows
            replace those with their key; `append`: they are added. `merge` with a key, else `replace`.
        partitions: What one run fills, as for an ingestion; none by default. With partitions the function gets, of
            each table that has the column `partition_column`, the rows of the run's partitions, and others whole.
        transformation: Name of an installed plugin that makes the rows. The function then has no parameters for tables,
            and returns nothing, or options beside `options`.
        options: What the plugin is asked for, by the names of its options.
        more: `partition_column`, `validation_schema`, `iceberg_schema`, `on_invalid`, `group`, `cron` and all other
            options of `@cascade_ingestion`; nothing is repeated unless `max_retries` says so.

    Raises:
        DefinitionError: An option is unknown, a table has no parameter, or options contradict each other.
    """

    def define(function: Transform) -> dg.AssetsDefinition:
        where = f"@cascade_transform on `{getattr(function, '__name__', function)}`"
        said_wrong = refusal(partitions)
        definition = None if said_wrong else definition_of(partitions, current_settings(), more.get("cron"))
        problems = [*_problems(table, reads, key, write, more, partitioned=definition is not None)]
        problems += [said_wrong] if said_wrong else []
        if transformation is None and options is not None:
            problems.append("options are those of a plugin: name it as transformation")
        taken = _taken(function, reads, problems) if transformation is None else {}
        if problems:
            raise DefinitionError("; ".join(problems) + ".", where=where, fix="correct the options.")
        namespace, _, name = table.partition(".")
        compute: _Compute = lambda tables, given: function(**tables, **given)  # noqa: E731
        if transformation is not None:
            taken = {read: (read, "pyarrow.Table") for read in reads}
            compute = _by_plugin(function, transformation, options or {})
        fetch = _fetch(function, compute, taken, definition, more.get("partition_column"))
        said = {"unique_key": key, "write": _WRITES[write or ("merge" if key else "replace")], "max_retries": 0}
        return cascade_ingestion(
            table_name=name, namespace=namespace, deps=reads, partitions=partitions, **cast("Any", said | more)
        )(fetch)

    return define


def _problems(
    table: str,
    reads: Sequence[str],
    key: object,
    write: str | None,
    more: Mapping[str, Any],
    *,
    partitioned: bool,
) -> Iterator[str]:
    """Name what is wrong beyond what an ingestion refuses."""
    if isinstance(reads, str) or not reads:
        yield f'reads={reads!r} must be a list of tables, such as ["silver.weather_hourly"]'
        return
    if write not in (None, *_WRITES):
        yield f"write={write!r} is not one of {', '.join(_WRITES)}"
    if write == "merge" and not key:
        yield 'write="merge" needs key'
    if partitioned and "partition_column" not in more:
        yield "partitions need partition_column, which says what belongs to which partition"
    for name in more.keys() - set(_MORE):
        yield f"there is no option {name}; beside table, reads, key, write and partitions there are {', '.join(_MORE)}"


def _taken(function: Transform, reads: Sequence[str], problems: list[str]) -> dict[str, tuple[str, str]]:
    """Return for each parameter that takes a table the table and the form; what does not fit becomes a problem."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, TypeError) as error:
        problems.append(f"an annotation of its parameters cannot be resolved: {error}")
        return {}
    parameters, taken = signature.parameters, {}
    for read in () if isinstance(reads, str) else reads:
        # The longer name tells tables of two namespaces apart that have one name.
        names = (read.replace(".", "__"), read.rpartition(".")[2])
        found = next((name for name in names if name in parameters and name not in taken), None)
        if found is None:
            problems.append(f"no parameter takes {read}: name one `{names[1] if names[1] not in taken else names[0]}`")
            continue
        form = _form(parameters[found].annotation)
        if form not in _FORMS:
            problems.append(f"parameter `{found}`: a table comes as {', '.join(_FORMS)}, not as {form}")
        taken[found] = (read, form)
    return taken


def _form(annotation: Any) -> str:
    """Return the library and the name of an annotation; Arrow without one."""
    if annotation is inspect.Parameter.empty:
        return "pyarrow.Table"
    library = str(getattr(annotation, "__module__", "")).partition(".")[0].lstrip("_")
    return f"{library}.{getattr(annotation, '__name__', annotation)}"


def _fetch(
    function: Transform,
    compute: _Compute,
    taken: Mapping[str, tuple[str, str]],
    definition: dg.PartitionsDefinition[Any] | None,
    by: str | Mapping[str, str] | None,
) -> Transform:
    """Return a function that an ingestion calls: it reads the tables, and hands on the function's other parameters."""
    own = {name: one for name, one in inspect.signature(function).parameters.items() if name not in taken}
    alone = next((name for name in ("partition_date", "partition_key") if name in own), None)
    added = ["lakehouse", *(["partition_dates"] if definition and alone is None else [])]

    def fetch(**given: Any) -> object:
        keys = [given[alone]] if alone else given.get("partition_dates", [])
        tables = {
            name: _FORMS[form](_read(given["lakehouse"], read, definition, keys, by))
            for name, (read, form) in taken.items()
        }
        return _rows(compute(tables, {name: given[name] for name in own}))

    every = {name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in (*own, *added)}
    for attribute in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(fetch, attribute, getattr(function, attribute, None))
    vars(fetch)["__wrapped__"] = function  # where Dagster's page of the asset finds the code
    vars(fetch)["__signature__"] = inspect.Signature(list(every.values()))
    return fetch


def _by_plugin(function: Transform, name: str, options: Mapping[str, Any]) -> _Compute:
    """Return what computes rows by a plugin, whose options the function may add to."""
    plugin = get_transformation(name)
    plugin.validated(options)

    def compute(tables: Mapping[str, Any], given: Mapping[str, Any]) -> object:
        return plugin.transform(tables, options_of(plugin, options, function, given))

    return compute


def _read(
    lakehouse: Lakehouse,
    name: str,
    definition: dg.PartitionsDefinition[Any] | None,
    keys: Sequence[str],
    by: str | Mapping[str, str] | None,
) -> pa.Table:
    """Read a table on the run's branch: the rows of the run's partitions where it has a column of theirs."""
    columns: list[str | None] = [by[each] for each in sorted(by)] if isinstance(by, Mapping) else [by]
    fields = {f.name: f for f in lakehouse.table(name).schema().fields} if definition else {}
    found = [fields.get(column or "") for column in columns]
    if definition is None or not any(found):
        rows = lakehouse.query(f"SELECT * FROM {'.'.join(map(identifier, name.split('.')))}")
    else:  # not by SQL, in which engines write times in different ways
        rows = lakehouse.table(name).scan(row_filter=rows_of(definition, keys, found).files).to_arrow()
    return rows.drop_columns([c for c in (INGESTED_AT_COLUMN, PARTITION_COLUMN) if c in rows.column_names])


def _rows(returned: object) -> object:
    """Return rows in a form that an ingestion takes."""
    form = _form(type(returned))
    if form == "duckdb.DuckDBPyRelation":
        return returned.to_arrow_table()  # type: ignore[attr-defined]
    return returned.collect() if form == "polars.LazyFrame" else returned  # type: ignore[attr-defined]


def _polars() -> Any:
    import polars

    return polars


def _duckdb() -> Any:
    import duckdb

    return duckdb
