"""Every setting of a Cascade project: name, default, meaning, and where its value came from."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import os
import re
import runpy
import tomllib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from cascade.errors import ConfigurationError, ProjectNotFoundError
from cascade.names import PROJECT_DIR_VARIABLE

__all__ = [
    "REFERENCE_NAME",
    "REFERENCE_NAME_RULE",
    "Settings",
    "current_settings",
    "export_dotenv",
    "find_project_dir",
    "load_settings",
    "setting_sources",
    "use_settings",
]

# What a branch or tag may be called.
REFERENCE_NAME = re.compile(r"(?!.{101})[A-Za-z]([A-Za-z0-9_-]|\.(?=[A-Za-z0-9_-]))*")
REFERENCE_NAME_RULE = (
    "begin with a letter, then letters, digits, dashes, underscores and single dots, at most 100 characters; "
    "for example fix-july."
)

# Variables with our prefix that are no settings: the project's place, and what the runtime hands to the
# dbt process that it starts; where Cascade's own tests keep downloads.
_NO_SETTINGS = ("project_dir", "run_branch", "dbt_macros", "trino_catalog", "cache_dir")
# Kubernetes tells every container of services named cascade or cascade-…: CASCADE_SERVICE_HOST, CASCADE_PORT_80_TCP.
_OF_KUBERNETES = re.compile(r"(\w+_)?(service_host|service_port|port)(_\w+)?")


def find_project_dir(start: Path | None = None) -> Path:
    """Return the root of the project around a folder.

    Args:
        start: Where to begin; the working folder by default.

    Returns:
        `CASCADE_PROJECT_DIR`, else the nearest folder upward whose `pyproject.toml` has `[tool.cascade]`.

    Raises:
        ProjectNotFoundError: There is no such folder.
        ConfigurationError: `CASCADE_PROJECT_DIR` or a `pyproject.toml` is wrong.
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
    raise ProjectNotFoundError(
        "This is not a Cascade project: no pyproject.toml with a [tool.cascade] table here or above.",
        where=str(begin),
        fix=f"change into a project's folder, set {PROJECT_DIR_VARIABLE}, or make a project with `copier copy`.",
    )


class Settings(BaseSettings):
    """The settings of one project, read once and never changed.

    Each comes from the first of: the environment (`CASCADE_<NAME>`), `.env`, `cascade.yaml`, `cascade_config.py`
    (variables, or a dictionary `CASCADE_CONFIG`), `[tool.cascade]` in `pyproject.toml`, the default.

    A variable `CASCADE_…` that is no setting is an error, in the environment too. Other names in `.env`, such as an
    API key, become environment variables in every command, unless they are set already. `dagster dev` itself lets
    `.env` win over the environment.
    """

    # `match_prefix`: one `.env` serves Cascade and compose, and a misspelt `CASCADE_` key in it fails.
    model_config = SettingsConfigDict(
        env_prefix="CASCADE_",
        frozen=True,
        extra="forbid",
        dotenv_filtering="match_prefix",
        hide_input_in_errors=True,  # values may hold passwords
    )

    project_dir: Path = Field(description="The project's root folder; found, not set.")
    engine: Literal["embedded", "trino"] = Field(
        default="embedded",
        description="What runs the project: `embedded`, DuckDB in this process; `trino`, Nessie, Trino and S3.",
    )
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
    nightly_maintenance: bool = Field(
        default=False,
        description="Whether the schedule that keeps the lake clean is on from the start, as in compose.yaml.",
    )
    warehouse: str = Field(
        default="",
        description="Storage root of the tables' files: a folder, or s3://bucket/prefix; "
        "by default `warehouse` in data_dir, and s3://warehouse on the engine trino.",
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
        default=None, description="PostgreSQL that marts are published to, instead of a DuckDB file."
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
    nessie_url: str = Field(default="http://127.0.0.1:19120/api/v2", description="Nessie's REST API, version 2.")
    nessie_token: SecretStr | None = Field(default=None, description="Bearer token for Nessie.")
    nessie_token_url: str = Field(
        default="", description="Where OAuth2 client credentials become a token for Nessie; used with both below."
    )
    nessie_client_id: str = Field(default="", description="OAuth2 client of Nessie.")
    nessie_client_secret: SecretStr | None = Field(default=None, description="Its secret.")
    trino_url: str = Field(default="http://127.0.0.1:8080", description="Trino's coordinator.")
    trino_user: str = Field(default="cascade", description="Whom queries on Trino run as.")
    trino_password: SecretStr | None = Field(default=None, description="Password for Trino; it needs https.")
    ca_file: Path | None = Field(
        default=None, description="PEM file of a private certificate authority that Nessie, Trino and S3 are signed by."
    )

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
            raise ValueError(
                "it is not a PostgreSQL URL; an example: postgresql://user:password@127.0.0.1:5432/cascade"
            )
        return value

    @field_validator("nessie_url", "trino_url", "nessie_token_url", "s3_endpoint")
    @classmethod
    def _http(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("it must begin with http:// or https://")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        problems = []
        if (self.s3_access_key is None) != (self.s3_secret_key is None):
            problems.append("`s3_access_key` and `s3_secret_key` belong together")
        oauth = (self.nessie_token_url, self.nessie_client_id, self.nessie_client_secret)
        if any(oauth) and not all(oauth):
            problems.append("`nessie_token_url`, `nessie_client_id` and `nessie_client_secret` belong together")
        if self.nessie_token and any(oauth):
            problems.append("`nessie_token` and `nessie_client_id` are two ways to log in; choose one")
        if self.engine == "trino" and not self.warehouse_location.startswith("s3://"):
            problems.append("`warehouse` must be s3://… on the engine trino, which several machines share")
        if self.ca_path and not self.ca_path.is_file():
            problems.append(f"`ca_file`: there is no file {self.ca_path}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @cached_property
    def warehouse_location(self) -> str:
        """Root of the tables' files: an absolute folder, or `s3://bucket/prefix`; no slash at its end."""
        if self.warehouse.startswith("s3://"):
            return self.warehouse.rstrip("/")
        if self.warehouse:
            return str(self._absolute(Path(self.warehouse)))
        return "s3://warehouse" if self.engine == "trino" else str(self.data_path / "warehouse")

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
    for _, found in reversed(_sources(root)):
        values.update(found)
    try:
        return Settings(project_dir=root, **values)
    except ValidationError as error:
        raise _explain(error, root) from error


_in_use: ContextVar[Settings] = ContextVar("cascade_settings")


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
    prefix = str(Settings.model_config["env_prefix"]).lower()
    environment = {
        name.removeprefix(prefix): value
        for name, value in EnvSettingsSource(Settings).env_vars.items()
        if name.startswith(prefix) and not _OF_KUBERNETES.fullmatch(name.removeprefix(prefix))
    }
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


def export_dotenv(root: Path) -> None:
    """Put what `.env` holds beside settings into the environment, unless it is there.

    Args:
        root: The project's folder.

    Raises:
        ConfigurationError: A line of it is not `NAME=value`, or it is no text.
    """
    file = root / ".env"
    if file.is_file():
        from dotenv import dotenv_values
        from dotenv.parser import parse_stream

        try:
            found = list(parse_stream(io.StringIO(file.read_text("utf-8"))))
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{file} cannot be read: {error}.", fix="save it as UTF-8 text.") from error
        if wrong := [each.original for each in found if each.error]:
            # The line is not shown: it may hold a password.
            raise ConfigurationError(
                f"Line {wrong[0].line} of .env is not NAME=value.",
                where=str(file),
                fix="correct it, or make it a comment: begin it with #.",
            )
        for name, value in dotenv_values(file).items():
            if value is not None and not name.upper().startswith(str(Settings.model_config["env_prefix"])):
                os.environ.setdefault(name, value)


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
    config = names.get("CASCADE_CONFIG", {})
    if not isinstance(config, dict):
        raise ConfigurationError(
            f"CASCADE_CONFIG in {path.name} must be a dictionary.",
            where=str(path),
            fix='for example {"branch": "dev"}.',
        )
    return {**config, **{name: value for name, value in names.items() if name in Settings.model_fields}}


def _explain(error: ValidationError, root: Path) -> ConfigurationError:
    known = ", ".join(sorted(set(Settings.model_fields) - {"project_dir"}))
    problems = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"]).removeprefix("cascade_")
        if problem["type"] == "extra_forbidden":
            problems.append(f"`{name}` is not a setting")
        else:
            said = problem["msg"].removeprefix("Value error, ")
            problems.append(f"`{name}`: {said}" if name else said)
    return ConfigurationError(
        "Wrong settings: " + "; ".join(problems) + ".",
        where=f"environment, .env, cascade.yaml, cascade_config.py or [tool.cascade] below {root}",
        fix=f"correct them; the settings are {known}.",
    )
