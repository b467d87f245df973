"""Every name that Cascade writes into other systems. They are a public format."""

from __future__ import annotations

__all__ = ["BRANCH_METADATA", "BRANCH_TAG", "FULL_REFRESH_TAG", "MISSING_ONLY_TAG", "SNAPSHOT_METADATA"]

#: Run tag that names the branch a run writes to.
BRANCH_TAG = "cascade/branch"
#: Run tag: partitions that the branch holds already are left alone.
MISSING_ONLY_TAG = "cascade/missing_only"
#: Run tag: the tables of incremental models are created again, whatever its value.
FULL_REFRESH_TAG = "cascade/full-refresh"

#: Metadata of materializations and checks: the snapshot they speak of, and the branch it was read from.
SNAPSHOT_METADATA = "cascade/snapshot_id"
BRANCH_METADATA = "cascade/branch"
