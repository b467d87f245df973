"""What Dagster is told of models that dbt has built, and of tests: for the promotion gate and the pages of assets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from pyiceberg.table import Table

from cascade.duck.sql import identifier
from cascade.errors import TransformError
from cascade.evidence import shown_columns, shown_rows, snapshot_evidence
from cascade.iceberg.read import row_count
from cascade.ingestion.text import listed
from cascade.lakehouse import Lakehouse
from cascade.names import COLUMN_LINEAGE, FAILING_ROWS, NO_LINEAGE, ROW_COUNT, TABLE_NAME, TABLE_URI, TOTAL_SECONDS
from cascade_dbt.lineage import column_lineage
from cascade_dbt.unchanged import Recipe

__all__ = ["Events"]

_SHOWN_ROWS = 5
_SHOWN_SOURCES = 8
#: What dagster-dbt says of each event: names of dbt's own, and the names that the same has elsewhere; "" leaves it out.
_NAMES = {
    "unique_id": "",
    "invocation_id": "",
    "status": "",
    "Execution Duration": TOTAL_SECONDS,
    "dagster_dbt/failed_row_count": FAILING_ROWS,
}


class Events:
    """Describes the events of one run of dbt.

    Args:
        context: Of the step that runs dbt.
        lakehouse: The branch that dbt writes.
        manifest: dbt's manifest.
        recipes: By table: what it reads.
        target: The folder into which dbt writes the SQL of models as the engine gets it.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        lakehouse: Lakehouse,
        manifest: Mapping[str, Any],
        recipes: Mapping[str, Recipe],
        target: Path,
    ) -> None:
        self._context, self._lakehouse = context, lakehouse
        self._manifest, self._recipes, self._target = manifest, recipes, target

    def described(self, event: Any) -> Any:
        """Add to an event of dagster-dbt which snapshot it speaks of, which the gate asks for, and what pages show."""
        if isinstance(event, dg.Output):
            node = self._manifest["nodes"][event.metadata["unique_id"].value]
            key = self._context.asset_key_for_output(event.output_name)
            return event.with_metadata({**_renamed(event.metadata), **self._of_table(key), **self._of_model(key, node)})
        if isinstance(event, dg.AssetCheckResult) and event.asset_key is not None:
            return event.with_metadata({**_renamed(event.metadata), **self._of_table(event.asset_key)})
        return event

    def _of_table(self, key: dg.AssetKey) -> dict[str, Any]:
        table = self._table(".".join(key.path))
        head = table.current_snapshot() if table else None
        found: dict[str, Any] = snapshot_evidence(head.snapshot_id if head else None, self._lakehouse.branch)
        rows = row_count(head) if head else None
        return found if rows is None else {**found, ROW_COUNT: rows}

    def _of_model(self, key: dg.AssetKey, node: Mapping[str, Any]) -> dict[str, Any]:
        """Return a model's columns, with what its yml says of them and what they are computed from, and some rows."""
        name = ".".join(key.path)
        if (table := self._table(name)) is None:
            return {}
        lineage = self._lineage(name, table, node)
        # By the engine: PyIceberg reads half a second ahead of five rows of a large file.
        rows = self._lakehouse.query(f"SELECT * FROM {'.'.join(map(identifier, key.path))} LIMIT {_SHOWN_ROWS}")
        columns = shown_columns(table.schema(), _words(node, lineage.get(COLUMN_LINEAGE)))
        return {TABLE_NAME: name, TABLE_URI: table.location(), **columns, **lineage, **shown_rows(rows)}

    def _lineage(self, name: str, table: Table, node: Mapping[str, Any]) -> dict[str, Any]:
        """Return which columns a model's columns are computed from, or why it is not known. Others have no SQL."""
        if node["resource_type"] == "seed" or node.get("language") != "sql":
            return {}
        try:
            found = column_lineage(self._sql(node), self._manifest["metadata"]["adapter_type"], self._inputs(name))
        except TransformError as error:
            return {NO_LINEAGE: error.what}
        deps = {
            column: [
                dg.TableColumnDep(dg.AssetKey(read.split(".")), one)
                for read, one in found[column.lower()]
                if read != name
            ]
            for column in table.schema().column_names
            if column.lower() in found
        }
        return {COLUMN_LINEAGE: dg.TableColumnLineage(deps)}

    def _sql(self, node: Mapping[str, Any]) -> str:
        file: Path = self._target / "compiled" / node["package_name"] / node["original_file_path"]
        # The batches of a microbatch have a file each, in a folder.
        for one in (file, *sorted(file.with_suffix("").glob("*.sql"))):
            if one.is_file():
                return one.read_text("utf-8")
        raise TransformError("dbt does not tell the SQL that it gives to the engine")

    def _inputs(self, name: str) -> dict[str, list[str]]:
        """Return the columns of the tables that a model may read, its own included."""
        recipe = self._recipes.get(name)
        tables = recipe.reads(self._lakehouse.catalog.pointers(self._lakehouse.ref)) if recipe else []
        opened = {one: self._table(one) for one in (*tables, name)}
        return {one: [field.name for field in table.schema().fields] for one, table in opened.items() if table}

    def _table(self, name: str) -> Table | None:
        catalog = self._lakehouse.catalog
        location = catalog.pointers(self._lakehouse.ref).get(name)
        return catalog.load(name, location) if location else None


def _words(node: Mapping[str, Any], lineage: dg.TableColumnLineage | None) -> dict[str, str]:
    """Return what columns mean, by the yml, and where they are from: Dagster's own UI shows lineage nowhere else."""
    words = {name: [column["description"]] for name, column in node["columns"].items() if column.get("description")}
    for name, deps in (lineage.deps_by_column if lineage else {}).items():
        if deps:
            read = [".".join([*dep.asset_key.path, dep.column_name]) for dep in deps]
            more = f" and {len(read) - _SHOWN_SOURCES} more" if len(read) > _SHOWN_SOURCES else ""
            words.setdefault(name, []).append(f"From {listed(read[:_SHOWN_SOURCES])}{more}.")
    return {name: "\n".join(texts) for name, texts in words.items()}


def _renamed(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {new: value for name, value in metadata.items() if (new := _NAMES.get(name, name))}
