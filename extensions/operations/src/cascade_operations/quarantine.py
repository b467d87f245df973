"""Rows that loads have set aside: list and read them, load them again, drop them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cascade.catalog import MAIN, BranchingCatalog, open_catalog
from cascade.config import Settings
from cascade.errors import UsageError
from cascade.names import BRANCH_PROPERTY, QUARANTINE
from cascade_operations.events import Listener, ignore
from cascade_operations.promotion import change_main
from cascade_operations.records import (
    QuarantineDrop,
    QuarantinedRow,
    QuarantineReplay,
    QuarantineTable,
)
from cascade_operations.tables import dotted, rows_in

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from cascade.ingestion.plan import LoadPlan

__all__ = ["drop_quarantine", "list_quarantine", "read_quarantine", "replay_quarantine"]

_QUARANTINE = f"{QUARANTINE}."


def list_quarantine(settings: Settings, *, branch: str = MAIN) -> tuple[QuarantineTable, ...]:
    """Return the quarantine tables of a branch or tag, by name.

    Args:
        settings: The project's settings.
        branch: The branch or tag.

    Raises:
        BranchNotFoundError: It does not exist.
    """
    from cascade.ingestion.quarantine import quarantine_table

    catalog = open_catalog(settings)
    pointers = catalog.pointers(branch)
    table_of = {quarantine_table(table): table for table in pointers if not table.startswith(_QUARANTINE)}
    found = [(name, catalog.load(name, at)) for name, at in sorted(pointers.items()) if name.startswith(_QUARANTINE)]
    return tuple(QuarantineTable(table_of.get(name), name, rows_in(table)) for name, table in found)


def read_quarantine(
    settings: Settings,
    table: str,
    *,
    branch: str = MAIN,
    partition: str | None = None,
    run: str | None = None,
    reason: str | None = None,
    limit: int | None = 100,
    to: Path | None = None,
) -> tuple[QuarantinedRow, ...]:
    """Return rows of a table that were set aside, newest first.

    Args:
        settings: The project's settings.
        table: `namespace.table` that the rows were meant for, or the quarantine table itself.
        branch: The branch or tag.
        partition: Only rows of this partition.
        run: Only rows of this run; the start of its id is enough.
        reason: Only rows with this text in one of their reasons.
        limit: At most so many rows; `None` for all.
        to: A file, `.jsonl` or `.csv`, that these rows are written to as well, to be mended.

    Raises:
        UsageError: No rows of this table are set aside on the branch, or the file cannot be written.
        BranchNotFoundError: The branch does not exist.
    """
    from cascade.iceberg.schema import arrow_schema
    from cascade_operations.aside import choose, read_aside, write_rows

    known = _known(settings, table, branch)
    catalog = open_catalog(settings)
    rows = choose(read_aside(_open(catalog, branch, known.quarantine)), partition=partition, run=run, reason=reason)
    found = rows[::-1][:limit]
    if to is not None:
        import pyarrow as pa

        target = _open(catalog, branch, known.table) if known.table else None
        write_rows(to, found, arrow_schema(target.schema()) if target else pa.schema([]))
    return tuple(found)


def replay_quarantine(
    settings: Settings,
    table: str,
    *,
    source: Path | None = None,
    partition: str | None = None,
    run: str | None = None,
    reason: str | None = None,
    promote: bool = True,
    dry_run: bool = False,
    tell: Listener = ignore,
) -> QuarantineReplay:
    """Load rows from quarantine again, against the contract as it is now, or mended rows in their place.

    A run on a branch of its own does it: the rows that pass enter the table and leave the quarantine in one commit,
    those that fail stay with their new reasons. Then what depends on the table is computed, and the branch is promoted.
    Nothing of a partition is replaced but rows with the same key.

    Args:
        settings: The project's settings.
        table: `namespace.table` that the rows were meant for.
        source: A file of mended rows, `.parquet`, `.jsonl` or `.csv`: each stands for the row in quarantine with its
            `_cascade_id`, or its unique key. By default the rows are loaded as they were set aside.
        partition: Only rows of this partition.
        run: Only rows of this run; the start of its id is enough.
        reason: Only rows with this text in one of their reasons.
        promote: Whether the branch is promoted and the marts are published.
        dry_run: Whether nothing is written.
        tell: Told of progress.

    Raises:
        UsageError: There is nothing to load again, or the file does not fit; or no asset loads the table any more.
        DefinitionError: A file or a definition cannot be used, so that nothing could be promoted.
        ContractError: In a dry run: the rows break the contract together with those of their partition.
        LeaseHeldError: Another pipeline run is working towards `main`.
    """
    from cascade.ingestion.load import LoadResult
    from cascade.lakehouse import Lakehouse
    from cascade_operations.aside import Chosen, choose, match, read_aside, read_rows, values_of
    from cascade_operations.instead import ingestion_of, run_instead
    from cascade_operations.replay import Replayed, columns_of, partitions_of, replay
    from cascade_operations.run import load_definitions

    known = _known(settings, table, MAIN)
    catalog = open_catalog(settings)
    definitions = load_definitions(settings, tell, promote=promote and not dry_run)
    name = known.table or dotted(table)
    gone = f"bring the asset back, or drop the rows from quarantine: cascade quarantine drop {name}"
    asset, plan = ingestion_of(definitions, name, gone)
    target = _require_table(catalog, plan)
    every = read_aside(_open(catalog, MAIN, known.quarantine))
    rows = choose(every, partition=partition, run=run, reason=reason)
    if not rows:
        raise _nothing_error(known, every, "no row is the one that was asked for")
    columns, unknown = columns_of(plan, target), 0
    if source is None:
        chosen = [Chosen(row, values_of(row, columns)) for row in rows]
    else:
        mended = read_rows(source, columns)
        chosen, unknown = match(rows, mended, plan.unique_key, columns, source)
        if not chosen:
            raise _nothing_error(known, every, f"none of the {len(mended)} rows of {source.name} is in quarantine")
    for label in {one.row.partition for one in chosen}:
        partitions_of(plan, label)
    outcome: list[Replayed] = []

    def load(lakehouse: Lakehouse, run_id: str) -> LoadResult:
        outcome[:] = [replay(plan, lakehouse, chosen, run_id=run_id, dry_run=dry_run)]
        return outcome[0].result

    report, stale = None, tuple[str, ...]()
    if dry_run:
        load(Lakehouse(settings, MAIN), "dry-run")
    else:
        report, stale = run_instead(settings, definitions, asset, load, promote=promote, tell=tell)
    result, failed = (outcome[0].result, outcome[0].failed) if outcome else (None, [])
    loaded, outdated = (result.loaded, result.duplicates) if result else (0, 0)
    return QuarantineReplay(
        table=plan.table,
        rows=len(chosen),
        loaded=loaded,
        outdated=outdated,
        failed=tuple(failed),
        left=len(every) - loaded - outdated,
        unknown=unknown,
        stale=stale,
        report=report,
    )


def drop_quarantine(
    settings: Settings,
    table: str,
    *,
    partition: str | None = None,
    run: str | None = None,
    reason: str | None = None,
    dry_run: bool = False,
    tell: Listener = ignore,
) -> QuarantineDrop:
    """Drop rows from quarantine, on a branch that is promoted; without a filter all rows of the table.

    Args:
        settings: The project's settings.
        table: `namespace.table` that the rows were meant for, or the quarantine table itself.
        partition: Only rows of this partition.
        run: Only rows of this run; the start of its id is enough.
        reason: Only rows with this text in one of their reasons.
        dry_run: Whether nothing is written.
        tell: Told of progress.

    Raises:
        UsageError: There is nothing to drop.
        LeaseHeldError: Another process is working towards `main`.
        PromotionRefusedError: The checks of the project are unknown, since a file of it cannot be used.
    """
    from cascade.iceberg.write import write
    from cascade.ingestion.quarantine import SCHEMA
    from cascade_operations.aside import choose, read_aside, taken_out

    known = _known(settings, table, MAIN)
    catalog = open_catalog(settings)
    aside = _open(catalog, MAIN, known.quarantine)
    every = read_aside(aside)
    rows = choose(every, partition=partition, run=run, reason=reason)
    if not rows:
        raise _nothing_error(known, every, "no row is the one that was asked for")
    done = None
    if not dry_run:
        where, equal = taken_out(aside, rows)

        def drop(branch: str) -> None:
            told = {BRANCH_PROPERTY: branch}
            rest: dict[str, Any] = {"mode": "replace", "replace": where, "snapshot_properties": told}
            write(catalog, branch, known.quarantine, [equal], schema=SCHEMA, **rest)

        _, done = change_main(settings, "`cascade quarantine drop`", drop, tell=tell)
    move = done.move if done else None
    return QuarantineDrop(known.table or known.quarantine, len(rows), len(every) - len(rows), move)


def _known(settings: Settings, table: str, branch: str) -> QuarantineTable:
    """Return the quarantine of a table.

    Raises:
        UsageError: It has none on the branch.
    """
    known = list_quarantine(settings, branch=branch)
    wanted = dotted(table)
    if found := next((q for q in known if wanted in (q.table, q.quarantine)), None):
        return found
    names = ", ".join(q.table or q.quarantine for q in known) or "none"
    raise UsageError(
        f"No rows of {table!r} are in quarantine on {branch}; the tables with such rows are: {names}.",
        fix="name one of them, or another branch with --branch." if branch != MAIN else "name one of them.",
    )


def _open(catalog: BranchingCatalog, branch: str, table: str) -> Table | None:
    location = catalog.pointers(branch).get(table)
    return None if location is None else catalog.load(table, location)


def _require_table(catalog: BranchingCatalog, plan: LoadPlan) -> Table:
    if table := _open(catalog, MAIN, plan.table):
        return table
    raise UsageError(
        f"The table {plan.table} is not on `main`: there is nothing that its rows could be added to.",
        fix=f"load it: cascade run --select {plan.table}",
    )


def _nothing_error(known: QuarantineTable, every: Sequence[QuarantinedRow], why: str) -> UsageError:
    partitions = ", ".join(sorted({row.partition for row in every})[:5])
    return UsageError(
        f"There is nothing to do: {why}.",
        where=f"{known.quarantine}, {len(every)} rows" + (f", partitions {partitions}" if partitions else ""),
        fix=f"look at them: cascade quarantine show {known.table or known.quarantine}",
    )
