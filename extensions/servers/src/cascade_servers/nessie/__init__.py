"""The catalog on a Nessie server: its branches and tags are ours, a promotion is one merge."""

from cascade_servers.nessie.catalog import (
    NessieCatalog,
)

__all__ = [
    "NessieCatalog",
]
