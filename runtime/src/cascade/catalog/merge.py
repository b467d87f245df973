"""What a catalog does with its branches, as pure functions: what moves, what conflicts, what a log says of the past.

Every catalog asks these questions and gives these messages; only how it reads and moves tables is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from cascade.catalog.changes import LogEntry, TableChange
from cascade.errors import BranchNotFoundError, CatalogError, PromotionConflictError
from cascade.names import MAIN, is_run_branch

__all__ = [
    "changed_error",
    "conflict_error",
    "follows",
    "missing_error",
    "require_branch",
    "require_entry",
    "require_unchanged",
    "taken_error",
    "to_move",
    "undo",
]


def to_move(
    source: str,
    target: str,
    changes: Iterable[TableChange],
    current: Mapping[str, str | None],
    same: Callable[[str, str, str], bool],
) -> list[TableChange]:
    """Return which tables a merge moves: those that the target does not have in their new state already.

    Args:
        source: The branch to apply.
        target: The branch that moves.
        changes: What the source changed since it was created or last promoted.
        current: Metadata locations of the target; a table that it lacks is absent, or `None`.
        same: Says of a table and two locations whether they hold the same rows; see `BranchingCatalog.same_rows`.

    Returns:
        The moves, each from the target's present state. What compaction did on the target since does not count.

    Raises:
        PromotionConflictError: The target changed such a table, too; all are named.
    """
    moved, conflicts = [], []
    for change in changes:
        table, before, now = change.table, change.before, current.get(change.table)
        if now == change.after:
            continue
        if now == before or (now and before and same(table, before, now)):
            moved.append(TableChange(table, now, change.after))
        else:
            conflicts.append(table)
    if conflicts:
        raise conflict_error(source, target, conflicts)
    return moved


def require_unchanged(
    source: str, target: str, changes: Sequence[TableChange], expected: Iterable[TableChange] | None
) -> None:
    """Refuse to merge other changes than those that were checked; `None` expects nothing.

    Raises:
        PromotionConflictError: The source has other changes by now.
    """
    if expected is not None and list(changes) != list(expected):
        raise changed_error(source, target)


def undo(current: Mapping[str, str], entries: Iterable[LogEntry]) -> dict[str, str]:
    """Return the state before some moves.

    Args:
        current: `namespace.table` to metadata location, after these moves.
        entries: The moves, newest first.
    """
    state = dict(current)
    for entry in entries:
        for change in entry.changes:
            if change.before is None:
                state.pop(change.table, None)
            else:
                state[change.table] = change.before
    return state


def follows(name: str, kind: str, source: str | None, target: str) -> bool:
    """Say whether a reference is fast-forwarded when a branch moves, as long as it has no changes of its own.

    The branches of runs are not: a run reads one state from beginning to end.
    """
    return kind == "branch" and source == target and name != MAIN and not is_run_branch(name)


def require_entry(entry: int, target: str, ids: Collection[int]) -> None:
    """Refuse to restore an entry that the log of a branch does not have; 0 is the state before the first.

    Raises:
        CatalogError: There is no such entry; the message lists those that there are.
    """
    if entry != 0 and entry not in ids:
        raise CatalogError(
            f"The log of `{target}` has no entry {entry}.",
            where=f"entries {', '.join(map(str, ids)) or 'none'}",
            fix="choose one of them; `cascade branch log` shows them.",
        )


def require_branch(name: str, kind: str) -> None:
    """Refuse to move a tag.

    Raises:
        CatalogError: It is a tag.
    """
    if kind != "branch":
        raise CatalogError(
            f"`{name}` is a tag, which never moves.",
            fix=f"create a branch from it: `cascade branch create … --from {name}`.",
        )


def missing_error(name: str, names: Iterable[str]) -> BranchNotFoundError:
    """Return the error for a reference that does not exist, with those that do."""
    return BranchNotFoundError(
        f"There is no branch or tag `{name}`.",
        where=f"there are {', '.join(sorted(names))}",
        fix="choose one of them, or create it with `cascade branch create`.",
    )


def taken_error(name: str) -> CatalogError:
    """Return the error for a new reference whose name another one has."""
    return CatalogError(
        f"`{name}` exists already.", fix=f"choose another name, or delete it: `cascade branch delete {name}`."
    )


def changed_error(source: str, target: str) -> PromotionConflictError:
    """Return the error for a branch that was written after its changes were checked."""
    return PromotionConflictError(
        f"Branch `{source}` was written while it was being promoted; nothing was merged.",
        where=f"{source} -> {target}",
        fix="let the writing run end, then promote again.",
    )


def conflict_error(source: str, target: str, tables: Iterable[str]) -> PromotionConflictError:
    """Return the error for tables that both branches changed."""
    return PromotionConflictError(
        f"`{target}` moved since branch `{source}` was created; nothing was merged.",
        where=f"{source} -> {target}, tables {', '.join(tables)}",
        fix=f"run the pipeline again on a new branch; `cascade branch delete {source}` deletes the old one.",
    )
