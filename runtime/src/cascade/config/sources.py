"""Read a project's settings from every place that may hold them, and remember where each came from."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import to_jsonable_python as to_json

from cascade.config.files import find_project_dir, read_dotenv, read_python, read_toml, read_yaml
from cascade.config.settings import Settings, SettingsModel, problems_in
from cascade.errors import ConfigurationError, ProjectNotFoundError
from cascade.names import RUN_SETTINGS_VARIABLE
from cascade.plugins import find, installed

__all__ = ["build_settings", "current_settings", "export_dotenv", "hand_on", "load_settings", "use_settings"]

_PREFIX = "CASCADE_"
_GROUP = "cascade.settings"
# What a file may set. Where the project lies is found, and each plugin has a table of its own.
_SETTINGS = Settings.model_fields.keys() - {"project_dir", "plugins"}
# What a project calls its own settings, and the class in cascade_config.py that declares them.
_OWN, _OWN_MODEL = "project", "ProjectSettings"
# What settings were called in plans and examples that people still have.
_FORMER = {
    "dbt_project_dir": "dbt_dir",
    "dbt_project_dir_override": "dbt_dir",
    "iceberg_warehouse": "warehouse",
    "workflows_path": "workflows_dir",
}
# Variables with our prefix that are no settings: the project's place; what the runtime hands to the dbt process that
# it starts; where Cascade's own tests keep downloads.
_HANDED_ON = re.compile(r"project_dir|run_\w+|dbt_macros|cache_dir")
# Kubernetes tells every container of services named cascade or cascade-…: CASCADE_SERVICE_HOST, CASCADE_PORT_80_TCP.
_OF_KUBERNETES = re.compile(r"(\w+_)?(service_host|service_port|port)(_\w+)?")

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
    if handed_on := os.environ.get(RUN_SETTINGS_VARIABLE):
        return build_settings(root, json.loads(handed_on))
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    python = read_python(root / "cascade_config.py")
    for source, found in reversed(_sources(root, python)):
        values.update(found)
        sources.update(dict.fromkeys(found, source))
    settings = build_settings(root, values, python.get(_OWN_MODEL))
    settings._sources = sources
    return settings


def hand_on(settings: Settings) -> str:
    """Return settings as text, secrets among them, for the environment of a process that is to have the same ones."""
    values = {name: getattr(settings, name) for name in _SETTINGS}
    plugins = {plugin: own for plugin, own in settings.plugins.items() if plugin != _OWN}
    values |= {f"{plugin}.{name}": value for plugin, own in plugins.items() for name, value in own}
    return json.dumps(values, default=lambda v: v.get_secret_value() if isinstance(v, SecretStr) else to_json(v))


def build_settings(project_dir: Path, values: Mapping[str, Any], own_model: SettingsModel | None = None) -> Settings:
    """Build settings from values, without reading any file or variable.

    Args:
        project_dir: The project's root folder.
        values: Values by setting; a plugin's setting is `plugin.name`, one of the project's own `project.name`.
        own_model: What the project declares for settings of its own.

    Raises:
        ConfigurationError: Some are no settings, or wrong; all of them are named together.
    """
    own = {name: value for name, value in values.items() if name in _SETTINGS}
    others = {name: value for name, value in values.items() if name not in own}
    plugins, problems = _plugin_settings(others, {} if own_model is None else {_OWN: own_model})
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


def export_dotenv(root: Path) -> None:
    """Put what `.env` in a folder holds beside settings into the environment; raises as `load_settings` does."""
    for name, value in read_dotenv(root / ".env").items():
        if value is not None and not name.upper().startswith(_PREFIX):
            os.environ.setdefault(name, value)


def _sources(root: Path, python: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return all sources with their values, strongest first; a plugin's setting is called `plugin.name`."""
    tables = {_OWN, *(record.name for record in installed(_GROUP))}
    known = _SETTINGS | _FORMER.keys()
    variables = {n: v for n, v in python.items() if n in known or (n in tables and isinstance(v, dict))}
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
        name = variable[len(_PREFIX) :].lower().replace("__", ".", 1)
        if not variable.upper().startswith(_PREFIX) or _HANDED_ON.fullmatch(name) or _OF_KUBERNETES.fullmatch(name):
            continue
        found[name] = value
        if "." in name and value and value[0] in "[{":  # a list or a table of a plugin
            with contextlib.suppress(ValueError):
                found[name] = json.loads(value)
    return found


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        table = isinstance(value, dict) and name not in _SETTINGS
        flat |= {f"{name}.{own}": each for own, each in value.items()} if table else {str(name): value}
    return flat


def _plugin_settings(
    values: Mapping[str, Any], declared: Mapping[str, SettingsModel]
) -> tuple[dict[str, BaseModel], list[str]]:
    """Build the settings that are declared, and of each plugin that has some; return what is wrong beside them."""
    plugins: dict[str, BaseModel] = {}
    problems = [f"`{name}` is not a setting{_hint(name)}" for name in values if "." not in name]
    for plugin in dict.fromkeys([*declared, *(name.partition(".")[0] for name in values if "." in name)]):
        given = {name.partition(".")[2]: value for name, value in values.items() if name.startswith(f"{plugin}.")}
        try:
            model = declared.get(plugin) or find(_GROUP, plugin, SettingsModel)
            if plugin in declared and not isinstance(getattr(model, "model_fields", None), dict):
                problems.append(f"{_OWN_MODEL} in cascade_config.py is no class of pydantic's BaseModel")
                continue
            if model is None:
                hint = f"; declare a class {_OWN_MODEL} in cascade_config.py" if plugin == _OWN else _nearest(plugin)
                problems.append(f"`{plugin}` is not a setting, and no installed plugin is called so{hint}")
                continue
            free = getattr(model, "model_config", {}).get("extra") == "allow"
            unknown = [] if free else sorted(given.keys() - model.model_fields.keys())
            known = ", ".join(sorted(model.model_fields))
            problems += [f"`{plugin}.{name}` is not a setting; those of {plugin} are {known}" for name in unknown]
            plugins[plugin] = model.model_validate({n: v for n, v in given.items() if n not in unknown})
        except ValidationError as error:
            problems += problems_in(error, f"{plugin}.")
        except ConfigurationError as error:
            problems.append(f"the settings of {plugin} cannot be checked: {error.what} ({error.where}; {error.fix})")
    return plugins, problems


def _hint(name: str) -> str:
    """Return what may be meant by a name: a setting's former name, a plugin's setting, one that is spelled alike."""
    if name in _FORMER:
        return f"; it is called `{_FORMER[name]}`, CASCADE_{_FORMER[name].upper()} in the environment"
    for plugin in (record.name for record in installed(_GROUP)):
        if name == plugin:
            return f"; write the settings of {plugin} in a table {plugin}"
        if own := name.removeprefix(f"{plugin}_").removeprefix(name):
            return f"; `{own}` of {plugin} is CASCADE_{plugin.upper()}__{own.upper()}, or {own} in a table {plugin}"
    return _nearest(name)


def _nearest(name: str) -> str:
    known = [*_SETTINGS, *(record.name for record in installed(_GROUP))]
    return "".join(f" (is it `{one}`?)" for one in difflib.get_close_matches(name, known, n=1))
