"""What events of Dagster say of a table: which snapshot of which branch they are about, its columns, some rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cascade.names import BRANCH_METADATA, COLUMN_SCHEMA, SNAPSHOT_METADATA

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.schema import Schema

__all__ = ["is_about", "shown_columns", "shown_rows", "snapshot_evidence"]

_CELL_CHARACTERS = 60


def snapshot_evidence(snapshot_id: int | None, branch: str) -> dict[str, str]:
    """Return the metadata for an event of Dagster; the promotion gate accepts no check without it.

    Args:
        snapshot_id: Newest snapshot of the table when its rows were read; `None` for a table without snapshots.
        branch: The branch it was read on.
    """
    return {SNAPSHOT_METADATA: str(snapshot_id), BRANCH_METADATA: branch}


def is_about(metadata: Mapping[str, Any], snapshot_id: int | None) -> bool | None:
    """Return whether an event is about a snapshot; `None` when its metadata names no snapshot.

    Args:
        metadata: The event's metadata, name to `dagster.MetadataValue`.
        snapshot_id: The snapshot; `None` for a table without snapshots.
    """
    told = metadata.get(SNAPSHOT_METADATA)
    return None if told is None else str(told.value) == str(snapshot_id)


def shown_columns(schema: Schema, descriptions: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the metadata that Dagster's page of a table shows as its columns.

    Args:
        schema: The table's columns.
        descriptions: What columns mean, by their names, where the schema does not say it.
    """
    import dagster as dg

    said = descriptions or {}
    columns = [
        dg.TableColumn(field.name, str(field.field_type), description=field.doc or said.get(field.name))
        for field in schema.fields
    ]
    return {COLUMN_SCHEMA: dg.TableSchema(columns=columns)}


def shown_rows(rows: pa.Table | pa.RecordBatch) -> dict[str, Any]:
    """Return the metadata that Dagster's page of a table shows as some of its rows; nothing where there is none."""
    import dagster as dg

    records = [{name: str(value)[:_CELL_CHARACTERS] for name, value in row.items()} for row in rows.to_pylist()]
    return {"preview": dg.MetadataValue.table([dg.TableRecord(record) for record in records])} if records else {}
