"""Every private name of Dagster that Cascade uses, but for those of the storages that `framework.storage` extends.

A release of Dagster may move any of them: a test asks for each.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from dagster._core.definitions import resource_annotation
from dagster._core.definitions.partitions.partitioned_schedule import UnresolvedPartitionedAssetScheduleDefinition
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.execution import compute_logs
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster.components.core.component_tree import ComponentTree, ComponentTreeException
from dagster_shared.check import CheckError
from dagster_shared.error import SerializableErrorInfo
from dagster_shared.libraries import DagsterLibraryRegistry
from dagster_shared.record import replace as replace_record
from dagster_shared.utils.warnings import disable_dagster_warnings

__all__ = [
    "BULK_ACTION_TERMINAL_STATUSES",
    "GRPC_INFO_TAG",
    "NOT_FINISHED_STATUSES",
    "CheckError",
    "ComponentTree",
    "ComponentTreeException",
    "DagsterLibraryRegistry",
    "InstanceRef",
    "SerializableErrorInfo",
    "UnresolvedAssetJobDefinition",
    "UnresolvedPartitionedAssetScheduleDefinition",
    "compute_logs",
    "disable_dagster_warnings",
    "replace_record",
    "resource_annotation",
    "serializable_error_info_from_exc_info",
]

_annotated = vars(resource_annotation)["get_type_hints"]
_RESOURCE = Annotated[Any, resource_annotation.RESOURCE_PARAM_METADATA]


def _annotated_or_lakehouse(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Take a parameter `lakehouse` without an annotation for the resource; Dagster would look for such an asset."""
    # Dagster asks when a file is imported, by discovery or by a test, and again when its function runs.
    return {"lakehouse": _RESOURCE, **_annotated(function)}


setattr(resource_annotation, "get_type_hints", _annotated_or_lakehouse)  # noqa: B010  # a name that it only imports
