"""What operations tell while they work, for a caller who waits: one type for each thing that happens."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cascade_operations.planned import Plan

__all__ = [
    "AssetMaterialized",
    "AssetUpToDate",
    "CheckEvaluated",
    "Counted",
    "Emptied",
    "Event",
    "Fetched",
    "Followed",
    "LeftOut",
    "Listener",
    "Loading",
    "NewBranch",
    "NotLoaded",
    "Planned",
    "StepFailed",
    "StepRetrying",
    "StepStarted",
    "Waiting",
    "ignore",
]


@dataclass(frozen=True)
class Loading:
    """Something is read before the work begins, such as `workflows and models`."""

    what: str


@dataclass(frozen=True)
class NewBranch:
    """The branch that is named does not exist, and is created: it begins as `main`."""

    branch: str


@dataclass(frozen=True)
class NotLoaded:
    """A file or a definition is left out: where and why, one line."""

    problem: str


@dataclass(frozen=True)
class Planned:
    """It is known what the run does; nothing has run yet."""

    plan: Plan


@dataclass(frozen=True)
class Waiting:
    """A server is not ready yet."""

    what: str


@dataclass(frozen=True)
class AssetUpToDate:
    """An asset has nothing to do."""

    asset: str


@dataclass(frozen=True)
class LeftOut:
    """Assets are not computed, since nothing has changed for them; `since` says when each was made, in UTC."""

    since: Mapping[str, dt.datetime]


@dataclass(frozen=True)
class Emptied:
    """Tables were emptied on the run's branch; branches that have changed one of them cannot be promoted after it."""

    tables: tuple[str, ...]
    conflicts: tuple[str, ...]


@dataclass(frozen=True)
class StepStarted:
    """A step of a run begins; most steps are named like their asset."""

    step: str


@dataclass(frozen=True)
class Fetched:
    """The step that runs has fetched so many rows of its source by now."""

    rows: int


@dataclass(frozen=True)
class StepFailed:
    """A step has failed for good."""

    step: str


@dataclass(frozen=True)
class StepRetrying:
    """A step failed and will be tried again; the reason is one line."""

    step: str
    reason: str


@dataclass(frozen=True)
class AssetMaterialized:
    """An asset has new data; `rows` is how many rows its table has, `None` where that is unknown."""

    asset: str
    rows: int | None


@dataclass(frozen=True)
class CheckEvaluated:
    """A check has run; a check that is not blocking only warns."""

    asset: str
    check: str
    passed: bool
    blocking: bool


@dataclass(frozen=True)
class Counted:
    """Work over many things has come this far, such as `removed`, 10,000, `files`."""

    action: str
    number: int
    what: str


@dataclass(frozen=True)
class Followed:
    """A package has followed the command, which has ended: what it did, in words, or why it could not."""

    package: str
    said: str


Event = (
    Loading
    | NewBranch
    | NotLoaded
    | Planned
    | Waiting
    | AssetUpToDate
    | LeftOut
    | Emptied
    | StepStarted
    | Fetched
    | StepFailed
    | StepRetrying
    | AssetMaterialized
    | CheckEvaluated
    | Counted
    | Followed
)

#: A function that an operation calls with every event, in the thread that works.
Listener = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Listen to nothing."""
