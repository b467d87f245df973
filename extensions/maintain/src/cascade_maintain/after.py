"""Maintain the tables that a promotion brought and that need it; whether they do is seen in their metadata alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.table import Table

from cascade.catalog import BranchingCatalog, LogEntry
from cascade.errors import CatalogError, count
from cascade.iceberg.removal import MARKED_ROWS
from cascade_maintain import rewrite
from cascade_maintain.compact import compact_tables
from cascade_maintain.expire import keep_newest
from cascade_maintain.rewrite import Target
from cascade_maintain.settings import of

__all__ = ["MANY_FILES", "MANY_SNAPSHOTS", "maintain_promoted"]

#: So many files are too many, when they are four times as many as there need to be.
MANY_FILES = 32
#: More snapshots in the metadata are too many. Our commits keep fewer, Trino keeps all.
MANY_SNAPSHOTS = 60
_TIMES = 4


def maintain_promoted(catalog: BranchingCatalog, entry: LogEntry) -> str:
    """Compact the promoted tables that have too many files, and let old snapshots of those leave that list too many.

    Args:
        catalog: The catalog.
        entry: The promotion.

    Returns:
        What was done, in words.

    Raises:
        CatalogError: A table cannot be compacted; the others are.
    """
    if not of(catalog.settings).after_promotion:
        return ""
    tables = {c.table: catalog.load(c.table, c.after) for c in entry.changes if c.after is not None}
    crowded = [name for name, table in tables.items() if _has_too_many_files(table)]
    long = [name for name, table in tables.items() if len(table.metadata.snapshots) > MANY_SNAPSHOTS]
    said, problems = [], dict[str, str]()
    if crowded:
        done = compact_tables(catalog, crowded, eager=False)
        said += [f"compacted {one.table}, {count(one.files, 'file')} to {one.new_files:,}" for one in done.compacted]
        said += [f"left {name} as it is, since runs kept writing it" for name in done.left]
        problems = done.problems
    if long:
        expired = keep_newest(catalog, long)
        said += [f"let {count(one.snapshots, 'old snapshot')} of {one.table} leave" for one in expired]
    if problems:
        raise CatalogError(
            "; ".join([*said, *(f"{name} cannot be compacted: {why}" for name, why in problems.items())])
        )
    return "; ".join(said)


def _has_too_many_files(table: Table) -> bool:
    """Say whether the newest snapshot tells of many more files than the table needs, or of many delete files."""
    head = table.current_snapshot()
    if head is None or head.summary is None:
        return False
    told = head.summary.additional_properties
    names = ("data-files", "delete-files", "position-deletes")
    files, deletes, marked = (int(told.get(f"total-{of}", 0)) for of in names)
    if marked > MARKED_ROWS:
        return True
    many = rewrite.MANY_DELETE_FILES
    if deletes >= many and _most_of_a_partition(head.manifests(table.io), table.io) >= many:
        return True
    # Files of partitions stay apart; commits join those of one partition.
    if files < MANY_FILES or not table.spec().is_unpartitioned():
        return False
    parts = Target.of(table).parts(int(told.get("total-records", 0)), int(told.get("total-files-size", 0)))
    return files >= _TIMES * parts


def _most_of_a_partition(manifests: Iterable[ManifestFile], io: FileIO) -> int:
    """Return how many files at most mark rows of one partition as deleted."""
    marks = [manifest for manifest in manifests if manifest.content == ManifestContent.DELETES]
    files = [entry.data_file for manifest in marks for entry in manifest.fetch_manifest_entry(io)]
    return max(Counter((file.spec_id, file.partition) for file in files).values(), default=0)
