"""What a dlt resource says beside its rows: its cursor, which is kept with the table, and its hints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cascade.errors import IngestionError
from cascade.ingestion.limits import OvertakenError
from cascade.ingestion.text import snake_case
from cascade.names import DLT_STATE_PROPERTY

if TYPE_CHECKING:
    from cascade.ingestion.plan import LoadPlan

__all__ = ["check_resource", "pack_state", "read_state", "require_cursor_fits"]

#: Table property: the state of the dlt source, such as incremental cursors; never ahead of the data.

_WRITES = {"merge": "merge", "replace": "replace_partition"}
_POLICIES = {"freeze": "strict", "discard_value": "drop_extra"}


def read_state(properties: Mapping[str, str]) -> dict[str, Any]:
    """Return the state that the table's newest commit recorded."""
    packed = properties.get(DLT_STATE_PROPERTY)
    state: dict[str, Any] = _json().typed_loads(packed) if packed else {}
    return state


def pack_state(state: dict[str, Any], table: str, before: Mapping[str, str], current: Mapping[str, str]) -> str:
    """Return the state as a table property.

    Args:
        state: What the source left.
        table: For the message.
        before: The table's properties when the source was opened.
        current: Its properties now, under the lock of the commit.

    Raises:
        OvertakenError: Another run moved the cursor in the meantime: its rows would come twice.
    """
    if before.get(DLT_STATE_PROPERTY) != current.get(DLT_STATE_PROPERTY):
        raise OvertakenError(
            "Another run moved the cursor of this source while this one was loading; nothing was written.",
            where=f"table {table}",
            fix="run again: it starts where the other run ended.",
        )
    packed: str = _json().typed_dumps(state)
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
        IngestionError: Its hints say something else than the options of the asset.
    """
    _require_same_hints(plan, resource)
    section = resource.source_name or resource.section
    sources = state.get("sources", {})
    if len(sources) == 1 and section not in sources:
        sources[section] = sources.pop(next(iter(sources)))
    resources = sources.get(section, {}).get("resources", {})
    pipe, names = resource._pipe, set()
    while pipe is not None:
        names.add(pipe.name)
        pipe = pipe.parent
    if len(resources) == 1 and not names & resources.keys():
        resources[resource.name] = resources.pop(next(iter(resources)))


def _require_same_hints(plan: LoadPlan, resource: Any) -> None:
    """Refuse hints that would be ignored: the options of the asset decide, and nothing else."""
    problems = []
    disposition = resource.write_disposition
    if isinstance(disposition, dict):
        disposition = disposition.get("disposition")
    wanted = _WRITES.get(disposition, plan.write)
    if plan.write != wanted:
        problems.append(f'write_disposition={disposition!r}, the asset write="{plan.write}": set write="{wanted}"')
    columns = resource.columns or {}
    for hint in ("primary_key", "merge_key"):
        value = resource._hints.get(hint) or [name for name, column in columns.items() if column.get(hint)]
        if not value or callable(value):
            continue
        key = (value,) if isinstance(value, str) else tuple(value)
        same = {snake_case(name) for name in key} == {snake_case(name) for name in plan.unique_key}
        if not same and (plan.unique_key or not plan.options.write):
            asset = f"unique_key={list(plan.unique_key)}" if plan.unique_key else "no unique_key"
            problems.append(
                f"{hint}={list(key)}, the asset {asset}: set unique_key={list(key)}"
                + ("" if plan.unique_key else ', or write="append" to add every row')
            )
    problems += _beside_keys(plan, columns)
    contract = None if resource.validator else resource.schema_contract  # a validator has done it in the resource
    mode = contract.get("columns") if isinstance(contract, dict) else contract
    if mode not in (None, "evolve") and plan.policy != (policy := _POLICIES.get(str(mode))):
        remedy = f'set schema_policy="{policy}"' if policy else "leave such rows out in the resource"
        problems.append(f'schema_contract={mode!r}, the asset schema_policy="{plan.policy}": {remedy}')
    if problems:
        raise IngestionError(
            f"The dlt resource `{resource.name}` and the asset contradict each other: it has {'; '.join(problems)}.",
            where=f"table {plan.table}",
            fix="the options of @cascade_ingestion decide how rows are written; change them, or the resource's hint.",
        )


def _beside_keys(plan: LoadPlan, columns: Mapping[str, Any]) -> list[str]:
    """Name the hints of columns that would change which rows a load keeps."""
    problems = []
    for name, column in columns.items():
        if column.get("hard_delete"):
            problems.append(f"hard_delete on `{name}`, the asset deletes no rows: filter them in SQL")
        if (sort := column.get("dedup_sort")) and (sort != "desc" or snake_case(name) != plan.options.order_by):
            remedy = f'set order_by="{snake_case(name)}"' if sort == "desc" else "the greatest value wins"
            problems.append(f"dedup_sort={sort!r} on `{name}`, the asset order_by={plan.options.order_by!r}: {remedy}")
    return problems


def _json() -> Any:
    """Return dlt's own JSON, which brings back the times and decimals of its cursors."""
    from dlt.common import json as dlt_json

    return dlt_json
