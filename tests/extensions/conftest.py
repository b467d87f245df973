"""Nothing of the developer's machine reaches the tests of the extensions; they have lakehouses."""

from support.lakehouses import _own_lake, _own_machine, lake, lake_kind, open_lake

__all__ = ["_own_lake", "_own_machine", "lake", "lake_kind", "open_lake"]
