"""Run SQL on a branch. Which engine runs it is the project's setting; what is promised is the same on each."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from cascade.catalog import BranchingCatalog
from cascade.config import Settings
from cascade.engine import embedded
from cascade.engine.base import Engine
from cascade.engine.embedded import register_table, register_tables
from cascade.engine.snapshots import show
from cascade.errors import QueryError
from cascade.plugins import load

if TYPE_CHECKING:
    import pyarrow as pa

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


def query(
    catalog: BranchingCatalog,
    ref: str,
    sql: str,
    *,
    at: int | dt.datetime | None = None,
    parameters: list[object] | None = None,
) -> pa.Table:
    """Run one SELECT on a reference and return its rows.

    All tables are read as they stood at one moment, so half a promotion is never seen.

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
    found: pa.Table | None = show(catalog, ref, sql, at)
    if found is None:
        found = _engine(catalog).query(catalog, ref, sql, at, parameters)
    return found


def parse_at(value: str) -> int | dt.datetime:
    """Read `--at`: digits are a snapshot's id, all else is an ISO date or time; without a zone it is UTC.

    Raises:
        QueryError: It is neither.
    """
    if value.isdigit() and len(value) > 8:
        return int(value)
    try:
        moment = dt.datetime.fromisoformat(value)
    except ValueError:
        raise QueryError(
            f"{value!r} is neither a snapshot's id nor a time.",
            fix="give an id such as 5464506120183620500, or a time such as 2026-07-01T12:00.",
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def branch_environment(catalog: BranchingCatalog, ref: str, namespaces: Iterable[str]) -> dict[str, str]:
    """Return the variables by which a dbt process reaches a branch through the engine, which is made ready for it.

    Args:
        catalog: The catalog.
        ref: The branch.
        namespaces: Where dbt will write.

    Raises:
        QueryError: The engine cannot show the branch.
        ServiceError: The engine is a server that cannot be used.
    """
    found: dict[str, str] = _engine(catalog).environment(catalog, ref, namespaces)
    return found


def await_engine(settings: Settings, tell: Callable[[str], None]) -> None:
    """Wait for an engine that is a server, before work begins that would be lost without it.

    Args:
        settings: The project's settings.
        tell: Told what is waited for.

    Raises:
        ServiceError: It cannot be used.
    """
    if settings.engine != "embedded":
        load("cascade.engines", settings.engine, Engine, setting="engine").await_ready(settings, tell)


def delete_branch(catalog: BranchingCatalog, name: str) -> None:
    """Drop a branch or tag, and what the engine keeps for it; raises as `catalog.delete` does.

    An engine that does not answer keeps nobody from it: what it still holds, `drop_leftovers` finds.
    """
    catalog.delete(name)
    _engine(catalog).forget(catalog, name)


def drop_leftovers(catalog: BranchingCatalog) -> list[str]:
    """Drop what the engine keeps for branches that are not there any more.

    Returns:
        What was dropped, by the engine's names.

    Raises:
        ServiceError: The engine is a server that cannot be used.
    """
    found: list[str] = _engine(catalog).leftovers(catalog)
    return found


def _engine(catalog: BranchingCatalog) -> Any:
    """Return the module of the engine that is set, with `query`, `environment`, `forget` and `leftovers`."""
    if catalog.settings.engine == "embedded":
        return embedded
    return load("cascade.engines", catalog.settings.engine, Engine, setting="engine")
