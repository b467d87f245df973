"""The families of plugins for data people: sources, checks, transformations, services."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from cascade.errors import DefinitionError
from cascade.plugins.registry import PluginRecord, load, load_all

if TYPE_CHECKING:
    import pyarrow as pa
    from pydantic import BaseModel

__all__ = [
    "FAMILIES",
    "Plugin",
    "PluginMetadata",
    "QualityCheckPlugin",
    "ServicePlugin",
    "SourceConnectorPlugin",
    "TransformationPlugin",
    "get_quality_check",
    "get_service",
    "get_source_connector",
    "get_transformation",
    "list_plugins",
]


@dataclass(frozen=True, kw_only=True)
class PluginMetadata:
    """What a plugin says of itself; `cascade plugins info` shows it.

    Attributes:
        name: The name of its entry point.
        version: Its version.
        description: What it does, in one sentence.
        author: Who wrote it.
        license: The SPDX identifier of its license, such as `Apache-2.0`.
        homepage: Where its documentation is.
        tags: Words to find it by.
    """

    name: str
    version: str
    description: str = ""
    author: str = ""
    license: str = ""
    homepage: str = ""
    tags: tuple[str, ...] = ()


class Plugin(abc.ABC):
    """What data people install: a class that derives from one of the families, and that an entry point names.

    Attributes:
        metadata: What it says of itself.
        options: The pydantic model of the options that an asset gives; without one it takes no options.
    """

    metadata: ClassVar[PluginMetadata]
    options: ClassVar[type[BaseModel] | None] = None

    def validated(self, given: Mapping[str, Any]) -> Any:
        """Return options as an object of the model; `None` without a model.

        Args:
            given: The options that an asset gives, by name.

        Raises:
            DefinitionError: An option is unknown, missing, or has an invalid value; all problems are named.
        """
        return _validated(self, given)


class SourceConnectorPlugin(Plugin):
    """Fetches rows from one kind of system: `@cascade_ingestion(source="<name>", options={…})`."""

    @abc.abstractmethod
    def fetch(self, options: Any) -> Iterable[Any]:
        """Return rows in any form that an ingestion takes: dicts, Arrow tables, data frames, a dlt resource.

        Args:
            options: The asset's options, as an object of the model `options`.
        """

    def schema(self, options: Any) -> Any:
        """Return the contract of the rows, a Pandera model, for assets that give none; `None` without one."""
        return None

    def check_connection(self, options: Any) -> None:
        """Raise an error that says why the system cannot be reached; called before rows are fetched."""


class QualityCheckPlugin(Plugin):
    """Makes checks of tables: `@cascade_quality(asset=…, checks=["<name>"])`."""

    @abc.abstractmethod
    def create_check(self, options: Any) -> Any:
        """Return a check of `cascade.quality`, such as `not_null("id")`.

        Args:
            options: What `check` was given, as an object of the model `options`.
        """

    def check(self, **options: Any) -> Any:
        """Return the check with some options; its name alone stands for the one without any."""
        return self.create_check(self.validated(options))


class TransformationPlugin(Plugin):
    """Makes one table of others, for an asset that asks for it: `transformation="<name>", options={…}`."""

    @abc.abstractmethod
    def transform(self, tables: Mapping[str, pa.Table], options: Any) -> Any:
        """Return the rows of the table, in any form that an ingestion takes.

        Args:
            tables: The tables that are read, by `namespace.table`.
            options: The asset's options, as an object of the model `options`.
        """


class ServicePlugin(Plugin):
    """Describes a server that runs beside the project: `cascade services list`."""

    def definition(self) -> Mapping[str, Any]:
        """Return what `service.yaml` beside the module of the class says."""
        import yaml  # the list of commands does without

        path = Path(inspect.getfile(type(self))).with_name("service.yaml")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where the wheel has it
        said: Mapping[str, Any] = loader(path.read_text("utf-8")).get_single_data()
        return said


P = TypeVar("P", bound=Plugin)

#: The groups for data people, and the class that each plugin of a group derives from.
FAMILIES: Mapping[str, type[Plugin]] = {
    "cascade.plugins.sources": SourceConnectorPlugin,
    "cascade.plugins.quality": QualityCheckPlugin,
    "cascade.plugins.transforms": TransformationPlugin,
    "cascade.plugins.services": ServicePlugin,
}


def get_source_connector(name: str) -> SourceConnectorPlugin:
    """Make the source connector of a name.

    Raises:
        ConfigurationError: No installed package brings it, or it cannot be used.
    """
    return _make(SourceConnectorPlugin, name)


def get_quality_check(name: str) -> QualityCheckPlugin:
    """Make the quality check of a name; raises as `get_source_connector` does."""
    return _make(QualityCheckPlugin, name)


def get_transformation(name: str) -> TransformationPlugin:
    """Make the transformation of a name; raises as `get_source_connector` does."""
    return _make(TransformationPlugin, name)


def get_service(name: str) -> ServicePlugin:
    """Make the service of a name; raises as `get_source_connector` does."""
    return _make(ServicePlugin, name)


def list_plugins(family: type[Plugin] | None = None) -> list[PluginRecord]:
    """Load the plugins of a family, or of all families; `cause` says what is wrong with a broken one."""
    return [record for group, one in FAMILIES.items() if family in (None, one) for record in load_all(group, one)]


def _make(family: type[P], name: str) -> P:
    group = next(group for group, one in FAMILIES.items() if one is family)
    kind: Any = load(group, name, family, where=f"plugin `{name}`")  # a class: `registry` saw to it
    made: P = kind()
    return made


def _validated(plugin: Plugin, given: Mapping[str, Any]) -> Any:
    from pydantic import BaseModel, ValidationError

    model = plugin.options or BaseModel
    free = model.model_config.get("extra") == "allow"
    try:
        made = model.model_validate(dict(given), extra="allow" if free else "forbid")
    except ValidationError as error:
        # The value is left out: an option may be a password.
        problems = error.errors(include_input=False, include_url=False, include_context=False)
        unknown = {"extra_forbidden": "there is no such option"}
        told = [f"`{'.'.join(map(str, p['loc']))}`: {unknown.get(p['type'], p['msg'])}" for p in problems]
        raise DefinitionError(
            "; ".join(told) + ".",
            where=f"options of the plugin {plugin.metadata.name}",
            fix=f"its options are {', '.join(model.model_fields) or 'none'}.",
        ) from None
    return made if plugin.options else None
