"""Where Dagster keeps its runs and events: SQLite files, or PostgreSQL if the setting `dagster_url` is set."""

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.dagster_run import DagsterRun
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from pydantic import SecretStr

from cascade.config import load_settings
from cascade.framework.base import StorageProvider
from cascade.plugins import load

__all__ = ["ProjectStorage"]

# A run over a range tells of each asset and partition when it is planned and again when it is done: stored so many at a
# time. Dagster reads the variable in every process that opens the storage.
os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")

# What has no partitions, such as a check or a model, is planned once for a run over days, not once a day: 18 MB a year.
_of_run = DagsterRun.get_resolved_partitions_subset_for_events
DagsterRun.get_resolved_partitions_subset_for_events = (  # type: ignore[method-assign]
    lambda self, partitions_def: _of_run(self, partitions_def) if partitions_def else None
)


class ProjectStorage(DagsterStorage[Any], ConfigurableClass):
    """The storage class in `dagster.yaml`: every process of Dagster opens it, and gets the storage of the settings."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return what may be configured: `base_dir`."""
        return {"base_dir": dg.StringSource}

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> DagsterStorage[Any]:
        """Open the storage.

        Args:
            inst_data: Where Dagster read the configuration.
            config_value: `base_dir`, the folder of the SQLite files; relative to the project.

        Raises:
            ConfigurationError: No installed package provides SQLite, or PostgreSQL.
            ServiceError: PostgreSQL cannot be used.
        """
        url, scheme = load_settings().dagster_url, "postgresql"
        if url is None:
            folder = sa.URL.create("sqlite", database=os.path.abspath(config_value["base_dir"]))
            url, scheme = SecretStr(str(folder)), folder.drivername
        return load("cascade.storages", scheme, StorageProvider, where="setting `dagster_url`").open(url)
