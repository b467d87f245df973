"""Put tables of `main` into another state of the same rows: on a branch of its own, which is then merged.

So `main` moves as by a promotion, and what somebody wrote in between is not lost: then nothing moves.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.table import Table
from pyiceberg.table.update import TableRequirement, TableUpdate

from cascade.catalog import MAIN, BranchingCatalog, check_table_name
from cascade.errors import BranchNotFoundError, CatalogError, PromotionConflictError
from cascade.names import RUN_BRANCH_PREFIX

__all__ = ["BRANCH_PREFIX", "LIFT_PREFIX", "TOLD", "Commit", "maintained", "own_branch", "tables_of_main"]

#: How the branches begin on which tables are maintained.
BRANCH_PREFIX = f"{RUN_BRANCH_PREFIX}maintain-"
#: How the branches begin on which tables of another lake arrive.
LIFT_PREFIX = f"{RUN_BRANCH_PREFIX}lift-"
#: What a commit requires of a table, and what it changes.
Commit = tuple[tuple[TableRequirement, ...], tuple[TableUpdate, ...]]

#: Progress is told once for so many tables.
TOLD = 100

_ATTEMPTS = 3


def tables_of_main(catalog: BranchingCatalog, names: Collection[str]) -> dict[str, str]:
    """Return where some tables of `main` are, or all tables.

    Raises:
        CatalogError: `main` has no such table; all that are missing are named.
    """
    pointers = dict(sorted(catalog.pointers(MAIN).items()))
    if missing := sorted(set(map(check_table_name, names)) - pointers.keys()):
        raise CatalogError(
            f"`{MAIN}` has no table {', '.join(missing)}.", fix=f"name some of {', '.join(pointers) or 'none'}."
        )
    return {name: pointers[name] for name in (names or pointers)}


def maintained(catalog: BranchingCatalog, names: Sequence[str], commit: Callable[[Table], Commit | None]) -> bool:
    """Put tables of `main` into another state of the same rows, all at once; say whether that was possible.

    Args:
        catalog: The catalog.
        names: The tables, `namespace.table`; those that were dropped since are left out.
        commit: Given a table, returns the commit; `None` when it needs none. Called again for a second attempt.

    Returns:
        `False` when other runs wrote one of the tables each time.
    """
    for _ in range(_ATTEMPTS):
        with (
            own_branch(catalog, BRANCH_PREFIX) as branch,
            contextlib.suppress(PromotionConflictError, CommitFailedException),
        ):
            reference: Any = catalog.open(branch)
            commits = []
            for name in names:
                with contextlib.suppress(NoSuchTableError):
                    table = reference.load_table(name)
                    if changes := commit(table):
                        commits.append((table, *changes))
            if commits:
                reference.commit_tables(commits)
                catalog.merge(branch, MAIN)
            return True
    return False


@contextlib.contextmanager
def own_branch(catalog: BranchingCatalog, prefix: str) -> Iterator[str]:
    """Create a branch for one change of `main`, and delete it afterwards; `prefix` is how its name begins."""
    name = f"{prefix}{uuid.uuid4().hex[:8]}"
    catalog.create(name)
    try:
        yield name
    finally:
        with contextlib.suppress(BranchNotFoundError):
            catalog.delete(name)
