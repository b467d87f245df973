"""What installed packages add to a project's definitions: assets, schedules, and the storage of Dagster."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import dagster as dg

from cascade.config import Settings
from cascade.lakehouse import Lakehouse

if TYPE_CHECKING:
    from dagster._core.storage.base_storage import DagsterStorage
    from pydantic import SecretStr

    from cascade.framework.discovery import Item

__all__ = ["AssetSource", "Reviewer", "ScheduleFactory", "StorageProvider", "TriggerFactory", "Unchanged"]


@dataclass(frozen=True)
class Unchanged:
    """What a run can leave out, and what no run may.

    Attributes:
        since: Assets whose table is what computing it again would give, and when each was made (UTC).
        always: Assets that may depend on more than the tables they read, and why that is thought.
        changed: Assets that a run makes, and what has changed since their tables were made.
    """

    since: Mapping[dg.AssetKey, dt.datetime] = field(default_factory=dict)
    always: Mapping[dg.AssetKey, str] = field(default_factory=dict)
    changed: Mapping[dg.AssetKey, tuple[str, ...]] = field(default_factory=dict)


class AssetSource(Protocol):
    """Group `cascade.assets`, by any name: makes assets of a project's files."""

    def start(self, settings: Settings) -> AbstractContextManager[Callable[[], list[dg.AssetsDefinition]]]:
        """Begin while the workflows are imported; the context gives a function that waits and returns the assets.

        The function raises a CascadeError when the files cannot be used: nothing is promoted then.
        """

    def unchanged(self, lakehouse: Lakehouse, asked: Set[dg.AssetKey], computed: Set[dg.AssetKey]) -> Unchanged:
        """Say which assets `cascade run` can leave out; in doubt none.

        Args:
            lakehouse: What the run begins with: `main`, or its branch when something is written on it already.
            asked: Assets that the run shall materialize, those of other sources included.
            computed: Assets that it materializes in any case; what reads one of them is not left out.
        """


class ScheduleFactory(Protocol):
    """Group `cascade.schedules`, by any name: adds a schedule and its job, or a sensor, to every project."""

    def __call__(self, settings: Settings) -> dg.ScheduleDefinition | dg.SensorDefinition | None:
        """Make it; a schedule has a job. `None` when the settings ask for none."""


class TriggerFactory(Protocol):
    """Group `cascade.triggers`, by any name: schedules and sensors that start the pipelines of a project's assets."""

    def __call__(
        self,
        settings: Settings,
        assets: Sequence[dg.AssetsDefinition],
        upstream: Mapping[dg.AssetKey, set[dg.AssetKey]],
        impossible: list[str],
    ) -> Sequence[dg.ScheduleDefinition | dg.SensorDefinition]:
        """Make them; `upstream` says what each asset depends on, `impossible` gets a message for each left out."""


class Reviewer(Protocol):
    """Group `cascade.reviews`, by any name: warns of definitions that may not do what their author expects."""

    def __call__(self, definitions: dg.Definitions, items: Sequence[Item]) -> tuple[list[Item], list[str]]:
        """Return the objects of users and packages, with warnings in their descriptions, and the warnings."""


class StorageProvider(Protocol):
    """Group `cascade.storages`, by the scheme of a URL: where Dagster keeps its runs and events."""

    def open(self, url: SecretStr) -> DagsterStorage[Any]:
        """Open the storage, and make its tables unless they are there.

        Args:
            url: The setting `dagster_url`; without it the folder of `dagster.yaml`, as `sqlite:///<folder>`.
        """
