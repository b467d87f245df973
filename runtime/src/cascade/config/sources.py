"""Read a project's settings from every place that may hold them, and remember where each came from."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from cascade.config.files import read_dotenv, read_python, read_toml, read_yaml
from cascade.config.project import find_project_dir
from cascade.config.settings import Settings, SettingsModel, problems_in
from cascade.errors import ConfigurationError, ProjectNotFoundError
from cascade.names import PROJECT_DIR_VARIABLE
from cascade.plugins import find, installed, load_all

__all__ = [
    "SettingRow",
    "build_settings",
    "current_settings",
    "export_dotenv",
    "list_settings",
    "load_settings",
    "setting_sources",
    "use_settings",
]

_PREFIX = "CASCADE_"
_GROUP = "cascade.settings"
# What a file may set. Where the project lies is found, and each plugin has a table of its own.
_SETTINGS = Settings.model_fields.keys() - {"project_dir", "plugins"}
# Variables with our prefix that are no settings: the project's place; what the runtime hands to the dbt process that
# it starts; where Cascade's own tests keep downloads.
_HANDED_ON = re.compile(r"project_dir|run_\w+|dbt_macros|cache_dir")
# Kubernetes tells every container of services named cascade or cascade-…: CASCADE_SERVICE_HOST, CASCADE_PORT_80_TCP.
# Two underscores are a plugin's setting, which may well be its port.
_OF_KUBERNETES = re.compile(r"(?!.*__)(\w+_)?(service_host|service_port|port)(_\w+)?")

_in_use: ContextVar[Settings] = ContextVar("cascade_settings")


def load_settings(start: Path | None = None) -> Settings:
    """Read the settings of the project around a folder.

    Names in `.env` that do not begin with `CASCADE_` become environment variables, unless they are set: workflows
    find their API keys in every command, as they do under `dagster dev`.

    Args:
        start: Where to look for the project; the working folder by default.

    Raises:
        ConfigurationError: No project, or values that are no settings; all of them are named together.
    """
    root = find_project_dir(start)
    export_dotenv(root)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, found in reversed(_sources(root)):
        values.update(found)
        sources.update(dict.fromkeys(found, source))
    settings = build_settings(root, values)
    settings._sources = sources
    return settings


def build_settings(project_dir: Path, values: Mapping[str, Any]) -> Settings:
    """Build settings from values, without reading any file or variable.

    Args:
        project_dir: The project's root folder.
        values: Values by setting; a plugin's setting is `plugin.name`.

    Raises:
        ConfigurationError: Some are no settings, or wrong; all of them are named together.
    """
    own = {name: value for name, value in values.items() if name in _SETTINGS}
    plugins, problems = _plugin_settings({name: value for name, value in values.items() if name not in own})
    try:
        settings = Settings(project_dir=project_dir, plugins=plugins, **own)
    except ValidationError as error:
        problems = problems_in(error) + problems
    if problems:
        raise ConfigurationError(
            "Wrong settings: " + "; ".join(problems) + ".",
            where=f"environment, .env, cascade.yaml, cascade_config.py or [tool.cascade] below {project_dir}",
            fix=f"correct them; the settings are {', '.join(sorted(_SETTINGS))}.",
        )
    return settings


@contextlib.contextmanager
def use_settings(settings: Settings) -> Iterator[None]:
    """Let `current_settings` return these settings, while workflow files are imported.

    Args:
        settings: The project's settings, which need not be read again for each asset.
    """
    token = _in_use.set(settings)
    try:
        yield
    finally:
        _in_use.reset(token)


def current_settings() -> Settings:
    """Return the settings in use, else those of the project around the working folder.

    Without a project, such as in a notebook, they are the defaults.

    Raises:
        ConfigurationError: The project's settings are wrong.
    """
    if settings := _in_use.get(None):
        return settings
    try:
        return load_settings()
    except ProjectNotFoundError:
        return Settings(project_dir=Path.cwd())


def setting_sources(settings: Settings) -> dict[str, str]:
    """Say for each setting where its value came from when the settings were read.

    Returns:
        Setting to source, such as `environment`, `.env` or `default`; a plugin's setting is `plugin.name`, and is
        listed when it was set.
    """
    project = PROJECT_DIR_VARIABLE if os.environ.get(PROJECT_DIR_VARIABLE) else "found"
    return {**dict.fromkeys(_SETTINGS, "default"), "project_dir": project, **settings._sources}


@dataclass(frozen=True)
class SettingRow:
    """One setting of a project, to be shown.

    Attributes:
        name: The setting; a plugin's is `plugin.name`.
        value: As text, without what is secret.
        source: Where it came from; see `setting_sources`.
        description: What it means.
    """

    name: str
    value: str
    source: str
    description: str


def list_settings(settings: Settings) -> list[SettingRow]:
    """Return every setting: Cascade's own, then those of each installed plugin, whether set or not.

    Args:
        settings: The project's settings.
    """
    sources = setting_sources(settings)
    rows = [
        SettingRow(name, _shown(getattr(settings, name)), sources[name], field.description or "")
        for name, field in Settings.model_fields.items()
        if name in sources
    ]
    for plugin in load_all(_GROUP, SettingsModel):
        if plugin.cause:
            rows.append(SettingRow(f"{plugin.name}.*", "unknown", f"package {plugin.package}", str(plugin)))
            continue
        own = settings.plugins.get(plugin.name)
        for name, field in plugin.object.model_fields.items():
            value = getattr(own, name) if own else "" if field.is_required() else field.get_default()
            source = sources.get(f"{plugin.name}.{name}", "not set" if field.is_required() else "default")
            rows.append(SettingRow(f"{plugin.name}.{name}", _shown(value), source, field.description or ""))
    return rows


def _shown(value: object) -> str:
    """Return a setting as text; of an address only the passwords are secret."""
    secret = value.get_secret_value() if isinstance(value, SecretStr) else ""
    if "://" in secret:
        return re.sub(r"(?i)(\w*password=)[^&]*", r"\1***", re.sub(r"(://[^:@/]*):.*@", r"\1:***@", secret))
    return str(value)


def export_dotenv(root: Path) -> None:
    """Put what `.env` holds beside settings into the environment, unless it is there.

    Args:
        root: The project's folder.

    Raises:
        ConfigurationError: A line of it is not `NAME=value`, or it is no text.
    """
    for name, value in read_dotenv(root / ".env").items():
        if value is not None and not name.upper().startswith(_PREFIX):
            os.environ.setdefault(name, value)


def _sources(root: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return all sources with their values, strongest first; a plugin's setting is called `plugin.name`."""
    plugins = {record.name for record in installed(_GROUP)}
    python = read_python(root / "cascade_config.py")
    variables = {name: value for name, value in python.items() if name in _SETTINGS}
    variables |= {name: value for name, value in python.items() if name in plugins and isinstance(value, dict)}
    return [
        ("environment", _from_variables(os.environ)),
        (".env", _from_variables(read_dotenv(root / ".env"))),
        ("cascade.yaml", _flat(read_yaml(root / "cascade.yaml"))),
        ("cascade_config.py", _flat({**python.get("CASCADE_CONFIG", {}), **variables})),
        ("pyproject.toml", _flat(read_toml(root / "pyproject.toml").get("tool", {}).get("cascade", {}))),
    ]


def _from_variables(variables: Mapping[str, str | None]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, value in variables.items():
        name = variable[len(_PREFIX) :].lower()
        ours = variable.upper().startswith(_PREFIX)
        if ours and not (_HANDED_ON.fullmatch(name) or _OF_KUBERNETES.fullmatch(name)):
            found[name.replace("__", ".", 1)] = value
    return found


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        table = isinstance(value, dict) and name not in _SETTINGS
        flat |= {f"{name}.{own}": each for own, each in value.items()} if table else {str(name): value}
    return flat


def _plugin_settings(values: Mapping[str, Any]) -> tuple[dict[str, BaseModel], list[str]]:
    """Build the settings of each plugin that was given some; return what is wrong beside them."""
    plugins: dict[str, BaseModel] = {}
    problems: list[str] = []
    given: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        plugin, dot, own = name.partition(".")
        if dot:
            given.setdefault(plugin, {})[own] = value
        else:
            problems.append(f"`{name}` is not a setting" + _meant(name))
    for plugin, own_values in given.items():
        try:
            model = find(_GROUP, plugin, SettingsModel)
        except ConfigurationError as error:
            problems.append(f"the settings of {plugin} cannot be checked: {error.what} ({error.where}; {error.fix})")
            continue
        if model is None:
            problems.append(f"`{plugin}` is not a setting, and no installed plugin is called so")
            continue
        unknown = sorted(own_values.keys() - model.model_fields.keys())
        known = ", ".join(sorted(model.model_fields))
        problems += [f"`{plugin}.{name}` is not a setting; those of {plugin} are {known}" for name in unknown]
        try:
            plugins[plugin] = _build(model, {n: v for n, v in own_values.items() if n not in unknown})
        except ValidationError as error:
            problems += problems_in(error, f"{plugin}.")
    return plugins, problems


def _build(model: SettingsModel, values: dict[str, Any]) -> BaseModel:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        # A list or a table is JSON in the environment, where all is text.
        texts = [e for e in error.errors() if isinstance(e["input"], str) and e["type"].endswith("_type")]
        wrong = {str(problem["loc"][0]) for problem in texts}
        if not wrong:
            raise
        with contextlib.suppress(ValueError):
            values = values | {name: json.loads(values[name]) for name in wrong}
        return model.model_validate(values)


def _meant(name: str) -> str:
    """Return a hint for a name that is written as if a plugin's setting were one of Cascade's."""
    for plugin in (record.name for record in installed(_GROUP)):
        own = name.removeprefix(f"{plugin}_")
        if own != name:
            return f"; `{own}` of {plugin} is CASCADE_{plugin.upper()}__{own.upper()}, or {own} in a table {plugin}"
        if name == plugin:
            return f"; write the settings of {plugin} in a table {plugin}"
    return ""
