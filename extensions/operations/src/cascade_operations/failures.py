"""Say in words why a step of a run failed."""

from __future__ import annotations

import re
from pathlib import Path

import dagster as dg

from cascade._dagster import SerializableErrorInfo

__all__ = ["error_text", "failure_text"]


def failure_text(event: dg.DagsterEvent, root: Path) -> str:
    """Return why a step failed, in words.

    Args:
        event: The failure of a step.
        root: The project's folder.
    """
    data = event.step_failure_data
    said = data.user_failure_data.description if data.user_failure_data is not None else None
    return error_text(data.error, root, said=said) if data.error is not None else said or "failed"


def error_text(error: SerializableErrorInfo, root: Path, *, said: str | None = None) -> str:
    """Return an error in words: the first of Cascade in its chain of causes, else type, text and place.

    Args:
        error: The error, as Dagster keeps it.
        root: The project's folder; the place is the innermost line in a file below it.
        said: What the asset itself said of the failure.
    """
    chain = [error]
    while (cause := chain[-1].cause or chain[-1].context) is not None:
        chain.append(cause)
    for each in chain:
        if ours := re.match(r"cascade\w*\.[\w.]+: ", each.message):
            return each.message[ours.end() :].strip()
    own = next((e for e in chain if not _wraps(e)), chain[-1])
    # "json.decoder.JSONDecodeError: …": the module says nothing to its reader.
    text = said or re.sub(r"^(\w+\.)+(?=\w+(:|$))", "", own.message.strip())
    frames = (
        re.match(r'\s*File "(.+)", line (\d+)', frame) for e in (own, *reversed(chain)) for frame in reversed(e.stack)
    )
    for frame in filter(None, frames):
        file = Path(frame[1])
        if file.is_relative_to(root) and "site-packages" not in file.parts:
            return f"{text}\n  where: {file.relative_to(root)}:{frame[2]}"
    return text


def _wraps(error: SerializableErrorInfo) -> bool:
    """Say whether an error only carries the one that caused it."""
    retried = (error.cls_name or "").startswith("RetryRequested")
    return error.cause is not None and (retried or error.message.startswith("dagster"))
