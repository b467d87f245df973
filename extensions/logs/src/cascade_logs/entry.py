"""One entry of a log as a dict of the documented form (`log.schema.json`), without secrets."""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values

from cascade.names import (
    BRANCH_METADATA,
    BRANCH_TAG,
    LOADED_ROWS,
    PARTITION_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    ROW_COUNT,
    SNAPSHOT_METADATA,
    TOTAL_SECONDS,
)

if TYPE_CHECKING:
    import dagster as dg

__all__ = ["SCHEMA", "entry_of", "environment", "is_told", "secrets_of"]

#: The JSON Schema of an entry.
SCHEMA = Path(__file__).with_name("log.schema.json")
#: Dagster's events that are told; it logs them at the level DEBUG, and dozens of others besides.
_EVENTS = {
    "PIPELINE_START",
    "PIPELINE_SUCCESS",
    "PIPELINE_FAILURE",
    "PIPELINE_CANCELED",
    "STEP_START",
    "STEP_SUCCESS",
    "STEP_FAILURE",
    "STEP_UP_FOR_RETRY",
    "ASSET_MATERIALIZATION",
    "ASSET_CHECK_EVALUATION",
}
_SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|CREDENTIAL|KEY|HOOK", re.IGNORECASE)
# What is shorter would blank out words of the text.
_SECRET_LENGTH = 6


def is_told(record: logging.LogRecord) -> bool:
    """Say whether a record becomes an entry: messages from INFO on, and the events that say what a run did."""
    event = getattr(record, "dagster_event", None)
    return record.levelno >= logging.INFO or (event is not None and event.event_type_value in _EVENTS)


def entry_of(record: logging.LogRecord, secrets: Collection[str] = ()) -> dict[str, Any]:
    """Return an entry; what is not known of a record is left out.

    Args:
        record: As Dagster hands it to handlers, or any other.
        secrets: Texts that become `***`.
    """
    meta: Mapping[str, Any] = getattr(record, "dagster_meta", {})
    tags: Mapping[str, str] = meta.get("job_tags") or {}
    event: dg.DagsterEvent | None = meta.get("dagster_event")
    figures = _figures(event)
    exception = _exception(record, event)
    # Dagster logs events as DEBUG, but failures as ERROR; a step that is tried again has an exception, too.
    level = max(record.levelno, (logging.WARNING if exception else logging.INFO) if event else 0)
    first, last = tags.get(RANGE_START_TAG), tags.get(RANGE_END_TAG)
    found = {
        "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
        "level": logging.getLevelName(level),
        "logger": record.name,
        "message": _without(secrets, meta.get("orig_message") or record.getMessage()),
        "run": meta.get("run_id"),
        "asset": _asset(meta, event),
        "partition": (event and event.partition) or tags.get(PARTITION_TAG) or (first and f"{first}..{last}"),
        "branch": figures.get(BRANCH_METADATA) or tags.get(BRANCH_TAG),
        "snapshot": figures.get(SNAPSHOT_METADATA),
        "rows": figures.get(LOADED_ROWS, figures.get(ROW_COUNT)),
        "milliseconds": _milliseconds(event, figures),
        "exception": _without(secrets, exception),
    }
    return {name: value for name, value in found.items() if value is not None and value != ""}


def secrets_of(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what must not be in a log, long ones first: of variables that are named like secrets, and in addresses.

    Args:
        values: Variables with their values.
    """
    found = set()
    for name, value in values.items():
        if not isinstance(value, str):
            continue
        if _SECRET.search(name):
            found.add(value)
        if "://" in value and "@" in value:
            written = urlsplit(value).netloc.rpartition("@")[0].partition(":")[2]
            found |= {written, unquote(written)}
    return tuple(sorted((text for text in found if len(text) >= _SECRET_LENGTH), key=len, reverse=True))


def environment(project_dir: Path) -> dict[str, str | None]:
    """Return the variables of a project: those of `.env`, and of the environment."""
    return {**dotenv_values(project_dir / ".env"), **os.environ}


def _figures(event: dg.DagsterEvent | None) -> dict[str, Any]:
    if event is None or event.event_type_value != "ASSET_MATERIALIZATION":
        return {}
    metadata = event.step_materialization_data.materialization.metadata
    return {name: value.value for name, value in metadata.items()}


def _asset(meta: Mapping[str, Any], event: dg.DagsterEvent | None) -> str | None:
    """Return the asset, or the step that makes several."""
    if event is not None and event.asset_key is not None:
        return event.asset_key.to_user_string()
    step = meta.get("step_key") or (event.step_key if event else None)
    return step.replace("__", "/") if step else None


def _milliseconds(event: dg.DagsterEvent | None, figures: Mapping[str, Any]) -> int | None:
    if TOTAL_SECONDS in figures:
        return round(float(figures[TOTAL_SECONDS]) * 1000)
    if event is not None and event.event_type_value == "STEP_SUCCESS":
        return round(event.step_success_data.duration_ms)
    return None


def _exception(record: logging.LogRecord, event: dg.DagsterEvent | None) -> str:
    if record.exc_info and record.exc_info[0] is not None:
        return logging.Formatter().formatException(record.exc_info)
    error = getattr(event.event_specific_data, "error", None) if event else None
    return error.to_string() if error is not None else ""


def _without(secrets: Collection[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
