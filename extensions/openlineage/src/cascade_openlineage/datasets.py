"""Tables in the words of OpenLineage: names by its naming specification, facets from the metadata of Dagster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
from openlineage.client import facet_v2 as facets
from openlineage.client.event_v2 import Dataset, InputDataset, OutputDataset

from cascade.config import Settings
from cascade.names import BRANCH_METADATA, COLUMN_SCHEMA, EXTRACTED_ROWS, LOADED_ROWS, ROW_COUNT, SNAPSHOT_METADATA

__all__ = ["Lineage", "Metadata", "mart_output", "said", "source_input", "table_input", "table_name", "table_output"]

Metadata = Mapping[str, dg.MetadataValue[Any]]
#: The columns that a column is computed from, by its name: pairs of a dataset and one of its columns.
Lineage = Mapping[str, Iterable[tuple[Dataset, str]]]


def said(metadata: Metadata, name: str) -> Any:
    """Return a value of the metadata; `None` where it is not said."""
    return metadata[name].value if name in metadata else None


def table_name(settings: Settings, table: str) -> tuple[str, str]:
    """Return namespace and name of a table: the storage that holds it, and its place there.

    Trino adds a random text to a table's folder, and another one when it makes the table anew; the name is without it,
    so that a table stays the same dataset.

    Args:
        settings: The project's settings.
        table: `namespace.table`.
    """
    return _file(f"{settings.warehouse_location}/{table.replace('.', '/')}")


def table_input(settings: Settings, table: str, metadata: Metadata, *, snapshot: str = "") -> InputDataset:
    """Return a table that a run read.

    Args:
        settings: The project's settings.
        table: `namespace.table`.
        metadata: What was said of the table when it was written.
        snapshot: The Iceberg snapshot that was read, where it is known.
    """
    rows = said(metadata, ROW_COUNT) if snapshot else None
    return InputDataset(
        *table_name(settings, table), facets=_facets(settings, table, metadata, snapshot), inputFacets=_read(rows)
    )


def table_output(settings: Settings, table: str, metadata: Metadata, lineage: Lineage) -> OutputDataset:
    """Return a table that a run wrote.

    Args:
        settings: The project's settings.
        table: `namespace.table`.
        metadata: What the materialization says.
        lineage: What its columns are computed from; empty where that is not known.
    """
    rows, snapshot = (said(metadata, name) for name in (LOADED_ROWS, SNAPSHOT_METADATA))
    found = _facets(settings, table, metadata, str(snapshot or "")) | _lineage(lineage)
    if branch := said(metadata, BRANCH_METADATA):
        tag = facets.tags_dataset.TagsDatasetFacetFields("branch", str(branch), "CASCADE")
        found["tags"] = facets.tags_dataset.TagsDatasetFacet([tag])
    written = _written(said(metadata, ROW_COUNT) if rows is None else rows)
    return OutputDataset(*table_name(settings, table), facets=found, outputFacets=written)


def source_input(namespace: str, table: str, metadata: Metadata) -> InputDataset:
    """Return what an ingestion read: the rows that its function returned; where it has them from, only it knows.

    Args:
        namespace: That of the project's jobs.
        table: The table that was loaded.
        metadata: What the materialization says.
    """
    return InputDataset(namespace, f"source/{table}", inputFacets=_read(said(metadata, EXTRACTED_ROWS)))


def mart_output(location: str, mart: str, read: InputDataset, columns: Iterable[str], rows: int) -> OutputDataset:
    """Return the copy of a mart in the serving database.

    Args:
        location: The database, as `cascade.publish.marts.marts_location` names it.
        mart: The table of the lake, `marts.table`.
        read: The same as a dataset.
        columns: Its columns.
        rows: How many rows it has.
    """
    url = urlsplit(location)
    if url.scheme == "postgresql":
        where = (f"postgres://{url.hostname}:{url.port}", f"{url.path.strip('/')}.{mart}")
    else:
        where = _file(f"{location}/{mart}")
    found = {name: facet for name, facet in (read.facets or {}).items() if name == "schema"}
    lineage = _lineage({column: [(read, column)] for column in columns}, subtype="IDENTITY")
    return OutputDataset(*where, facets=found | lineage, outputFacets=_written(rows))


def _file(location: str) -> tuple[str, str]:
    url = urlsplit(location)
    return (f"{url.scheme}://{url.netloc}", url.path.strip("/")) if url.scheme else ("file", location)


def _facets(settings: Settings, table: str, metadata: Metadata, snapshot: str) -> dict[str, facets.DatasetFacet]:
    root = settings.warehouse_location
    known = facets.symlinks_dataset.Identifier(root if "://" in root else f"file://{root}", table, "TABLE")
    found: dict[str, facets.DatasetFacet] = {
        "storage": facets.storage_dataset.StorageDatasetFacet("iceberg", "parquet"),
        "symlinks": facets.symlinks_dataset.SymlinksDatasetFacet([known]),
    }
    if schema := said(metadata, COLUMN_SCHEMA):
        fields = [
            facets.schema_dataset.SchemaDatasetFacetFields(column.name, column.type, column.description, place)
            for place, column in enumerate(schema.columns, 1)
        ]
        found["schema"] = facets.schema_dataset.SchemaDatasetFacet(fields)
    if snapshot.isdecimal():  # a table without snapshots says `None`
        found["version"] = facets.dataset_version_dataset.DatasetVersionDatasetFacet(snapshot)
    return found


def _lineage(lineage: Lineage, *, subtype: str | None = None) -> dict[str, facets.DatasetFacet]:
    how = facets.column_lineage_dataset.Transformation("DIRECT", subtype)
    fields = {
        column: facets.column_lineage_dataset.Fields(
            [facets.column_lineage_dataset.InputField(read.namespace, read.name, one, [how]) for read, one in reads]
        )
        for column, reads in lineage.items()
    }
    return {"columnLineage": facets.column_lineage_dataset.ColumnLineageDatasetFacet(fields)} if fields else {}


def _read(rows: int | None) -> dict[str, facets.InputDatasetFacet]:
    metrics = facets.data_quality_metrics_input_dataset.DataQualityMetricsInputDatasetFacet
    return {} if rows is None else {"dataQualityMetrics": metrics(columnMetrics={}, rowCount=rows)}


def _written(rows: int | None) -> dict[str, facets.OutputDatasetFacet]:
    statistics = facets.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet
    return {} if rows is None else {"outputStatistics": statistics(rowCount=rows)}
