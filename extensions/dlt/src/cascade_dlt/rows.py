"""Rows of a dlt source or resource, and its cursor, which is kept with the table in the commit of the rows."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

from dlt.common import json  # brings back the times and decimals of cursors
from dlt.common.configuration.container import Container
from dlt.common.exceptions import DltException
from dlt.common.pipeline import StateInjectableContext

from cascade.errors import IngestionError
from cascade.ingestion.forms import FetchContext
from cascade.ingestion.text import listed
from cascade_dlt.hints import hinted_columns, require_agreement

__all__ = ["resource_rows", "source_rows"]

_READ_CSV = ("dlt.sources.filesystem.readers", "_read_csv")


def source_rows(source: Any, context: FetchContext) -> Iterator[Any]:
    """Yield the rows of the one resource that a dlt source selects.

    Raises:
        IngestionError: It selects none, or several.
    """
    names = sorted(source.selected_resources)
    if len(names) == 1:
        return resource_rows(source.selected_resources[names[0]], context)
    example = (names or sorted(source.resources) or ["name"])[0]
    raise IngestionError(
        f"The dlt source selects {len(names)} resources, and a table is filled from one: {listed(names)}.",
        where=f"source `{source.name}`, resources {sorted(source.resources)}",
        fix=f'return `source.with_resources("{example}")`, and an ingestion for each of the others.',
    )


def resource_rows(resource: Any, context: FetchContext) -> Iterator[Any]:
    """Yield the rows of a dlt resource, without a pipeline: dlt keeps an injected state and writes into it.

    Args:
        resource: The resource.
        context: Its column hints become `types`, and the state after the last row replaces `state`.

    Raises:
        IngestionError: Its hints say something else than the options of the asset, which decide.
    """
    context.types.update(hinted_columns(resource))
    state: dict[str, Any] = json.typed_loads(context.state) if context.state else {}
    if context.plan is not None:
        require_agreement(context.plan, resource)
    _find_cursor(resource, state)
    os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
    with Container().injectable_context(StateInjectableContext(state=state)):
        rows = iter(resource)  # holds on to the state from here on
    # dlt's `read_csv` reads with pandas, which has NaN for a cell without text.
    steps = [step for pipe in _pipes(resource) for step in pipe.steps]
    csv = any((getattr(step, "__module__", ""), getattr(step, "__name__", "")) == _READ_CSV for step in steps)
    cause: BaseException | None = None
    try:
        yield from map(_without_nan, rows) if csv else rows
    except DltException as error:
        cause = error.__cause__ or error  # dlt only says which of its pipes it was in
    if cause is not None:
        raise cause  # not above: its context would be the error that it caused
    _sort_hashes(state)
    context.state = json.typed_dumps(state) if state else ""


def _sort_hashes(state: dict[str, Any]) -> None:
    """Give what dlt keeps as a set an order: a state that says the same is the same text, and nothing is written."""
    for source in state.get("sources", {}).values():
        for resource in source.get("resources", {}).values():
            for cursor in resource.get("incremental", {}).values():
                cursor["unique_hashes"] = sorted(cursor.get("unique_hashes", ()))


def _find_cursor(resource: Any, state: dict[str, Any]) -> None:
    """Let a cursor be found when the file or the resource has another name now: a table has one source."""
    section = resource.source_name or resource.section
    sources = state.get("sources", {})
    if len(sources) == 1 and section not in sources:
        sources[section] = sources.pop(next(iter(sources)))
    resources = sources.get(section, {}).get("resources", {})
    if len(resources) == 1 and not {pipe.name for pipe in _pipes(resource)} & resources.keys():
        resources[resource.name] = resources.pop(next(iter(resources)))


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
