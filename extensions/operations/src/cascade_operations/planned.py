"""What a plan says: what a run would do, and what it would break."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["ColumnChange", "Plan", "PlannedAsset", "PlannedCheck"]


@dataclass(frozen=True)
class ColumnChange:
    """A column of a table on `main` that the run changes.

    Attributes:
        action: `add`: the table gets it. `drop`: the table loses it. `retype`: it gets another type. `refuse`: the run
            fails, as long as nobody has decided about it.
        column: The column.
        before: Its type on `main`; `None` where it is added.
        after: Its type after the run; `None` where it is dropped.
        breaking: Whether what reads the column may fail: it is dropped, refused, or has a type that does not hold all
            values of the old one.
        consumers: What reads it, as far as that is known: models, exposures and other assets by their keys, checks as
            `check NAME`, and the published table of a mart.
        reaches: The columns that come from it, `namespace.table.column`, through whatever tables; where it is breaking.
        note: What else is to be said of it.
    """

    action: Literal["add", "drop", "retype", "refuse"]
    column: str
    before: str | None
    after: str | None
    breaking: bool = False
    consumers: tuple[str, ...] = ()
    reaches: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class PlannedCheck:
    """A check that looks at what the run writes.

    Attributes:
        name: Its name.
        blocking: Whether its failure keeps the branch from being promoted.
    """

    name: str
    blocking: bool


@dataclass(frozen=True)
class PlannedAsset:
    """An asset that the run would materialize.

    Attributes:
        asset: Its key, `namespace/table`.
        why: Why it is in the run: one or several reasons.
        missing: How many partitions are loaded; 0 for an asset without partitions.
        partitions: These partitions as spans, `first..last`.
        columns: What happens to columns that its table on `main` has, or gets.
        columns_known: Whether that could be found out; if not, `problem` says why.
        problem: Why the run would fail here, or why nothing is known of the columns; empty when all is well.
        checks: The checks of the asset.
        seconds: How long it took when it was last materialized; `None` when that is not known.
    """

    asset: str
    why: tuple[str, ...]
    missing: int = 0
    partitions: tuple[str, ...] = ()
    columns: tuple[ColumnChange, ...] = ()
    columns_known: bool = True
    problem: str = ""
    checks: tuple[PlannedCheck, ...] = ()
    seconds: float | None = None

    @property
    def breaking(self) -> bool:
        """Whether something breaks: a column, or the run itself."""
        return any(change.breaking for change in self.columns) or bool(self.problem and self.columns_known)


@dataclass(frozen=True)
class Plan:
    """What a run would do. Nothing was run.

    Attributes:
        assets: What would be materialized, in the order of the run.
        breaking: How many of them break something: a column that is read, or the run itself.
        up_to_date: Assets whose partitions are all loaded.
        left_out: Models that are left out, since nothing has changed for them, and when each was made.
        promote: Whether the run would promote its branch.
        seconds: How long all of it took when it was last materialized, as far as that is known.
        orphans: Tables of `main` that nothing of the project makes any more; no run drops them.
        conflicts: Open branches that have changed a table which a full refresh loads from the start: they cannot be
            promoted afterwards.
    """

    assets: tuple[PlannedAsset, ...]
    breaking: int
    up_to_date: tuple[str, ...]
    left_out: Mapping[str, dt.datetime]
    promote: bool
    seconds: float
    orphans: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
