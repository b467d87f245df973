"""What installed packages add to a project's definitions: assets, schedules, and the storage of Dagster."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import dagster as dg

from cascade.config import Settings

if TYPE_CHECKING:
    from dagster._core.storage.base_storage import DagsterStorage
    from pydantic import SecretStr

__all__ = ["ScheduleFactory", "StartAssets", "StorageProvider"]


class StartAssets(Protocol):
    """Group `cascade.assets`, by any name: makes assets of a project's files, while the workflows are imported."""

    def __call__(self, settings: Settings) -> AbstractContextManager[Callable[[], list[dg.AssetsDefinition]]]:
        """Begin; the context gives a function that waits and returns the assets.

        The function raises a CascadeError when the files cannot be used: nothing is promoted then.
        """


class ScheduleFactory(Protocol):
    """Group `cascade.schedules`, by any name: adds a schedule and its job to every project."""

    def __call__(self, settings: Settings) -> dg.ScheduleDefinition:
        """Make the schedule; it has a job."""


class StorageProvider(Protocol):
    """Group `cascade.storages`, by the scheme of a URL: where Dagster keeps its runs and events."""

    def open(self, url: SecretStr) -> DagsterStorage[Any]:
        """Open the storage, and make its tables unless they are there.

        Args:
            url: The setting `dagster_url`.
        """
