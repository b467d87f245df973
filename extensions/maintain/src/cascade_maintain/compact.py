"""Compact the tables of `main`: small files become few large ones."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pyiceberg.manifest import DataFileContent
from pyiceberg.table import Table

from cascade.catalog import BranchingCatalog
from cascade.errors import CascadeError
from cascade.iceberg.staging import Staged, discard
from cascade_maintain.main import TOLD, Commit, maintained, tables_of_main
from cascade_maintain.rewrite import Choice, choose, rewrite
from cascade_operations.events import Counted, Listener, ignore

__all__ = ["Compacted", "Compaction", "compact_tables"]


@dataclass(frozen=True)
class Compacted:
    """A table whose files are rewritten, or would be.

    Attributes:
        table: `namespace.table`.
        files: How many files are rewritten.
        bytes: Their size together.
        new_files: How many files come in their place; of a dry run an estimate.
        new_bytes: Their size together; of a dry run 0.
        rows: The rows in them.
    """

    table: str
    files: int
    bytes: int
    new_files: int
    new_bytes: int
    rows: int


@dataclass(frozen=True)
class Compaction:
    """What a compaction did, or would do.

    Attributes:
        dry_run: Whether nothing was done.
        looked_at: How many tables were looked at.
        compacted: The tables that needed it.
        left: Tables that needed it and were left as they are: another run wrote them, and the next time will do.
        problems: Tables that cannot be compacted, and why.
    """

    dry_run: bool
    looked_at: int
    compacted: tuple[Compacted, ...]
    left: tuple[str, ...]
    problems: dict[str, str]


def compact_tables(
    catalog: BranchingCatalog,
    names: Collection[str] = (),
    *,
    eager: bool = True,
    dry_run: bool = False,
    tell: Listener = ignore,
) -> Compaction:
    """Rewrite small files of tables of `main` to files of 128 MB and more, sorted by key, where that makes them fewer.

    No row changes. Branches that were made before are still promoted: a table that they wrote is then as they left it.

    Args:
        catalog: The catalog.
        names: The tables, `namespace.table`; all by default.
        eager: As for `choose`.
        dry_run: Whether to only report what would be rewritten.
        tell: Called with each event.

    Raises:
        CatalogError: `main` has no such table.
    """
    pointers = tables_of_main(catalog, names)
    compacted: list[Compacted] = []
    left: list[str] = []
    problems: dict[str, str] = {}
    for number, (name, location) in enumerate(pointers.items(), 1):
        try:
            choice = choose(catalog.load(name, location), eager=eager)
            if choice.needed and dry_run:
                compacted.append(_compacted(name, choice))
            elif choice.needed:
                done = _compact(catalog, choice, eager)
                compacted.extend(done or ())
                left.extend([name] if done is None else ())
        except CascadeError as error:
            problems[name] = f"{error.what} {error.where}".strip()
        if number % TOLD == 0:
            tell(Counted("looked at", number, "table"))
    return Compaction(dry_run, len(pointers), tuple(compacted), tuple(left), problems)


def _compact(catalog: BranchingCatalog, first: Choice, eager: bool) -> list[Compacted] | None:
    """Compact a table; `None` when others kept writing it."""
    name, done = ".".join(first.table.name()), list[Compacted]()
    spill = catalog.settings.data_path / "tmp"
    spill.mkdir(parents=True, exist_ok=True)

    def commit(table: Table) -> Commit | None:
        done.clear()
        same = table.metadata_location == first.table.metadata_location
        choice = first if same else choose(table, eager=eager)
        if not choice.needed:
            return None
        staged = Staged(name, table.metadata, table.io)
        try:
            transaction = table.transaction()
            rewrite(transaction, choice, staged, spill)
        except BaseException:
            discard(staged)
            raise
        done.append(_compacted(name, choice, staged))
        return transaction._requirements, transaction._updates

    return done if maintained(catalog, [name], commit) else None


def _compacted(name: str, choice: Choice, staged: Staged | None = None) -> Compacted:
    gone = choice.files
    come = [file for file in staged.files if file.content == DataFileContent.DATA] if staged else []
    return Compacted(
        table=name,
        files=len(gone),
        bytes=sum(file.file_size_in_bytes for file in gone),
        new_files=len(come) if staged else choice.number,
        new_bytes=sum(file.file_size_in_bytes for file in come),
        rows=sum(file.record_count for file in (come if staged else gone)),
    )
