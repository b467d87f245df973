"""Which columns tables will have after a run, as far as that can be known before: what changes, and what it breaks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Protocol

from pyiceberg.types import DecimalType, DoubleType, FloatType, IcebergType, IntegerType, LongType

from cascade.catalog import BranchingCatalog
from cascade.config import Settings
from cascade.plugins import load_all
from cascade_operations.planned import ColumnChange

__all__ = [
    "Column",
    "ColumnSource",
    "Columns",
    "Foreseen",
    "LineageSource",
    "changes_between",
    "find_reached",
    "foresee",
    "is_wider",
]

#: The columns of a table and their types.
Columns = Mapping[str, IcebergType]
#: A table, `namespace.table`, and one of its columns.
Column = tuple[str, str]


@dataclass(frozen=True)
class Foreseen:
    """What a run does to the columns of a table.

    Attributes:
        changes: What changes.
        columns: The columns after the run.
        known: Whether that could be found out.
        problem: Why the run fails, or if `known` is false, why nothing is known; else empty.
    """

    changes: tuple[ColumnChange, ...] = ()
    columns: Columns = field(default_factory=dict)
    known: bool = True
    problem: str = ""


class ColumnSource(Protocol):
    """Group `cascade.columns`, by any name: says which columns tables will have, without computing them."""

    def __call__(
        self,
        settings: Settings,
        catalog: BranchingCatalog,
        loads: Mapping[str, Foreseen],
        asked: Set[str],
        *,
        full_refresh: bool,
    ) -> Mapping[str, Foreseen]:
        """Look at tables `namespace.table`; what others make, and what cannot be told, is passed over.

        Args:
            settings: The project's settings.
            catalog: The catalog; a run begins with what `main` holds.
            loads: The tables that loads change.
            asked: The tables that the run makes.
            full_refresh: Whether incremental models are created again.

        Returns:
            The tables whose columns change or cannot be foretold, those that the run does not make included: they may
            not be computable afterwards. Those of `loads` are among them, with the consumers of their columns.
        """


def foresee(
    settings: Settings,
    catalog: BranchingCatalog,
    loads: Mapping[str, Foreseen],
    asked: Set[str],
    *,
    full_refresh: bool,
) -> dict[str, Foreseen]:
    """Ask all packages that know; arguments as for `ColumnSource`."""
    found = dict(loads)
    for record in load_all("cascade.columns", ColumnSource):
        if not record.cause:
            found.update(record.object(settings, catalog, found, asked, full_refresh=full_refresh))
    return found


class LineageSource(Protocol):
    """Group `cascade.column_lineage`, by any name: says which columns come from a column, without computing them."""

    def __call__(
        self, settings: Settings, catalog: BranchingCatalog, columns: Collection[Column]
    ) -> Mapping[Column, tuple[str, ...]]:
        """Follow columns of `main` through all tables that are computed from them, directly or not.

        Args:
            settings: The project's settings.
            catalog: The catalog.
            columns: The columns; those of tables that nothing reads are passed over.

        Returns:
            By column: `namespace.table.column`, in the order of the tables; `namespace.table.*` where it is not known
            which columns of a table come from it.
        """


def find_reached(
    settings: Settings, catalog: BranchingCatalog, columns: Collection[Column]
) -> dict[Column, tuple[str, ...]]:
    """Ask all packages that know; arguments and result as for `LineageSource`."""
    found: dict[Column, tuple[str, ...]] = {}
    for record in load_all("cascade.column_lineage", LineageSource) if columns else ():
        if not record.cause:
            for column, reached in record.object(settings, catalog, columns).items():
                found[column] = (*found.get(column, ()), *reached)
    return found


def changes_between(before: Columns, after: Columns) -> Iterator[ColumnChange]:
    """Yield what happens to each column that differs.

    Args:
        before: The columns of the table on `main`.
        after: Its columns after the run.
    """
    for name, kind in before.items():
        if name not in after:
            yield ColumnChange("drop", name, str(kind), None, breaking=True)
        elif _text(after[name]) != _text(kind):
            breaking = not is_wider(kind, after[name])
            yield ColumnChange("retype", name, str(kind), str(after[name]), breaking=breaking)
    yield from (ColumnChange("add", name, None, str(kind)) for name, kind in after.items() if name not in before)


def is_wider(before: IcebergType, after: IcebergType) -> bool:
    """Say whether a type holds all values of another one."""
    match before, after:
        case (IntegerType(), LongType()) | (FloatType(), DoubleType()):
            return True
        case DecimalType(), DecimalType():
            return after.scale == before.scale and after.precision >= before.precision
    return False


def _text(kind: IcebergType) -> str:
    """Return a type without the ids of nested fields, which each table numbers by itself."""
    return re.sub(r"\b\d+: ", "", str(kind))
