"""Run SQL on a branch. Which engine runs it is the project's setting; what is promised is the same on each."""

from cascade.engine.query import (
    await_engine,
    branch_environment,
    delete_branch,
    drop_leftovers,
    parse_at,
    query,
    register_table,
    register_tables,
)

__all__ = [
    "await_engine",
    "branch_environment",
    "delete_branch",
    "drop_leftovers",
    "parse_at",
    "query",
    "register_table",
    "register_tables",
]
