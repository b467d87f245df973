"""The service `superset`: dashboards over the marts in PostgreSQL, kept as files."""

from importlib.metadata import version

from cascade.plugins import PluginMetadata, ServicePlugin

__all__ = ["Superset"]


class Superset(ServicePlugin):
    """Dashboards over the marts. `service.yaml` beside this module describes it; its containers mount `files/`."""

    metadata = PluginMetadata(
        name="superset", version=version("cascade-superset"), description="Dashboards over the marts in PostgreSQL."
    )
