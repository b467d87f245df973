"""The settings of alerts, `alerts`. Imported when settings are read: nothing but pydantic."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

if TYPE_CHECKING:
    from cascade.config import Settings

__all__ = ["EVENTS", "AlertsSettings", "Target", "of"]

#: What people can be told of, and what it means.
EVENTS: Mapping[str, str] = {
    "run_failed": "a step failed, or a run or a command did",
    "check_failed": "a blocking check failed, so that nothing is promoted",
    "promotion_refused": "a branch was not promoted",
    "table_stale": "a table is older than its freshness allows",
    "quarantine_exceeded": "more rows broke a contract than may be set aside",
}


def _known(events: tuple[str, ...]) -> tuple[str, ...]:
    for event in events:
        if event not in EVENTS:
            nearest = difflib.get_close_matches(event, EVENTS, 1, 0.4)
            meant = f"; `{nearest[0]}` may be meant" if nearest else ""
            raise ValueError(f"`{event}` is not an event{meant}; there is {', '.join(EVENTS)}")
    return events


_Events = Annotated[tuple[str, ...], AfterValidator(_known)]


class Target(BaseModel):
    """Where messages go: an address of apprise, and what is sent there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: SecretStr
    events: _Events = tuple(EVENTS)

    @model_validator(mode="before")
    @classmethod
    def _as_table(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value


class AlertsSettings(BaseModel):
    """Who is told what. A secret is a variable of the environment or of `.env`, written `${NAME}` in an address."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    targets: dict[str, Target] = Field(
        default={},
        description="Where messages go: a name for each, and an address of apprise, such as "
        "slack://${SLACK_TOKEN}/#data; or a table with `url` and `events`, for one that is not told of everything.",
    )


def of(settings: Settings) -> AlertsSettings:
    """Return the settings of alerts among a project's."""
    return settings.plugin("alerts", AlertsSettings)
