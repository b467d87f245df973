"""Every setting of a Cascade project: name, default, meaning, and where its value came from."""

from cascade.config.files import find_project_dir
from cascade.config.settings import REFERENCE_NAME, REFERENCE_NAME_RULE, EngineRules, Settings, SettingsModel
from cascade.config.sources import build_settings, current_settings, export_dotenv, hand_on, load_settings, use_settings

__all__ = [
    "REFERENCE_NAME",
    "REFERENCE_NAME_RULE",
    "EngineRules",
    "Settings",
    "SettingsModel",
    "build_settings",
    "current_settings",
    "export_dotenv",
    "find_project_dir",
    "hand_on",
    "load_settings",
    "use_settings",
]
