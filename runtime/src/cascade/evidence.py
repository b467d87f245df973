"""Evidence: which snapshot of a table, read on which branch, a materialization or a check is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cascade.names import BRANCH_METADATA, SNAPSHOT_METADATA

__all__ = ["is_about", "snapshot_evidence"]


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
