"""Lakehouses whose processes are killed and whose servers restart."""

from support.lakehouses import _own_lake, _own_machine, lake, lake_kind, open_lake

__all__ = ["_own_lake", "_own_machine", "lake", "lake_kind", "open_lake"]
