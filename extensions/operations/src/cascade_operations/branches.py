"""References of the catalog: list, create, delete, compare, and how a branch moved."""

from __future__ import annotations

from cascade.catalog import MAIN, Branch, BranchingCatalog, TableChange, open_catalog
from cascade.config import Settings
from cascade.errors import UsageError
from cascade_operations.records import Move, TableDiff
from cascade_operations.tables import parse_at, rows_in

__all__ = ["create_branch", "delete_branch", "diff", "list_branches", "log"]


def list_branches(settings: Settings) -> tuple[Branch, ...]:
    """Return all branches and tags, `main` first, then by name.

    Args:
        settings: The project's settings.
    """
    return tuple(open_catalog(settings).branches())


def create_branch(
    settings: Settings, name: str, *, source: str = MAIN, at: str | None = None, tag: bool = False
) -> Branch:
    """Create a branch or a tag; no data is copied.

    Args:
        settings: The project's settings.
        name: Its name.
        source: The branch or tag that it starts as.
        at: A time, for `main` as it was then: an ISO date or time, UTC without a zone.
        tag: Whether it is a tag, which is never written.

    Raises:
        CatalogError: The name is taken or invalid; or files of that time are gone.
        BranchNotFoundError: The source does not exist.
        UsageError: The time is a snapshot's id, or the source is not `main`.
    """
    catalog = open_catalog(settings)
    moment = parse_at(at) if at else None
    if isinstance(moment, int) or (moment and source != MAIN):
        raise UsageError(
            "A branch begins with what `main` was at a time.",
            where=f"branch {name} from {source} at {at}",
            fix="give a time, such as 2026-07-01T12:00, and no other source.",
        )
    (catalog.tag if tag else catalog.create)(name, source, at=moment)
    return next(branch for branch in catalog.branches() if branch.name == name)


def delete_branch(settings: Settings, name: str) -> Branch:
    """Delete a branch or a tag, and what the engine keeps for it; return what it was.

    Args:
        settings: The project's settings.
        name: Its name.

    Raises:
        CatalogError: It is `main`.
        BranchNotFoundError: It does not exist.
    """
    from cascade.engine import delete_branch as drop

    catalog = open_catalog(settings)
    known = {branch.name: branch for branch in catalog.branches()}
    drop(catalog, name)
    return known[name]


def log(settings: Settings, name: str = MAIN, *, limit: int | None = None) -> tuple[Move, ...]:
    """Return how a branch moved, newest first.

    Args:
        settings: The project's settings.
        name: The branch.
        limit: At most so many entries; all by default.
    """
    return tuple(map(Move.of, open_catalog(settings).log(name, limit=limit)))


def diff(settings: Settings, name: str, other: str | None = None) -> tuple[TableDiff, ...]:
    """Return the tables that a promotion of a branch would move, or those that differ from another reference.

    Rows of files that both sides have are not read.

    Args:
        settings: The project's settings.
        name: The branch: the second side of each difference.
        other: The first side; by default the state that the branch was created from or last promoted in, so that
            later changes of `main` are left out.

    Raises:
        BranchNotFoundError: One of them does not exist.
    """
    catalog = open_catalog(settings)
    return tuple(_diff(catalog, change) for change in (catalog.diff(other, name) if other else catalog.changes(name)))


def _diff(catalog: BranchingCatalog, change: TableChange) -> TableDiff:
    from cascade_operations.differences import RowChanges, compare_columns, compare_rows

    before, after = (catalog.load(change.table, state) if state else None for state in (change.before, change.after))
    rows_before, rows_after = (rows_in(one) if one else None for one in (before, after))
    heads = [one.current_snapshot() if one else None for one in (before, after)]
    found, columns = RowChanges(rows_after or 0, rows_before or 0, None), tuple[str, ...]()
    if before is not None and after is not None:
        columns = compare_columns(before, after)
        found = compare_rows(before, after, spill_to=catalog.settings.data_path / "tmp")
    return TableDiff(
        table=change.table,
        kind="identical" if change.kind == "changed" and not (columns or found.any) else change.kind,
        rows_before=rows_before,
        rows_after=rows_after,
        snapshot_before=heads[0].snapshot_id if heads[0] else None,
        snapshot_after=heads[1].snapshot_id if heads[1] else None,
        added=found.added,
        removed=found.removed,
        changed=found.changed,
        columns=columns,
    )
