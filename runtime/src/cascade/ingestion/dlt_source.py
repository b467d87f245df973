"""A dlt resource: its rows, its cursor, which is kept with the table, and its hints, which are taken or refused."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cascade.errors import IngestionError
from cascade.iceberg.schema import storage_type
from cascade.ingestion.limits import OvertakenError
from cascade.ingestion.text import listed, snake_case
from cascade.names import DLT_STATE_PROPERTY

if TYPE_CHECKING:
    from cascade.ingestion.plan import LoadPlan

__all__ = [
    "check_resource",
    "hinted_columns",
    "only_resource",
    "pack_state",
    "read_state",
    "require_cursor_fits",
    "resource_rows",
]

_WRITES = {"merge": "merge", "replace": "replace_partition"}
_POLICIES = {"freeze": "strict", "discard_value": "drop_extra"}
_READ_CSV = ("dlt.sources.filesystem.readers", "_read_csv")


def only_resource(source: Any) -> Any:
    """Return the resource that a dlt source selects.

    Raises:
        IngestionError: It selects none, or several.
    """
    names = sorted(source.selected_resources)
    if len(names) == 1:
        return source.selected_resources[names[0]]
    example = (names or sorted(source.resources) or ["name"])[0]
    raise IngestionError(
        f"The dlt source selects {len(names)} resources, and a table is filled from one: {listed(names)}.",
        where=f"source `{source.name}`, resources {sorted(source.resources)}",
        fix=f'return `source.with_resources("{example}")`, and an ingestion for each of the others.',
    )


def resource_rows(resource: Any, state: dict[str, Any]) -> Iterator[Any]:
    """Open a resource on a state, without a pipeline: dlt keeps an injected state and writes into it."""
    from dlt.common.configuration.container import Container
    from dlt.common.pipeline import StateInjectableContext

    os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
    with Container().injectable_context(StateInjectableContext(state=state)):
        rows = iter(resource)  # holds on to the state from here on
    # dlt's `read_csv` reads with pandas, which has NaN for a cell without text.
    steps = [step for pipe in _pipes(resource) for step in pipe.steps]
    csv = any((getattr(step, "__module__", ""), getattr(step, "__name__", "")) == _READ_CSV for step in steps)
    return map(_without_nan, rows) if csv else rows


def _pipes(resource: Any) -> Iterator[Any]:
    """The pipe of a resource, and those that it reads from."""
    pipe = resource._pipe
    while pipe is not None:
        yield pipe
        pipe = pipe.parent


def _without_nan(row: Any) -> Any:
    if not isinstance(row, dict):
        return row
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def hinted_columns(resource: Any) -> dict[str, pa.DataType]:
    """Return the types that the column hints of a dlt resource ask for, by Cascade's column names.

    Raises:
        IngestionError: The hints are a function of the rows, which would be known too late.
    """
    if callable(resource.columns):
        raise IngestionError(
            "The column hints of the dlt resource are a function, which Cascade does not call.",
            where=f"resource `{resource.name}`",
            fix="give the hints as a dict, or declare the columns with `iceberg_schema=`.",
        )
    hints = {snake_case(name): hint for name, hint in (resource.columns or {}).items() if hint.get("data_type")}
    return {name: _hinted_type(hint) for name, hint in hints.items()}


def _hinted_type(hint: Any) -> pa.DataType:
    from dlt.common.destination import DestinationCapabilitiesContext
    from dlt.common.libs.pyarrow import get_py_arrow_datatype

    able = DestinationCapabilitiesContext.generic_capabilities()
    able.wei_precision = (38, 0)  # Iceberg's most digits
    try:
        return storage_type(get_py_arrow_datatype(hint, able, "UTC"))
    except TypeError:  # a decimal with more digits
        return pa.decimal128(*able.decimal_precision)


def read_state(properties: Mapping[str, str]) -> dict[str, Any]:
    """Return the state that the table's newest commit recorded."""
    if (packed := properties.get(DLT_STATE_PROPERTY)) is None:
        return {}
    from dlt.common import json  # brings back the times and decimals of cursors

    state: dict[str, Any] = json.typed_loads(packed)
    return state


def pack_state(state: dict[str, Any], table: str, before: Mapping[str, str], current: Mapping[str, str]) -> str:
    """Return the state as a table property, given the table's properties before the load and now, under its lock.

    Raises:
        OvertakenError: Another run moved the cursor since then: its rows would be loaded twice.
    """
    from dlt.common import json

    if before.get(DLT_STATE_PROPERTY) != current.get(DLT_STATE_PROPERTY):
        raise OvertakenError(
            "Another run moved the cursor of this source while this one was loading; nothing was written.",
            where=f"table {table}",
            fix="run again: it starts where the other run ended.",
        )
    packed: str = json.typed_dumps(state)
    return packed


def require_cursor_fits(plan: LoadPlan, state: dict[str, Any]) -> None:
    """Refuse a source with a cursor where the table is filled by partitions, or replaced.

    A cursor and a partition are two answers to one question: a partition that is loaded again would be emptied, one
    behind the cursor would never be filled.

    Raises:
        IngestionError: The source keeps a state that does not fit the asset.
    """
    if not state or (plan.definition is None and plan.write != "replace_partition"):
        return
    what = "has partitions" if plan.definition else 'uses write="replace_partition"'
    raise IngestionError(
        f"The source keeps a cursor (dlt.sources.incremental), but the asset {what}: rows behind the cursor would be "
        "missing. Nothing was written.",
        where=f"table {plan.table}",
        fix='use partitions="none" with write="merge" or "append"; or select the rows of the partition yourself, '
        "with `initial_value` and `end_value` from partition_date, which keeps no cursor.",
    )


def check_resource(plan: LoadPlan, resource: Any, state: dict[str, Any]) -> None:
    """Look at a dlt resource before it is opened.

    Its cursor is found again also when the file or the resource has another name now: a table has one source.

    Raises:
        IngestionError: Its hints say something else than the options of the asset, which decide.
    """
    if problems := [*_contradicting(plan, resource), *_contradicting_columns(plan, resource.columns or {})]:
        raise IngestionError(
            f"The dlt resource `{resource.name}` and the asset contradict each other: it has {'; '.join(problems)}.",
            where=f"table {plan.table}",
            fix="the options of @cascade_ingestion decide how rows are written; change them, or the resource's hint.",
        )
    section = resource.source_name or resource.section
    sources = state.get("sources", {})
    if len(sources) == 1 and section not in sources:
        sources[section] = sources.pop(next(iter(sources)))
    resources = sources.get(section, {}).get("resources", {})
    if len(resources) == 1 and not {pipe.name for pipe in _pipes(resource)} & resources.keys():
        resources[resource.name] = resources.pop(next(iter(resources)))


def _contradicting(plan: LoadPlan, resource: Any) -> Iterator[str]:
    disposition = resource.write_disposition
    if isinstance(disposition, dict):
        disposition = disposition.get("disposition")
    wanted = _WRITES.get(disposition, plan.write)
    if plan.write != wanted:
        yield f'write_disposition={disposition!r}, the asset write="{plan.write}": set write="{wanted}"'
    for hint in ("primary_key", "merge_key"):
        columns = (resource.columns or {}).items()
        value = resource._hints.get(hint) or [name for name, column in columns if column.get(hint)]
        if not value or callable(value):
            continue
        key = [value] if isinstance(value, str) else list(value)
        same = {*map(snake_case, key)} == {*map(snake_case, plan.unique_key)}
        if not same and (plan.unique_key or not plan.options.write):
            asset = f"unique_key={list(plan.unique_key)}" if plan.unique_key else "no unique_key"
            other = "" if plan.unique_key else ', or write="append" to add every row'
            yield f"{hint}={key}, the asset {asset}: set unique_key={key}{other}"
    contract = None if resource.validator else resource.schema_contract  # a validator has done it in the resource
    mode = contract.get("columns") if isinstance(contract, dict) else contract
    if mode not in (None, "evolve") and plan.policy != (policy := _POLICIES.get(str(mode))):
        remedy = f'set schema_policy="{policy}"' if policy else "leave such rows out in the resource"
        yield f'schema_contract={mode!r}, the asset schema_policy="{plan.policy}": {remedy}'


def _contradicting_columns(plan: LoadPlan, columns: Mapping[str, Any]) -> Iterator[str]:
    """Name the hints of columns that would change which rows a load keeps."""
    order_by = plan.options.order_by
    for name, column in columns.items():
        if column.get("hard_delete"):
            yield f"hard_delete on `{name}`, the asset deletes no rows: filter them in SQL"
        if (sort := column.get("dedup_sort")) and (sort != "desc" or snake_case(name) != order_by):
            remedy = f'set order_by="{snake_case(name)}"' if sort == "desc" else "the greatest value wins"
            yield f"dedup_sort={sort!r} on `{name}`, the asset order_by={order_by!r}: {remedy}"
