"""PostgREST beside a project: an HTTP API over the marts that are published to PostgreSQL."""

from importlib.metadata import version

from cascade.plugins import PluginMetadata, ServicePlugin

__all__ = ["Postgrest"]


class Postgrest(ServicePlugin):
    """An HTTP API over the marts; what it is made of is in `service.yaml`."""

    metadata = PluginMetadata(
        name="postgrest",
        version=version("cascade-postgrest"),
        description="An HTTP API over the marts in PostgreSQL.",
        license="Apache-2.0",
        tags=("api", "postgresql"),
    )
