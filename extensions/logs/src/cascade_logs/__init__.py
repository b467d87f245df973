"""Logs of a project as JSON, a line each, and the servers that keep them: Loki, and Alloy, which hands them over."""

from importlib.metadata import version

from cascade.plugins import PluginMetadata, ServicePlugin

__all__ = ["Logs"]


class Logs(ServicePlugin):
    """Loki and Alloy; what they are made of is in `service.yaml`."""

    metadata = PluginMetadata(
        name="logs",
        version=version("cascade-logs"),
        description="Keeps the logs of runs in Loki, by run, asset and branch.",
        license="Apache-2.0",
        tags=("logs", "loki"),
    )
