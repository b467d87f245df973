"""The service `monitoring`: metrics of the lake, and Prometheus, Alertmanager and Grafana that read them."""

from importlib.metadata import version

from cascade.plugins import PluginMetadata, ServicePlugin

__all__ = ["Monitoring"]


class Monitoring(ServicePlugin):
    """Watches the lake: metrics, alerts and dashboards."""

    metadata = PluginMetadata(
        name="monitoring",
        version=version("cascade-monitoring"),
        description="Watches the lake: metrics, alerts and dashboards.",
    )
