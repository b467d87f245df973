"""Tell an OpenLineage receiver what every run read and wrote; the service `marquez`, which shows it."""

from importlib.metadata import version

from cascade.plugins import PluginMetadata, ServicePlugin

__all__ = ["Marquez"]


class Marquez(ServicePlugin):
    """Pages of lineage. `service.yaml` beside this module describes it; its containers mount `files/`."""

    metadata = PluginMetadata(
        name="marquez",
        version=version("cascade-openlineage"),
        description="Lineage of tables and columns, from the events of OpenLineage.",
    )
