"""What tests of a project use: the door to the package that brings it, by the group `cascade.testing`."""

from typing import Any


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        from cascade.plugins import find

        if found := find("cascade.testing", name, type):
            return found
    raise AttributeError(f"module 'cascade.testing' has no attribute {name!r}, or its package is not installed")
