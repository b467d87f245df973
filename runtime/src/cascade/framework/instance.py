"""The project's Dagster storage, the same that the UI opens."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import dagster as dg

from cascade._dagster import InstanceRef
from cascade.config import Settings
from cascade.errors import ConfigurationError
from cascade.names import PROMOTE_POOL

__all__ = ["open_instance"]


@contextlib.contextmanager
def open_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Open the project's Dagster storage: `DAGSTER_HOME`, else what `dagster.yaml` of the project names.

    While it is open, the working folder of the process is the project's.

    Args:
        settings: The project's settings.

    Raises:
        ConfigurationError: `dagster.yaml` names a storage that is not the one of the settings.
        ServiceError: PostgreSQL cannot be used.
    """
    from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage  # half a second, with SQLAlchemy

    # Paths in `dagster.yaml` are relative to the project, and steps run in its folder as they do from the UI.
    with contextlib.chdir(settings.project_dir), dg.DagsterInstance.from_ref(_reference(settings)) as instance:
        # The UI would show other runs than these.
        if settings.dagster_url is not None and isinstance(instance.event_log_storage, SqliteEventLogStorage):
            raise ConfigurationError(
                "`dagster_url` is set, but dagster.yaml names another storage.",
                where=str(settings.project_dir / "dagster.yaml"),
                fix="let `storage` be `custom: {module: cascade.framework.storage, class: ProjectStorage, "
                "config: {base_dir: .dagster}}`, as in a new project.",
            )
        # Set the limit of the promotion pool to 1 unless it has one: the daemon ignores the default until the pool was
        # used once.
        if all(pool.name != PROMOTE_POOL for pool in instance.event_log_storage.get_pool_limits()):
            instance.event_log_storage.set_concurrency_slots(PROMOTE_POOL, 1)
        yield instance


def _reference(settings: Settings) -> InstanceRef:
    if home := os.environ.get("DAGSTER_HOME"):
        return InstanceRef.from_dir(home)
    storage = settings.project_dir / ".dagster"
    storage.mkdir(exist_ok=True)
    return InstanceRef.from_dir(str(storage), config_dir=str(settings.project_dir))
