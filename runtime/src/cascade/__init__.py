"""Cascade: the runtime of a lakehouse project. The front door: public names, resolved on first use."""

import os
from importlib import import_module
from types import FunctionType
from typing import Any

# Pandera sets this to "1" unless it is there, and Arrow then stores 12:00-05:00 as 12:00 UTC. Empty: keep zones.
if os.environ.get("PYARROW_IGNORE_TIMEZONE") in (None, "1"):
    os.environ["PYARROW_IGNORE_TIMEZONE"] = ""
# Arrow's own allocator keeps the memory of a batch that is done, some 50 MB; it is chosen when Arrow is imported.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

__all__ = ["Lakehouse", "__version__", "cascade_ingestion", "load_settings", "open"]

_HOMES = {
    "Lakehouse": "cascade.lakehouse",
    "cascade_ingestion": "cascade.ingestion",
    "load_settings": "cascade.config",
    "open": "cascade.lakehouse",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("cascade-runtime")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if not name.startswith("_"):
        from cascade.plugins import find

        if decorator := find("cascade.decorators", name, FunctionType):  # of the package that brings it
            return decorator
    raise AttributeError(f"module 'cascade' has no attribute {name!r}")
