"""What installed packages bring, ours and others': found by entry points, loaded one by one, checked, reported."""

from cascade.plugins.registry import PluginRecord, find, groups, installed, load, load_all

__all__ = ["PluginRecord", "find", "groups", "installed", "load", "load_all"]
