"""What Dagster loads: everything below `workflows/` and `transforms/`."""

from cascade.framework.definitions import defs  # noqa: F401
