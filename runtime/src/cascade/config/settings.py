"""The settings of Cascade itself, and where those of plugins are kept."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from cascade.errors import ConfigurationError
from cascade.plugins import installed, load

__all__ = ["REFERENCE_NAME", "REFERENCE_NAME_RULE", "EngineRules", "Settings", "SettingsModel", "problems_in"]

# What a branch or tag may be called.
REFERENCE_NAME = re.compile(r"(?!.{101})[A-Za-z]([A-Za-z0-9_-]|\.(?=[A-Za-z0-9_-]))*")
REFERENCE_NAME_RULE = (
    "begin with a letter, then letters, digits, dashes, underscores and single dots, at most 100 characters; "
    "for example fix-july."
)

_Model = TypeVar("_Model", bound=BaseModel)


class EngineRules(Protocol):
    """What an engine says of settings; the rest of it is `cascade.engine.Engine`, which no setting needs.

    Attributes:
        default_warehouse: Storage root when `warehouse` is not set; empty: `warehouse` in the data folder.
    """

    default_warehouse: str

    def setting_problems(self, settings: Settings) -> list[str]:
        """Return what is wrong with the settings on this engine, one sentence each, without a full stop."""
        return []


class SettingsModel(Protocol):
    """Group `cascade.settings`, by the plugin's name in small letters: a pydantic model, the plugin's own settings."""

    model_fields: Mapping[str, Any]

    def model_validate(self, values: Any) -> BaseModel:
        """Check values by name and keep them."""


class Settings(BaseSettings):
    """The settings of one project, read once and never changed.

    Each comes from the first of: the environment (`CASCADE_<NAME>`), `.env`, `cascade.yaml`, `cascade_config.py`
    (variables, or a dictionary `CASCADE_CONFIG`), `[tool.cascade]` in `pyproject.toml`, the default.

    An installed plugin has settings of its own: `CASCADE_<PLUGIN>__<NAME>` (two underscores; a list or table as JSON),
    or a table of the plugin's name in a file, such as `[tool.cascade.<plugin>]`.

    A project has settings of its own when `cascade_config.py` declares a class `ProjectSettings`, a pydantic model:
    `CASCADE_PROJECT__<NAME>`, or a table `project` in a file. Workflows read them as `load_settings().project`.

    A variable `CASCADE_…` that is no setting is an error, in the environment too. Other names in `.env`, such as an
    API key, become environment variables in every command, unless they are set already. `dagster dev` itself lets
    `.env` win over the environment.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True
    )  # values may hold passwords

    project_dir: Path = Field(description="The project's root folder; found, not set.")
    engine: str = Field(
        default="embedded",
        description="What runs the project: `embedded`, DuckDB in this process, or the engine of an installed package.",
    )
    branch: str = Field(default="dev", description="The branch that materializations outside a pipeline run write to.")
    data_dir: Path = Field(
        default=Path(".cascade"), description="Catalog, warehouse and marts; relative to project_dir."
    )
    workflows_dir: Path = Field(default=Path("workflows"), description="The folder that workflows are discovered in.")
    dbt_dir: Path = Field(default=Path("transforms/dbt"), description="The dbt project's folder.")
    partitions_start: dt.date = Field(
        default=dt.date(2024, 1, 1), description="First day of partitions that name no start."
    )
    owners: tuple[str, ...] = Field(
        default=(), description="Owners of assets that name none: mail addresses, or `team:` and a name."
    )
    timezone: str = Field(default="UTC", description="Time zone of partitions and schedules.")
    schedules: Literal["running", "stopped"] = Field(
        default="stopped",
        description="Whether what `cron=` and `automation=` make is on from the start, as in compose.yaml; "
        "`cascade schedules` turns each on and off.",
    )
    warehouse: str = Field(
        default="",
        description="Storage root of the tables' files: a folder, or s3://bucket/prefix; "
        "by default `warehouse` in data_dir, unless the engine has another.",
    )
    catalog_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL that machines share: the embedded catalog instead of its SQLite file, "
        "and the locks by which runs take turns; for example postgresql://cascade_catalog:…@127.0.0.1:5432/cascade.",
    )
    dagster_url: SecretStr | None = Field(
        default=None, description="PostgreSQL for Dagster's runs and events, instead of SQLite files in .dagster."
    )
    marts_url: SecretStr | None = Field(
        default=None, description="PostgreSQL that marts are published to, not a DuckDB file."
    )
    s3_endpoint: str = Field(default="", description="URL of the S3 service; empty for Amazon's own.")
    s3_region: str = Field(default="us-east-1", description="Region of the S3 service.")
    s3_path_style: bool = Field(
        default=True, description="Whether the bucket's name is part of an S3 address' path rather than of its host."
    )
    s3_access_key: SecretStr | None = Field(
        default=None, description="Access key of S3; without it the ambient chain: environment, profile, role."
    )
    s3_secret_key: SecretStr | None = Field(default=None, description="Secret key of S3.")
    ca_file: Path | None = Field(
        default=None, description="PEM file of the private certificate authority of S3 and of the engine's servers."
    )

    plugins: Mapping[str, Any] = Field(
        default={}, repr=False, description="Settings of plugins, by plugin; read from a table of its name, not set."
    )
    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

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
        if not REFERENCE_NAME.fullmatch(value):
            raise ValueError(f"{value!r} is not a name for a branch: {REFERENCE_NAME_RULE.rstrip('.')}")
        return value

    @field_validator("catalog_url", "dagster_url", "marts_url")
    @classmethod
    def _postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        # The value is not repeated: it holds a password.
        if value is not None and not value.get_secret_value().startswith(("postgresql://", "postgresql+")):
            raise ValueError("it is not a PostgreSQL URL, such as postgresql://user:password@127.0.0.1:5432/cascade")
        return value

    @field_validator("s3_endpoint")
    @classmethod
    def _http(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("it must begin with http:// or https://")
        return value.rstrip("/")

    @field_validator("engine")
    @classmethod
    def _installed(cls, value: str) -> str:
        engines = [record.name for record in installed("cascade.engines")]
        if value not in engines:
            raise ValueError(f"{value!r} is not an installed engine; there is {', '.join(engines)}")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        problems = []
        if (self.s3_access_key is None) != (self.s3_secret_key is None):
            problems.append("`s3_access_key` and `s3_secret_key` belong together")
        if self.ca_path and not self.ca_path.is_file():
            problems.append(f"`ca_file`: there is no file {self.ca_path}")
        if problems := problems + self._engine.setting_problems(self):
            raise ValueError("; ".join(problems))
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from `load_settings` alone, which reads all sources and knows where each value came from."""
        return (init_settings,)

    def plugin(self, name: str, model: type[_Model]) -> _Model:
        """Return the settings of a plugin.

        Args:
            name: The plugin.
            model: What it brings for `cascade.settings`.

        Raises:
            ConfigurationError: Nothing was set, and a setting has no default.
        """
        try:
            own: _Model = self.plugins.get(name) or model()
            return own
        except ValidationError as error:
            raise ConfigurationError(
                f"Settings of {name} are missing: {'; '.join(problems_in(error, f'{name}.'))}.",
                where=str(self.project_dir),
                fix=f"set them: CASCADE_{name.upper()}__<NAME> in .env, or in [tool.cascade.{name}] of pyproject.toml.",
            ) from None

    @property
    def project(self) -> Any:
        """The project's own settings, of the class `ProjectSettings` in `cascade_config.py`; `None` without it."""
        return self.plugins.get("project")

    @property
    def sources(self) -> Mapping[str, str]:
        """Where each setting that was set came from: `environment` or a file; a plugin's is `plugin.name`."""
        return self._sources

    @cached_property
    def warehouse_location(self) -> str:
        """Root of the tables' files: an absolute folder, or `s3://bucket/prefix`; no slash at its end."""
        warehouse = self.warehouse or self._engine.default_warehouse or str(self.data_path / "warehouse")
        return warehouse.rstrip("/") if warehouse.startswith("s3://") else str(self._absolute(Path(warehouse)))

    @property
    def _engine(self) -> EngineRules:
        return load("cascade.engines", self.engine, EngineRules, where="setting `engine`")

    @cached_property
    def data_path(self) -> Path:
        """Absolute path of the data folder."""
        return self._absolute(self.data_dir)

    @cached_property
    def ca_path(self) -> Path | None:
        """Absolute path of the private certificate authority's file, if there is one."""
        return self._absolute(self.ca_file) if self.ca_file else None

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


def problems_in(error: ValidationError, prefix: str = "") -> list[str]:
    """Return what pydantic says of settings, without their values, which may be secret; `prefix` comes before names."""
    problems = []
    for problem in error.errors(include_input=False, include_url=False):
        name = prefix + ".".join(str(part) for part in problem["loc"])
        said = problem["msg"].removeprefix("Value error, ")
        problems.append(f"`{name}`: {said}" if problem["loc"] else said)
    return problems
