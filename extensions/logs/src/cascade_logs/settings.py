"""The settings of logs, `logs`. Imported when settings are read: nothing but pydantic."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from cascade.config import Settings

__all__ = ["LogsSettings", "of"]

# Dagster calls handlers in dagster.yaml a beta, on standard error and in every process.
warnings.filterwarnings("ignore", message="Handling yaml-defined logging configuration")


class LogsSettings(BaseModel):
    """Where lines of JSON go. People at a terminal read Dagster's text, unless they ask for another form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["text", "json"] = Field(
        default="text",
        description="`json` writes a line of JSON to standard error for each entry of a log. It is never chosen by "
        "itself: what is sent to a file keeps its form.",
    )
    folder: Path | None = Field(
        default=None,
        description="Where lines of JSON go besides: a file for each day, kept for 14 days. Relative to the project.",
    )


def of(settings: Settings) -> LogsSettings:
    """Return the settings of logs among a project's."""
    return settings.plugin("logs", LogsSettings)
