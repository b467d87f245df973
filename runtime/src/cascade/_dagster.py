"""Every private name of Dagster that Cascade uses, but for those of the storages that `framework.storage` extends.

A release of Dagster may move any of them: a test asks for each.
"""

from dagster._core.definitions.partitions.partitioned_schedule import UnresolvedPartitionedAssetScheduleDefinition
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.execution import compute_logs
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster_shared.error import SerializableErrorInfo
from dagster_shared.record import replace as replace_record
from dagster_shared.utils.warnings import disable_dagster_warnings

__all__ = [
    "BULK_ACTION_TERMINAL_STATUSES",
    "GRPC_INFO_TAG",
    "NOT_FINISHED_STATUSES",
    "InstanceRef",
    "SerializableErrorInfo",
    "UnresolvedAssetJobDefinition",
    "UnresolvedPartitionedAssetScheduleDefinition",
    "compute_logs",
    "disable_dagster_warnings",
    "replace_record",
    "serializable_error_info_from_exc_info",
]
