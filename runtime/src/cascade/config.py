"""Every setting of a Cascade project: name, default, meaning, and where its value came from."""

from __future__ import annotations

import datetime as dt
import os
import runpy
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from cascade.errors import ConfigurationError

__all__ = ["PROJECT_DIR_VARIABLE", "Settings", "find_project_dir", "load_settings", "setting_sources"]

PROJECT_DIR_VARIABLE = "CASCADE_PROJECT_DIR"

# Variables with our prefix that are no settings: the project's place, and what the runtime hands to the
# dbt process that it starts.
_NO_SETTINGS = ("project_dir", "run_branch", "dbt_macros")


def find_project_dir(start: Path | None = None) -> Path:
    """Return the root of the project around a folder.

    Args:
        start: Where to begin; the working folder by default.

    Returns:
        `CASCADE_PROJECT_DIR`, else the nearest folder upward whose `pyproject.toml` has `[tool.cascade]`.

    Raises:
        ConfigurationError: There is no such folder.
    """
    if named := os.environ.get(PROJECT_DIR_VARIABLE):
        root = Path(named).expanduser().absolute()
        if not root.is_dir():
            raise ConfigurationError(
                f"{PROJECT_DIR_VARIABLE} names a folder that does not exist.",
                where=str(root),
                fix=f"unset {PROJECT_DIR_VARIABLE}, or let it name a project's root folder.",
            )
        return root
    begin = (start or Path.cwd()).absolute()
    for folder in (begin, *begin.parents):
        manifest = folder / "pyproject.toml"
        if manifest.is_file() and "cascade" in _read_toml(manifest).get("tool", {}):
            return folder
    raise ConfigurationError(
        "This is not a Cascade project: no pyproject.toml with a [tool.cascade] table here or above.",
        where=str(begin),
        fix=f"change into a project's folder, set {PROJECT_DIR_VARIABLE}, or make a project with `copier copy`.",
    )


class Settings(BaseSettings):
    """The settings of one project, read once and never changed.

    Each comes from the first of: the environment (`CASCADE_<NAME>`), `.env`, `cascade.yaml`,
    `cascade_config.py`, `[tool.cascade]` in `pyproject.toml`, the default.
    """

    # `match_prefix`: one `.env` serves Cascade and compose, and a misspelt `CASCADE_` key in it fails.
    model_config = SettingsConfigDict(
        env_prefix="CASCADE_", frozen=True, extra="forbid", dotenv_filtering="match_prefix"
    )

    project_dir: Path = Field(description="The project's root folder; found, not set.")
    branch: str = Field(default="dev", description="The branch that materializations outside a pipeline run write to.")
    data_dir: Path = Field(
        default=Path(".cascade"), description="Catalog, warehouse and marts; relative to the project's root."
    )
    workflows_dir: Path = Field(default=Path("workflows"), description="The folder that workflows are discovered in.")
    dbt_dir: Path = Field(default=Path("transforms/dbt"), description="The dbt project's folder.")
    partitions_start: dt.date = Field(
        default=dt.date(2024, 1, 1), description="First day of partitions that name no start themselves."
    )
    timezone: str = Field(default="UTC", description="Time zone of partitions and schedules.")

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{value!r} is not a time zone; an example: Europe/Amsterdam") from error
        return value

    @field_validator("branch")
    @classmethod
    def _not_main(cls, value: str) -> str:
        if value == "main":
            raise ValueError("`main` is never written directly; name another branch, such as dev")
        return value

    @cached_property
    def data_path(self) -> Path:
        """Absolute path of the data folder."""
        return self._absolute(self.data_dir)

    @cached_property
    def workflows_path(self) -> Path:
        """Absolute path of the workflows folder."""
        return self._absolute(self.workflows_dir)

    @cached_property
    def dbt_path(self) -> Path:
        """Absolute path of the dbt project."""
        return self._absolute(self.dbt_dir)

    @cached_property
    def marts_path(self) -> Path:
        """Absolute path of the DuckDB file that marts are published to.

        Not `marts.duckdb`: DuckDB would name the database like the schema in it, and `marts.table` be ambiguous.
        """
        return self.data_path / "published.duckdb"

    def _absolute(self, path: Path) -> Path:
        return Path(os.path.abspath(self.project_dir / path.expanduser()))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read everything through `load_settings`, which also says where a value came from."""
        return (init_settings,)


def load_settings(start: Path | None = None) -> Settings:
    """Read the settings of the project around a folder.

    Args:
        start: Where to look for the project; the working folder by default.

    Raises:
        ConfigurationError: No project, or values that are no settings; all of them are named together.
    """
    root = find_project_dir(start)
    values: dict[str, Any] = {}
    for _, found in reversed(_sources(root)):
        values.update(found)
    try:
        return Settings(project_dir=root, **values)
    except ValidationError as error:
        raise _explain(error, root) from error


def setting_sources(settings: Settings) -> dict[str, str]:
    """Say for each setting where its value came from.

    Returns:
        Setting name to source, such as `environment`, `.env` or `default`.
    """
    origins = dict.fromkeys(type(settings).model_fields, "default")
    for source, found in reversed(_sources(settings.project_dir)):
        origins.update(dict.fromkeys(found, source))
    origins["project_dir"] = PROJECT_DIR_VARIABLE if os.environ.get(PROJECT_DIR_VARIABLE) else "found"
    return origins


def _sources(root: Path) -> list[tuple[str, dict[str, Any]]]:
    """All sources with their values, strongest first."""
    environment = EnvSettingsSource(Settings)()
    dotenv = DotEnvSettingsSource(Settings, env_file=root / ".env")()
    return [
        (source, {name: value for name, value in found.items() if name not in _NO_SETTINGS})
        for source, found in (
            ("environment", environment),
            (".env", dotenv),
            ("cascade.yaml", _read_yaml(root / "cascade.yaml")),
            ("cascade_config.py", _read_python(root / "cascade_config.py")),
            ("pyproject.toml", _read_toml(root / "pyproject.toml").get("tool", {}).get("cascade", {})),
        )
    ]


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path.name} cannot be read: {error}", where=str(path), fix="correct the file at that line."
        ) from error


def _read_yaml(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    import yaml

    try:
        content = yaml.safe_load(path.read_text("utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path.name} cannot be read: {error}", where=str(path), fix="correct the file at that line."
        ) from error
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{path.name} must hold settings as `name: value`.", where=str(path), fix="for example `branch: dev`."
        )
    return content


def _read_python(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        names = runpy.run_path(str(path))
    except Exception as error:
        raise ConfigurationError(
            f"{path.name} fails: {type(error).__name__}: {error}", where=str(path), fix="correct the file."
        ) from error
    return {name: value for name, value in names.items() if name in Settings.model_fields}


def _explain(error: ValidationError, root: Path) -> ConfigurationError:
    known = ", ".join(sorted(set(Settings.model_fields) - {"project_dir"}))
    problems = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"]).removeprefix("cascade_")
        if problem["type"] == "extra_forbidden":
            problems.append(f"`{name}` is not a setting")
        else:
            problems.append(f"`{name}`: {problem['msg']}")
    return ConfigurationError(
        "Wrong settings: " + "; ".join(problems) + ".",
        where=f"environment, .env, cascade.yaml, cascade_config.py or [tool.cascade] below {root}",
        fix=f"correct them; the settings are {known}.",
    )
