"""Promotion and publishing as assets: `cascade/promote` moves `main`, `cascade/publish` copies the marts out."""

from cascade.publish.assets import (
    PROMOTE_KEY,
    PUBLISH_KEY,
    Guards,
    build_publishing,
    promote_branch,
)

__all__ = [
    "PROMOTE_KEY",
    "PUBLISH_KEY",
    "Guards",
    "build_publishing",
    "promote_branch",
]
