"""What people and programs ask of a lakehouse: one function each. The door, resolved on first use.

Each function takes the project's settings, returns frozen records, and tells a listener what happens. Leases and locks
are taken in it. Command line, Dagster's jobs and tests call the same functions.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cascade_operations.branches import create_branch, delete_branch, diff, list_branches, log
    from cascade_operations.configuration import list_settings
    from cascade_operations.diagnosis import diagnose
    from cascade_operations.partitions import add_partitions, list_partitions, remove_partitions
    from cascade_operations.promotion import promote, restore
    from cascade_operations.quarantine import drop_quarantine, list_quarantine, read_quarantine, replay_quarantine
    from cascade_operations.records import to_document
    from cascade_operations.run import materialize, plan_run, run_pipeline
    from cascade_operations.schedules import list_schedules, switch_schedules
    from cascade_operations.schema import apply_schema, plan_schema
    from cascade_operations.table_changes import drop_tables, plan_refresh, rename_table, reset_table
    from cascade_operations.tables import list_tables, query, show_table, table_history

__all__ = [
    "add_partitions",
    "apply_schema",
    "create_branch",
    "delete_branch",
    "diagnose",
    "diff",
    "drop_quarantine",
    "drop_tables",
    "list_branches",
    "list_partitions",
    "list_quarantine",
    "list_schedules",
    "list_settings",
    "list_tables",
    "log",
    "materialize",
    "plan_refresh",
    "plan_run",
    "plan_schema",
    "promote",
    "query",
    "read_quarantine",
    "remove_partitions",
    "rename_table",
    "replay_quarantine",
    "reset_table",
    "restore",
    "run_pipeline",
    "show_table",
    "switch_schedules",
    "table_history",
    "to_document",
]

# Module to what it holds. `cascade --help` needs none of it, and reading tables does not need Dagster.
_HOMES = {
    "cascade_operations.branches": ("create_branch", "delete_branch", "diff", "list_branches", "log"),
    "cascade_operations.configuration": ("list_settings",),
    "cascade_operations.diagnosis": ("diagnose",),
    "cascade_operations.partitions": ("add_partitions", "list_partitions", "remove_partitions"),
    "cascade_operations.promotion": ("promote", "restore"),
    "cascade_operations.quarantine": ("drop_quarantine", "list_quarantine", "read_quarantine", "replay_quarantine"),
    "cascade_operations.records": ("to_document",),
    "cascade_operations.run": ("materialize", "plan_run", "run_pipeline"),
    "cascade_operations.schema": ("apply_schema", "plan_schema"),
    "cascade_operations.schedules": ("list_schedules", "switch_schedules"),
    "cascade_operations.table_changes": ("drop_tables", "plan_refresh", "rename_table", "reset_table"),
    "cascade_operations.tables": ("list_tables", "query", "show_table", "table_history"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
