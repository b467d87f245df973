"""The private names of Dagster that Cascade uses: an upgrade that moves or changes one fails here."""

import ast
import inspect
import subprocess
from pathlib import Path

import dagster as dg
import pytest

from cascade import _dagster
from cascade_operations import _dagster as of_operations

_ROOMS = [Path(__file__).parents[2] / folder for folder in ("runtime/src", "extensions")]

CHECKS = {
    "AssetDaemonCursor": lambda cursor: isinstance(dg.deserialize_value(dg.serialize_value(cursor.empty())), cursor),
    "RemoteRepositoryOrigin": lambda kind: hasattr(kind, "get_job_origin"),
    "RemoteSchedule": lambda kind: hasattr(kind, "get_current_instigator_state"),
    "RemoteSensor": lambda kind: hasattr(kind, "get_current_instigator_state"),
    "RepositoryHandle": lambda handle: {"repository_name", "code_location_origin"} <= set(handle.__annotations__),
    "ScheduleSnap": lambda snap: "schedule_def" in inspect.signature(snap.from_def).parameters,
    "SensorSnap": lambda snap: "sensor_def" in inspect.signature(snap.from_def).parameters,
    "WorkspaceFileTarget": lambda target: hasattr(target(["workspace.yaml"]), "create_origins"),
    "BULK_ACTION_TERMINAL_STATUSES": lambda names: {status.name for status in names} >= {"COMPLETED_SUCCESS", "FAILED"},
    "GRPC_INFO_TAG": lambda tag: tag == ".dagster/grpc_info",
    "ComponentTree": lambda tree: [*inspect.signature(tree.from_module).parameters] == ["defs_module", "project_root"],
    "CheckError": lambda kind: issubclass(kind, Exception),
    "ComponentTreeException": lambda kind: issubclass(kind, Exception),
    "DagsterLibraryRegistry": lambda registry: "is_dagster_package" in inspect.signature(registry.register).parameters,
    "InstanceRef": lambda ref: {"base_dir", "config_dir"} <= inspect.signature(ref.from_dir).parameters.keys(),
    "NOT_FINISHED_STATUSES": lambda statuses: dg.DagsterRunStatus.STARTED in statuses,
    "SerializableErrorInfo": lambda info: {"message", "stack", "cls_name", "cause", "context"} <= set(info._fields),
    "UnresolvedAssetJobDefinition": lambda kind: isinstance(dg.define_asset_job("job"), kind),
    "UnresolvedPartitionedAssetScheduleDefinition": lambda kind: isinstance(
        dg.build_schedule_from_partitioned_job(dg.define_asset_job("job", selection="days")), kind
    ),
    "compute_logs": lambda module: module.subprocess is subprocess,
    "disable_dagster_warnings": lambda context: hasattr(context(), "__enter__"),
    "replace_record": lambda replace: replace(dg.define_asset_job("job"), description="x").description == "x",
    "resource_annotation": lambda module: (
        [p.name for p in module.get_resource_args(lambda lakehouse, x: None)] == ["lakehouse"]
    ),
    "serializable_error_info_from_exc_info": lambda make: "exc_info" in inspect.signature(make).parameters,
}


@pytest.mark.parametrize("name", [*_dagster.__all__, *of_operations.__all__])
def test_a_private_name_is_what_we_take_it_for(name: str) -> None:
    assert CHECKS[name](getattr(_dagster, name, None) or getattr(of_operations, name))


def test_no_other_module_uses_private_names_of_dagster() -> None:
    """But for the storages: `framework.storage` extends them, and importing them takes half a second."""
    known = {"_dagster.py", "storage.py"}
    private = {
        f"{file.name}: {name}"
        for room in _ROOMS
        for file in room.rglob("*.py")
        if file.name not in known
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (name := node.module or "").startswith(("dagster._", "dagster_shared"))
        if "storage" not in name
    }
    assert private == set()
