"""What `cascade maintain` and the nightly job do: one function each, which takes the locks that it needs."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cascade.catalog import MAIN, open_catalog
from cascade.config import Settings
from cascade.errors import LeaseHeldError
from cascade_operations.events import Listener, Loading, ignore

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from cascade_maintain.branches import Cleaning
    from cascade_maintain.compact import Compaction
    from cascade_maintain.garbage import Collection
    from cascade_maintain.verify import Verification

__all__ = ["compact", "drop_branches", "remove_files", "verify"]


def compact(
    settings: Settings, tables: Sequence[str] = (), *, dry_run: bool = False, tell: Listener = ignore
) -> Compaction:
    """Rewrite small files of tables of `main` to few large ones, sorted by key; no row changes.

    Args:
        settings: The project's settings.
        tables: `namespace.table`; all by default.
        dry_run: Whether to rewrite nothing, and say what would be rewritten.
        tell: Told of progress.

    Raises:
        CatalogError: `main` has no such table.
    """
    from cascade_maintain.compact import compact_tables

    return compact_tables(open_catalog(settings), tables, dry_run=dry_run, tell=tell)


def drop_branches(
    settings: Settings,
    *,
    older_than: dt.timedelta,
    dry_run: bool = False,
    instance: DagsterInstance | None = None,
    tell: Listener = ignore,
) -> Cleaning:
    """Delete the branches of runs that ended long ago; runs of killed commands are closed first.

    Args:
        settings: The project's settings.
        older_than: How long ago the last thing must have happened on a branch.
        dry_run: Whether to remove nothing, and say what would be removed.
        instance: Where Dagster keeps its runs; by default the project's storage.
        tell: Told of progress.
    """
    catalog = open_catalog(settings)
    tell(Loading("runs"))
    from cascade_maintain.branches import clean_branches
    from cascade_operations.run import close_killed_runs

    with _storage(settings, instance) as runs:
        if not dry_run:
            with contextlib.suppress(LeaseHeldError), catalog.lease(MAIN, "the maintenance of branches"):
                close_killed_runs(runs)
        return clean_branches(catalog, settings, runs, older_than=older_than, dry_run=dry_run)


def remove_files(
    settings: Settings,
    *,
    older_than: dt.timedelta,
    keep_history: dt.timedelta,
    dry_run: bool = False,
    instance: DagsterInstance | None = None,
    run_id: str = "",
    tell: Listener = ignore,
) -> Collection:
    """Remove the files that no branch, tag or recent entry of the log needs.

    Args:
        settings: The project's settings.
        older_than: How old a file must be. Longer than the longest run.
        keep_history: How long entries of the log can be restored; at least `older_than`.
        dry_run: Whether to remove nothing, and say what would be removed.
        instance: Where Dagster keeps its runs; by default the project's storage.
        run_id: The Dagster run that asks, if one does.
        tell: Told of progress.

    Raises:
        CatalogError: It is unknown what is needed; nothing was removed.
    """
    catalog = open_catalog(settings)
    tell(Loading("runs"))
    from cascade_maintain.branches import unfinished_since
    from cascade_maintain.garbage import collect_files

    with _storage(settings, instance) as runs:
        unfinished = unfinished_since(runs, but=run_id)
    return collect_files(
        catalog,
        older_than=older_than,
        keep_history=keep_history,
        unfinished_since=unfinished,
        dry_run=dry_run,
        tell=tell,
    )


def verify(settings: Settings, *, tell: Listener = ignore) -> Verification:
    """Read every data file of every branch and tag, and name the damaged ones.

    Args:
        settings: The project's settings.
        tell: Told of progress.
    """
    from cascade_maintain.verify import verify_files

    return verify_files(open_catalog(settings), tell=tell)


@contextlib.contextmanager
def _storage(settings: Settings, instance: DagsterInstance | None) -> Iterator[DagsterInstance]:
    """Use the storage of the run that asks, else open the project's."""
    from cascade.framework.instance import open_instance

    if instance is not None:
        yield instance
        return
    with open_instance(settings) as opened:
        yield opened
