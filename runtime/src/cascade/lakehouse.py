"""The lakehouse as one run sees it: its branch, its tables, SQL on them."""

from __future__ import annotations

import datetime as dt
from functools import cached_property
from typing import TYPE_CHECKING

from cascade.catalog import MAIN, BranchingCatalog, check_reference_name, open_catalog
from cascade.config import Settings, load_settings
from cascade.engine import Engine, engine_of
from cascade.engine import query as run_query
from cascade.errors import BranchNotFoundError
from cascade.names import ASSET_JOB, BACKFILL_TAG, BRANCH_TAG, run_branch

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    from dagster import DagsterRun
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

__all__ = ["Lakehouse", "branch_of_run", "open"]


def branch_of_run(run: DagsterRun, settings: Settings) -> str:
    """Return the branch that a run writes to, from the run's record.

    Every step asks for it, in whatever process it runs, and a re-execution finds the branch of the run it repeats.
    The settings decide for a bare materialization only until its first step opens the lakehouse: from then on
    the run has the tag `cascade/branch`.

    Args:
        run: The run.
        settings: Settings of the process that asks.
    """
    if named := run.tags.get(BRANCH_TAG):
        return check_reference_name(named)
    # One backfill is several runs without a common root.
    if backfill := run.tags.get(BACKFILL_TAG):
        return run_branch(backfill)
    if run.job_name.startswith(ASSET_JOB):
        return settings.branch
    return run_branch(run.root_run_id or run.run_id)


class Lakehouse:
    """One branch of the lakehouse; the resource `lakehouse` of a run.

    Args:
        settings: The project's settings.
        branch: The branch; it is created when something is written.
        made: Whether the branch must exist; otherwise reads fall back to `main`.
    """

    # What `dagster.ResourceParam` adds to a type: a parameter annotated with this class is the resource.
    __metadata__ = ("resource_param",)

    def __init__(self, settings: Settings, branch: str, *, made: bool = False) -> None:
        self.settings = settings
        self.branch = branch
        self._made = made and branch != MAIN

    @cached_property
    def catalog(self) -> BranchingCatalog:
        """The catalog with all branches."""
        return open_catalog(self.settings)

    @property
    def engine(self) -> Engine:
        """What runs SQL on the lakehouse."""
        return engine_of(self.settings)

    @property
    def ref(self) -> str:
        """What to read: the branch, or `main` as long as the branch was not created.

        Raises:
            BranchNotFoundError: The branch was deleted while it was written to.
        """
        return self.branch if self.require_branch() or self.catalog.exists(self.branch) else MAIN

    def ensure_branch(self) -> str:
        """Create the branch unless it exists, and return its name. Call it before writing; raises as `ref` does."""
        if self.branch != MAIN and not self.require_branch():
            self.catalog.create_if_missing(self.branch)
            self._made = True
        return self.branch

    def require_branch(self) -> bool:
        """Say whether the branch was written to, and raise if it was deleted since: the run would silently read `main`.

        Raises:
            BranchNotFoundError: It was deleted since.
        """
        if self._made and not self.catalog.exists(self.branch):
            raise BranchNotFoundError(
                f"Branch `{self.branch}` was deleted while it was in use; what was not promoted is gone.",
                where=f"branch {self.branch}",
                fix="run again, or open another branch: `main` is unchanged.",
            )
        return self._made

    def forget_branch(self) -> None:
        """Accept from now on that the branch does not exist: it was promoted."""
        self._made = False

    def tables(self) -> list[str]:
        """Return the names `namespace.table` of all tables."""
        return sorted(self.catalog.pointers(self.ref))

    def table(self, name: str) -> Table:
        """Open a table. For commits call `ensure_branch` first: without a branch it is the table of `main`.

        Args:
            name: `namespace.table`.

        Raises:
            pyiceberg.exceptions.NoSuchTableError: There is no such table.
        """
        return self.catalog.open(self.ref).load_table(name)

    def head(self, name: str) -> int | None:
        """Return the id of a table's newest snapshot; `None` without the table or without a snapshot."""
        snapshot = self._snapshot(name)
        return snapshot.snapshot_id if snapshot else None

    def row_count(self, name: str) -> int | None:
        """Return how many rows a table has, from its newest snapshot; `None` as for `head`."""
        from cascade.iceberg.read import row_count

        snapshot = self._snapshot(name)
        return row_count(snapshot) if snapshot else None

    def _snapshot(self, name: str) -> Snapshot | None:
        pointers = self.catalog.pointers(self.ref)
        return self.catalog.load(name, pointers[name]).current_snapshot() if name in pointers else None

    def query(
        self, sql: str, *, at: int | dt.datetime | None = None, parameters: list[object] | None = None
    ) -> pa.Table:
        """Run one SELECT on the branch and return its rows; see `cascade.engine.query`."""
        return run_query(self.catalog, self.ref, sql, at=at, parameters=parameters)


def open(branch: str = MAIN, *, project: Path | None = None) -> Lakehouse:
    """Open the lakehouse of a project to read it, in a notebook or a script.

    Args:
        branch: The branch or tag to read.
        project: The project's folder, or one below it; the working folder by default.

    Raises:
        ConfigurationError: There is no project, or its settings are wrong.
        BranchNotFoundError: There is no such branch.
    """
    lakehouse = Lakehouse(load_settings(project), branch, made=True)
    lakehouse.catalog.open(branch)  # a wrong name is told here, not by the first query
    return lakehouse
