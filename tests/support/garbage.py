"""What a lakehouse needs and what it stores, found without the code that collects garbage."""

from typing import Any

from pyiceberg.table import Table

from cascade.catalog import BranchingCatalog
from cascade.errors import CatalogError
from cascade_maintain.warehouse import open_warehouse


def stored(lake: BranchingCatalog) -> set[str]:
    """Return the files of all tables."""
    return {file.path for file in open_warehouse(lake).files()}


def rows_of(table: Table) -> list[list[dict[str, Any]]]:
    """Return the rows of every snapshot of a table, by PyIceberg's own reader."""
    found = [table.scan(snapshot_id=s.snapshot_id).to_arrow().to_pylist() for s in table.metadata.snapshots]
    return [sorted(rows, key=str) for rows in found]


def states(lake: BranchingCatalog, *, log: bool) -> dict[str, str]:
    """Return the states that can be read, location to table: every reference, what it was made from, and the log."""
    found: dict[str, str] = {}
    for reference in lake.branches():
        found |= {at: table for table, at in lake.pointers(reference.name).items()}
        changes = [*lake.changes(reference.name)]
        if log and reference.kind == "branch":
            changes += [change for entry in lake.log(reference.name) for change in entry.changes]
        for change in changes:
            found |= {at: change.table for at in (change.before, change.after) if at is not None}
    return found


def content(lake: BranchingCatalog, *, log: bool) -> dict[str, Any]:
    """Return the rows of all that can be read, by location."""
    return {at: rows_of(lake.load(table, at)) for at, table in states(lake, log=log).items()}


def needed(lake: BranchingCatalog, *, log: bool, forgotten: bool = False) -> set[str]:
    """Return the files behind all that, found by PyIceberg's own reader; what was forgotten may be gone."""
    warehouse = open_warehouse(lake)
    locations, read = set[str](), set[str]()
    for at, name in states(lake, log=log).items():
        try:
            table = lake.load(name, at)
        except CatalogError:
            if forgotten:
                continue
            raise
        locations.add(at)
        for snapshot in table.metadata.snapshots:
            if snapshot.manifest_list in read:
                continue
            read.add(snapshot.manifest_list)
            locations.add(snapshot.manifest_list)
            for manifest in snapshot.manifests(table.io):
                if manifest.manifest_path not in read:
                    read.add(manifest.manifest_path)
                    locations.add(manifest.manifest_path)
                    locations.update(e.data_file.file_path for e in manifest.fetch_manifest_entry(table.io))
    return {path for at in locations if (path := warehouse.relative(at)) is not None}
