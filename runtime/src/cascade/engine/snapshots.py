"""Which state of which table a statement reads: all at one moment. The same for every engine."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cascade.catalog import MAIN, BranchingCatalog
from cascade.errors import QueryError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table

__all__ = ["State", "explain_missing", "only_reading", "show", "states"]

_SHOW_TABLES = re.compile(r'\s*show\s+(all\s+)?tables(\s+(from|in)\s+"?(?P<namespace>\w+)"?)?[\s;]*', re.IGNORECASE)
_DESCRIBE = re.compile(
    r'\s*(describe|desc|show\s+columns\s+(from|in))\s+"?(?P<table>\w+"?\."?[^"\s;]+)"?[\s;]*', re.IGNORECASE
)


@dataclass(frozen=True)
class State:
    """A table as a statement reads it.

    Attributes:
        table: The table at the moment when the statement began, or at the time that was asked for.
        snapshot_id: The snapshot to read; `None`: the newest, with the columns that the table has now.
    """

    table: Table
    snapshot_id: int | None = None

    @property
    def schema(self) -> Schema:
        """The columns that the statement sees."""
        if self.snapshot_id is None:
            return self.table.schema()
        snapshot = self.table.metadata.snapshot_by_id(self.snapshot_id)
        if snapshot is None or snapshot.schema_id is None:
            return self.table.schema()
        return self.table.schemas()[snapshot.schema_id]


def states(
    catalog: BranchingCatalog,
    ref: str,
    at: int | dt.datetime | None,
    mentioned: Callable[[Iterable[str]], Iterable[str]],
) -> dict[str, State]:
    """Find the tables that a statement reads.

    Args:
        catalog: The catalog.
        ref: Branch or tag.
        at: As for `cascade.engine.query`.
        mentioned: Given the names of all tables, returns those that the statement may read.

    Returns:
        `namespace.table` to its state; without tables that had no snapshot yet at that time.

    Raises:
        QueryError: No table has the snapshot that was asked for.
        BranchNotFoundError: There is no such reference.
    """
    moment = at if isinstance(at, dt.datetime) else None
    pointers = catalog.pointers(ref, at=_moment(ref, at))
    tables = {name: catalog.load(name, pointers[name]) for name in mentioned(pointers)}
    if isinstance(at, int):
        with_it = {name: state for name, table in tables.items() if (state := _with_snapshot(catalog, name, table, at))}
        if not with_it:
            raise QueryError(
                f"No table of this statement has snapshot {at}, or it is not kept any more.",
                where=f"branch {ref}, tables {', '.join(tables) or 'none'}",
                fix="take an id from the table's history, or give a time instead.",
            )
        return {name: with_it.get(name, State(table)) for name, table in tables.items()}
    if moment is None or ref == MAIN:
        return {name: State(table) for name, table in tables.items()}
    then = {name: _as_of(catalog, name, table, moment) for name, table in tables.items()}
    return {name: state for name, state in then.items() if state}


def _with_snapshot(catalog: BranchingCatalog, name: str, table: Table, snapshot_id: int) -> State | None:
    from cascade.iceberg.head import past

    states = (State(then, snapshot_id) for then in past(catalog, name, table))
    return next((state for state in states if state.table.metadata.snapshot_by_id(snapshot_id)), None)


def _as_of(catalog: BranchingCatalog, name: str, table: Table, moment: dt.datetime) -> State | None:
    """Return a table as it was at a time; `None` when it had no snapshot yet."""
    from cascade.iceberg.head import is_cut, past

    for then in past(catalog, name, table):
        if snapshot := then.snapshot_as_of_timestamp(int(moment.timestamp() * 1000)):
            return State(then, snapshot.snapshot_id)
    if is_cut(then):
        raise QueryError(
            f"What {name} held at {moment:%Y-%m-%d %H:%M:%S %Z} is not kept any more.",
            where=f"table {name}",
            fix="read a later time.",
        )
    return None


def show(catalog: BranchingCatalog, ref: str, sql: str, at: int | dt.datetime | None) -> pa.Table | None:
    """Answer `SHOW TABLES`, `SHOW COLUMNS` and `DESCRIBE` from the catalog, the same on every engine.

    Args:
        catalog: The catalog.
        ref: Branch or tag.
        sql: The statement.
        at: As for `cascade.engine.query`.

    Returns:
        The rows; `None` when it is another statement.

    Raises:
        QueryError: There is no such table.
        BranchNotFoundError: There is no such reference.
    """
    import pyarrow as pa

    if asked := _SHOW_TABLES.fullmatch(sql):
        names = [name.split(".", 1) for name in sorted(catalog.pointers(ref, at=_moment(ref, at)))]
        names = [name for name in names if asked["namespace"] in (None, name[0])]
        columns = [pa.array([name[n] for name in names], pa.string()) for n in range(2)]
        return pa.table(columns, ["namespace", "table"])
    if asked := _DESCRIBE.fullmatch(sql):
        wanted = asked["table"].replace('"', "").lower()
        found = states(catalog, ref, at, lambda names: [name for name in names if name.lower() == wanted])
        if not found:
            raise QueryError(
                f"There is no table {wanted}.", where=f"branch {ref}", fix=explain_missing(catalog, ref, at)
            )
        fields = next(iter(found.values())).schema.fields
        rows = {
            "column": [field.name for field in fields],
            "type": [str(field.field_type) for field in fields],
            "required": [field.required for field in fields],
            "comment": pa.array([field.doc for field in fields], pa.string()),
        }
        return pa.table(rows)
    return None


def _moment(ref: str, at: int | dt.datetime | None) -> dt.datetime | None:
    """Return the time of the log to read: only `main` has one."""
    return at if isinstance(at, dt.datetime) and ref == MAIN else None


def explain_missing(catalog: BranchingCatalog, ref: str, at: int | dt.datetime | None = None) -> str:
    """Say which tables there are, for an error about one that does not exist."""
    moment = _moment(ref, at)
    found = ", ".join(sorted(catalog.pointers(ref, at=moment)))
    if moment is not None:
        return f"the tables of `{ref}` at {moment:%Y-%m-%d %H:%M:%S %Z} were {found or 'none yet'}; read a later time."
    return f"the tables of `{ref}` are {found or 'none yet: run the pipeline first'}."


def only_reading(kinds: Iterable[str]) -> QueryError:
    """Return the refusal of everything but one SELECT.

    Args:
        kinds: What the statements are, in capitals.
    """
    return QueryError(
        f"Only one statement that reads is allowed, not {' and '.join(kinds) or 'an empty one'}.",
        where="the statement",
        fix="write data with a workflow or a dbt model: every write goes through a branch and its checks.",
    )
