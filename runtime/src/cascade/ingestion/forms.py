"""Forms of rows beyond dicts and Arrow, such as a data frame: packages bring them, and each is found by its class."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from cascade.errors import SchemaMismatchError
from cascade.ingestion.cast import Values, python_values
from cascade.plugins import find, installed

if TYPE_CHECKING:
    import pyarrow as pa

    from cascade.ingestion.plan import LoadPlan

__all__ = ["FORMS", "FetchContext", "Page", "RowsForm", "class_names", "form_of", "unreadable"]

#: The group of entry points.
FORMS = "cascade.forms"


class Page(NamedTuple):
    """Some rows, column by column; a name may come twice, as Arrow and pandas allow it."""

    shape: object  # neighbours of one shape are joined
    height: int
    names: list[Any]
    columns: list[Values]

    def row(self, position: int) -> dict[str, Any]:
        """Return one row, as Python values."""
        parts = (v[position : position + 1] for v in self.columns)
        values = (part[0] if isinstance(part, list) else python_values(part)[0] for part in parts)
        return dict(zip(map(str, self.names), values, strict=True))


@dataclass
class FetchContext:
    """What a form may know of the load that draws its rows, and what it says about them.

    Attributes:
        plan: How the rows are loaded; `None` where they are only looked at.
        rows_per_batch: Larger frames are cut, smaller pages are joined.
        decimals: Whether a column needs all digits of a number.
        state: What the source kept with the table at the last load, such as its cursor; empty at first. When its rows
            were drawn, a source replaces it, and it is committed with them.
        types: The types that the source states for its columns, by their names in the table.
        pages: How many unparsed pages there were so far.
    """

    plan: LoadPlan | None = None
    rows_per_batch: int = 50_000
    decimals: bool = False
    state: str = ""
    types: dict[str, pa.DataType] = field(default_factory=dict)
    pages: int = 0


class RowsForm(Protocol):
    """Group `cascade.forms`, by the library and the name of a class, such as `pandas.DataFrame`."""

    def __call__(self, fetched: Any, context: FetchContext) -> Iterable[Any]:
        """Return the parts of what a fetch function gave: dicts, Arrow tables, pages, or objects of other forms."""


def class_names(kind: type) -> list[str]:
    """Return by which names a form of a class is looked up: its own, then those of its bases."""
    return [f"{base.__module__.partition('.')[0]}.{base.__qualname__}" for base in kind.__mro__]


def form_of(fetched: object) -> RowsForm | None:
    """Return what reads an object of this class; `None` when no installed package brings it.

    Raises:
        ConfigurationError: The package that brings it is broken.
    """
    return _form_of(type(fetched))  # type: ignore[arg-type]  # mypy: a class is not hashable


@functools.cache
def _form_of(kind: type) -> RowsForm | None:
    known = {record.name for record in installed(FORMS)}
    name = next((name for name in class_names(kind) if name in known), None)
    return None if name is None else find(FORMS, name, RowsForm)


def unreadable(column: str, kind: object) -> SchemaMismatchError:
    """Return the error that the values of a fetched column cannot be read."""
    return SchemaMismatchError(
        f"The fetched column `{column}` is of the type {kind}, whose values Cascade cannot read.",
        fix="convert it to text, numbers or another plain type before it is returned.",
    )
