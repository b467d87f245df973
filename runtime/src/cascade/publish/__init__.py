"""Promotion lives here: the gate before `main`, the merge, and the copy of the marts for readers outside."""

from cascade.publish.after import after_promotion
from cascade.publish.assets import PROMOTE_KEY, PUBLISH_KEY, build_publishing
from cascade.publish.gate import Guards, promote_branch

__all__ = ["PROMOTE_KEY", "PUBLISH_KEY", "Guards", "after_promotion", "build_publishing", "promote_branch"]
