"""SQL on a branch by Trino: the branch's own catalog, every table at the snapshot that it had when all began."""

from cascade_servers.trino.engine import (
    DBT_MACROS,
    await_ready,
    dbt_target,
    environment,
    forget,
    leftovers,
    query,
)

__all__ = [
    "DBT_MACROS",
    "await_ready",
    "dbt_target",
    "environment",
    "forget",
    "leftovers",
    "query",
]
