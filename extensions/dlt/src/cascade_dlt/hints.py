"""What a dlt resource says of its columns and how they are written: it is taken over, or refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.libs.pyarrow import get_py_arrow_datatype

from cascade.errors import IngestionError
from cascade.iceberg.schema import storage_type
from cascade.ingestion.plan import LoadPlan
from cascade.ingestion.text import snake_case

__all__ = ["hinted_columns", "require_agreement"]

_WRITES = {"merge": "merge", "replace": "replace_partition"}
_POLICIES = {"freeze": "strict", "discard_value": "drop_extra"}


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
    able = DestinationCapabilitiesContext.generic_capabilities()
    able.wei_precision = (38, 0)  # Iceberg's most digits
    try:
        return storage_type(get_py_arrow_datatype(hint, able, "UTC"))
    except TypeError:  # a decimal with more digits
        return pa.decimal128(*able.decimal_precision)


def require_agreement(plan: LoadPlan, resource: Any) -> None:
    """Refuse hints that say something else than the options of the asset, which decide.

    Raises:
        IngestionError: There are some; all are named.
    """
    if problems := [*_contradicting(plan, resource), *_contradicting_columns(plan, resource.columns or {})]:
        raise IngestionError(
            f"The dlt resource `{resource.name}` and the asset contradict each other: it has {'; '.join(problems)}.",
            where=f"table {plan.table}",
            fix="the options of @cascade_ingestion decide how rows are written; change them, or the resource's hint.",
        )


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
