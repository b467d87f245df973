"""Run SQL on a branch. Which engine runs it is the project's setting; what is promised is the same on each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cascade.engine.base import engine_of
from cascade.engine.snapshots import show

if TYPE_CHECKING:
    import datetime as dt

    import pyarrow as pa

    from cascade.catalog import BranchingCatalog

__all__ = ["delete_branch", "query"]


def query(
    catalog: BranchingCatalog,
    ref: str,
    sql: str,
    *,
    at: int | dt.datetime | None = None,
    parameters: list[object] | None = None,
) -> pa.Table:
    """Run one SELECT on a reference and return its rows.

    All tables are read at one moment, so half a promotion is never seen.

    Args:
        catalog: The catalog.
        ref: Branch or tag.
        sql: One statement that reads, in the engine's SQL; tables are named `namespace.table`. `SHOW TABLES`,
            `SHOW COLUMNS FROM` and `DESCRIBE` give the same on every engine.
        at: A snapshot's id, for the table that has it; or a time: on `main` all tables as they were
            promoted then, elsewhere each table's newest snapshot until then.
        parameters: Values for the `?` in the statement.

    Raises:
        QueryError: It writes, is no SQL, or names something that does not exist.
        BranchNotFoundError: There is no such reference.
        ServiceError: The engine is a server that cannot be used.
    """
    shown = show(catalog, ref, sql, at)
    return engine_of(catalog.settings).query(catalog, ref, sql, at, parameters) if shown is None else shown


def delete_branch(catalog: BranchingCatalog, name: str) -> None:
    """Delete a branch or tag, and what the engine keeps for it; raises as `catalog.delete` does.

    The branch is deleted even if the engine cannot be reached: `drop_leftovers` of the engine cleans up later.
    """
    catalog.delete(name)
    engine_of(catalog.settings).forget(catalog, name)
