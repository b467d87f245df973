"""What `cascade maintain` and the nightly job do: one function each, which takes the locks that it needs."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cascade.catalog import MAIN, open_catalog
from cascade.config import Settings
from cascade.errors import LeaseHeldError
from cascade_operations.events import Listener, Loading, ignore

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from cascade_maintain.branches import Cleaning
    from cascade_maintain.compact import Compaction
    from cascade_maintain.expire import Expiry
    from cascade_maintain.garbage import Collection
    from cascade_maintain.verify import Verification

__all__ = ["Upkeep", "compact", "drop_branches", "expire", "maintain_all", "remove_files", "verify"]


@dataclass(frozen=True)
class Upkeep:
    """What all steps of maintenance did, or would do, in their order.

    Attributes:
        branches: Branches of runs that ended long ago.
        compaction: Small files of tables.
        expiry: Old snapshots of tables.
        files: Files that nothing needs.
    """

    branches: Cleaning
    compaction: Compaction
    expiry: Expiry
    files: Collection


def maintain_all(
    settings: Settings,
    *,
    branches_older_than: dt.timedelta,
    files_older_than: dt.timedelta,
    keep_history: dt.timedelta,
    dry_run: bool = False,
    instance: DagsterInstance | None = None,
    run_id: str = "",
    tell: Listener = ignore,
) -> Upkeep:
    """Take all steps in the order in which one makes work for the next: branches, compaction, snapshots, files.

    Args:
        settings: The project's settings.
        branches_older_than: `older_than` of `drop_branches`.
        files_older_than: `older_than` of `remove_files`.
        keep_history: How long past states of `main` stay.
        dry_run: Whether to do nothing, and say what each step would do to the lake as it is.
        instance: Where Dagster keeps its runs; by default the project's storage.
        run_id: The Dagster run that asks, if one does.
        tell: Told of progress.

    Raises:
        CatalogError: It is unknown which files are needed; the other steps are done.
    """
    with _storage(settings, instance) as runs:
        common: dict[str, Any] = {"dry_run": dry_run, "tell": tell}
        return Upkeep(
            branches=drop_branches(settings, older_than=branches_older_than, instance=runs, **common),
            compaction=compact(settings, **common),
            expiry=expire(settings, keep_history=keep_history, **common),
            files=remove_files(
                settings,
                older_than=files_older_than,
                keep_history=keep_history,
                instance=runs,
                run_id=run_id,
                **common,
            ),
        )


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


def expire(
    settings: Settings,
    tables: Sequence[str] = (),
    *,
    keep_history: dt.timedelta,
    dry_run: bool = False,
    tell: Listener = ignore,
) -> Expiry:
    """Take old snapshots out of tables of `main`; no row changes, and what branches, tags and the log name stays.

    Args:
        settings: The project's settings.
        tables: `namespace.table`; all by default.
        keep_history: How long ago a snapshot must have been replaced.
        dry_run: Whether to do nothing, and say what would leave.
        tell: Told of progress.

    Raises:
        CatalogError: `main` has no such table.
    """
    from cascade_maintain.expire import expire_snapshots

    return expire_snapshots(open_catalog(settings), tables, keep_history=keep_history, dry_run=dry_run, tell=tell)


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
