"""Every private name of Dagster that operations use, beside those of `cascade._dagster`; a test asks for each."""

from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
from dagster._core.remote_origin import RemoteRepositoryOrigin
from dagster._core.remote_representation.external import RemoteSchedule, RemoteSensor
from dagster._core.remote_representation.external_data import ScheduleSnap, SensorSnap
from dagster._core.remote_representation.handle import RepositoryHandle
from dagster._core.workspace.load_target import WorkspaceFileTarget

__all__ = [
    "AssetDaemonCursor",
    "RemoteRepositoryOrigin",
    "RemoteSchedule",
    "RemoteSensor",
    "RepositoryHandle",
    "ScheduleSnap",
    "SensorSnap",
    "WorkspaceFileTarget",
]
