"""What installed packages bring, ours and others': found by entry points, loaded one by one, checked, reported."""

from cascade.plugins.families import (
    Plugin,
    PluginMetadata,
    QualityCheckPlugin,
    ServicePlugin,
    SourceConnectorPlugin,
    TransformationPlugin,
    get_quality_check,
    get_service,
    get_source_connector,
    get_transformation,
    list_plugins,
)
from cascade.plugins.registry import ImportProbe, PluginRecord, find, groups, installed, load, load_all, refused

__all__ = [
    "ImportProbe",
    "Plugin",
    "PluginMetadata",
    "PluginRecord",
    "QualityCheckPlugin",
    "ServicePlugin",
    "SourceConnectorPlugin",
    "TransformationPlugin",
    "find",
    "get_quality_check",
    "get_service",
    "get_source_connector",
    "get_transformation",
    "groups",
    "installed",
    "list_plugins",
    "load",
    "load_all",
    "refused",
]
