"""The settings of a project, and where each came from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from cascade.config import Settings, SettingsModel
from cascade.names import PROJECT_DIR_VARIABLE
from cascade.plugins import load_all

__all__ = ["SettingRow", "list_settings"]


@dataclass(frozen=True)
class SettingRow:
    """One setting of a project, to be shown.

    Attributes:
        name: The setting; a plugin's is `plugin.name`.
        value: As text, without what is secret.
        source: Where it came from: `environment`, a file, `default`, or `not set` when it has no default.
        description: What it means.
    """

    name: str
    value: str
    source: str
    description: str


def list_settings(settings: Settings) -> tuple[SettingRow, ...]:
    """Return every setting: Cascade's own, then those of each installed plugin, whether set or not, and the
    project's own.

    Args:
        settings: The project's settings.
    """
    project = PROJECT_DIR_VARIABLE if os.environ.get(PROJECT_DIR_VARIABLE) else "found"
    sources = {"project_dir": project, **settings.sources}
    rows = [
        SettingRow(name, _shown(getattr(settings, name)), sources.get(name, "default"), field.description or "")
        for name, field in Settings.model_fields.items()
        if name != "plugins"
    ]
    for plugin in load_all("cascade.settings", SettingsModel):
        if plugin.cause:
            rows.append(SettingRow(f"{plugin.name}.*", "unknown", f"package {plugin.package}", str(plugin)))
            continue
        rows += _rows_of(plugin.name, plugin.object.model_fields, settings, sources)
    if settings.project is not None:
        rows += _rows_of("project", type(settings.project).model_fields, settings, sources)
    return tuple(rows)


def _rows_of(
    owner: str, fields: Mapping[str, Any], settings: Settings, sources: Mapping[str, str]
) -> Iterator[SettingRow]:
    for name, field in fields.items():
        default = "" if field.is_required() else field.get_default(call_default_factory=True)
        value = getattr(settings.plugins.get(owner), name, default)
        source = sources.get(f"{owner}.{name}", "not set" if field.is_required() else "default")
        yield SettingRow(f"{owner}.{name}", _shown(value), source, field.description or "")


def _shown(value: object) -> str:
    """Return a setting as text; of an address only the passwords are secret."""
    secret = value.get_secret_value() if isinstance(value, SecretStr) else ""
    if "://" in secret:
        return re.sub(r"(?i)(\w*password=)[^&]*", r"\1***", re.sub(r"(://[^:@/]*):.*@", r"\1:***@", secret))
    return str(value)
