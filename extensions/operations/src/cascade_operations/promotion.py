"""Move `main`: promote a branch, or restore an entry of the log. The lease of `main` is held until it is done."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cascade.catalog import MAIN, BranchingCatalog, LogEntry, open_catalog
from cascade.config import Settings
from cascade.errors import CascadeError, UsageError
from cascade.names import run_branch
from cascade_operations.after import followed
from cascade_operations.events import Listener, Loading, ignore
from cascade_operations.records import MainMove, Move

if TYPE_CHECKING:
    from cascade.publish.after import FollowUp

__all__ = ["change_main", "promote", "restore"]


def promote(settings: Settings, branch: str, *, tell: Listener = ignore) -> MainMove:
    """Move `main` to a branch if all blocking checks passed on it, then publish the marts.

    All tables move at once, or none.

    Args:
        settings: The project's settings.
        branch: The branch; that of a run ends with its promotion.
        tell: Told of progress.

    Raises:
        BranchNotFoundError: It does not exist.
        UsageError: It is `main`.
        LeaseHeldError: Another process is working towards `main`.
        PromotionRefusedError: A check has failed or has not run; all of them are named.
        PromotionConflictError: `main` moved since the branch was created.
        ServiceError: The marts cannot be published; `main` may have moved, which the message says.
    """
    if branch == MAIN:
        raise UsageError("`main` is what branches are promoted to.", fix="name one; `cascade branch list` shows them.")
    catalog = open_catalog(settings)
    catalog.changes(branch)  # an unknown name is refused before anything is loaded
    tell(Loading("workflows and models"))
    from cascade.framework.definitions import build_definitions, guards_of
    from cascade.framework.instance import open_instance
    from cascade.publish import after_promotion, promote_branch

    guards = guards_of(build_definitions(settings))

    def move() -> LogEntry | None:
        with open_instance(settings) as instance:
            return promote_branch(catalog, branch, instance, guards)

    with followed(settings, tell, "cascade branch promote", branch=branch, promoted=True):
        return _move_main(catalog, settings, f"the promotion of {branch}", move, after_promotion)


def restore(settings: Settings, entry: int) -> MainMove:
    """Put `main` back to its state after an entry of its log, then publish the marts.

    Nothing is lost: the restore is an entry of the log itself.

    Args:
        settings: The project's settings.
        entry: Number of the entry; 0 is the state before the first.

    Raises:
        CatalogError: The log has no such entry, or its files were removed.
        LeaseHeldError: Another process is working towards `main`.
        ServiceError: The marts cannot be published; `main` may have moved, which the message says.
    """
    catalog = open_catalog(settings)
    return _move_main(catalog, settings, f"the restore of entry {entry}", lambda: catalog.restore(entry))


def change_main(
    settings: Settings, command: str, work: Callable[[str], None], *, promoted: bool = True, tell: Listener = ignore
) -> tuple[str, MainMove | None]:
    """Work on a new branch of `main`, and promote it; after a failure of either the branch is deleted.

    Args:
        settings: The project's settings.
        command: The command, for the message to who is refused the lease of `main`.
        work: Is given the branch.
        promoted: Whether the branch is promoted.
        tell: Told of progress.

    Returns:
        The branch, and what the promotion did; `None` without one.

    Raises:
        LeaseHeldError: Another process is working towards `main`.
        PromotionRefusedError: A check has failed or has not run.
    """
    from cascade.engine import delete_branch

    catalog, branch = open_catalog(settings), run_branch(str(uuid.uuid4()))
    try:
        with catalog.lease(MAIN, command):
            catalog.create(branch)
            work(branch)
        return branch, promote(settings, branch, tell=tell) if promoted else None
    except BaseException:
        with contextlib.suppress(Exception):  # what failed is told
            if catalog.exists(branch):
                delete_branch(catalog, branch)
        raise


def _move_main(
    catalog: BranchingCatalog,
    settings: Settings,
    holder: str,
    move: Callable[[], LogEntry | None],
    follow: Callable[[BranchingCatalog, LogEntry], Iterable[FollowUp]] = lambda *_: (),
) -> MainMove:
    """Move `main`, then publish its marts: readers of reports must not see what `main` no longer holds."""
    from cascade.publish.marts import publish_marts

    with catalog.lease(MAIN, holder):
        entry = move()
        try:
            published = publish_marts(catalog, settings)
        except CascadeError as error:
            state = f"has moved (entry {entry.id} of the log)" if entry else "is unchanged"
            raise type(error)(
                f"`main` {state}, but its marts are not published: {error.what}",
                where=error.where,
                fix=f"{error.fix} Then `cascade run --select cascade/publish` publishes them.".strip(),
            ) from error
        followed = {one.name: one.said for one in (follow(catalog, entry) if entry else ())}
    return MainMove(Move.of(entry) if entry else None, published, followed)
