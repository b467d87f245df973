"""What packages bring that no other module of the runtime describes: commands, and the families for data people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import click
    import pyarrow as pa

__all__ = ["FAMILIES", "Command", "QualityCheck", "Service", "SourceConnector", "Transformation"]


class Command(Protocol):
    """A command of click; the first sentence of its function's docstring is its line in `cascade --help`."""

    params: list[click.Parameter]

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None
    ) -> click.Context:
        """Parse the arguments."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""


class SourceConnector(Protocol):
    """A class, or an object, that fetches rows from one kind of system. `options` are what an asset says about it."""

    name: str

    def fetch(self, options: Mapping[str, Any]) -> Iterable[Any]:
        """Return rows in any form that an ingestion takes: dicts, Arrow tables, data frames, a dlt resource."""


class QualityCheck(Protocol):
    """A class, or an object, that makes a check of tables. `options` are what an asset says about it."""

    name: str

    def create_check(self, options: Mapping[str, Any]) -> Any:
        """Make what `@cascade_quality` takes as a check."""


class Transformation(Protocol):
    """A class, or an object, that makes one table of others. `options` are what an asset says about it."""

    name: str

    def transform(self, tables: Mapping[str, pa.Table], options: Mapping[str, Any]) -> pa.Table:
        """Return the rows of the table, from those of others by `namespace.table`."""


class Service(Protocol):
    """A class, or an object, that describes a server which runs beside the project."""

    name: str

    def definition(self) -> Mapping[str, Any]:
        """Return the service as compose describes it."""


#: The groups for data people, and what each of them asks for.
FAMILIES: Mapping[str, type[object]] = {
    "cascade.plugins.sources": SourceConnector,
    "cascade.plugins.quality": QualityCheck,
    "cascade.plugins.transforms": Transformation,
    "cascade.plugins.services": Service,
}
