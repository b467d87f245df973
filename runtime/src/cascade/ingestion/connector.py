"""The rows of an asset come from a plugin: `@cascade_ingestion(source="<name>", options={…})`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from cascade.errors import DefinitionError
from cascade.ingestion.options import Options
from cascade.plugins import Plugin, get_source_connector

__all__ = ["connected", "options_of"]


def connected(function: Callable[..., object], options: Options) -> tuple[Callable[..., object], Options]:
    """Return a function that fetches rows by a plugin, and the options with the plugin's contract where there is none.

    Args:
        function: The decorated one; what it returns are further options of the plugin.
        options: Those of the asset; `source` names the plugin.

    Raises:
        ConfigurationError: No installed package brings the plugin, or it cannot be used.
        DefinitionError: It has no such options.
    """
    connector, given = get_source_connector(options.source or ""), options.options or {}

    @functools.wraps(function)
    def fetch(**arguments: Any) -> object:
        said = options_of(connector, given, function, arguments)
        connector.check_connection(said)
        return connector.fetch(said)

    contract = connector.schema(connector.validated(given))
    if options.validation_schema is None and options.iceberg_schema is None:
        options = replace(options, validation_schema=contract)
    return fetch, options


def options_of(
    plugin: Plugin, given: Mapping[str, Any], function: Callable[..., object], arguments: Mapping[str, Any]
) -> Any:
    """Return the options of a plugin: those that an asset gives, and what its function returns beside them.

    Raises:
        DefinitionError: The function returned something else, or the plugin has no such options.
    """
    more = function(**arguments)
    if more is not None and not isinstance(more, Mapping):
        raise DefinitionError(
            f"The function returned a value of type {type(more).__name__}, but its rows come from a plugin.",
            where=f"{function.__module__}.{function.__qualname__}",
            fix="return nothing, or a dict of further options of the plugin; or leave the plugin out.",
        )
    return plugin.validated({**given, **(more or {})})
