"""What a contract is: the model of a table's rows, from which its columns derive and which every row must fulfil."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import TYPE_CHECKING, Any, Protocol

from cascade.errors import DefinitionError
from cascade.ingestion.options import Policy
from cascade.plugins import find, installed

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.schema import Schema

__all__ = ["Contract", "ContractFactory", "contract_of"]

_GROUP = "cascade.contracts"


class Contract(Protocol):
    """The contract of a table. It checks rows and never changes them.

    Attributes:
        name: The model's name, for messages.
        schema: The table's columns; none of them is required, so that the table can evolve.
        policy: What happens to columns that the model does not have.
        required: The columns that a source has to bring.
        unique: Groups of columns whose values are unique together; only the whole load can tell.
    """

    name: str
    schema: Schema
    policy: Policy
    required: Set[str]
    unique: Sequence[tuple[str, ...]]

    def check(self, rows: pa.Table) -> dict[int, list[str]]:
        """Check rows one by one.

        Args:
            rows: Rows with all columns of the schema, cast to its types.

        Returns:
            The positions of the rows that break the contract, and how each does.

        Raises:
            ContractError: A check cannot be run.
        """

    def check_together(self, read: Callable[[], pa.Table], *, nothing_came: bool) -> None:
        """Run the checks that look at all rows of a load together.

        Args:
            read: Returns the rows that are loaded; called only when there is such a check.
            nothing_came: Whether the source gave no rows.

        Raises:
            ContractError: A check failed, or cannot be run.
        """


class ContractFactory(Protocol):
    """Group `cascade.contracts`, by the library whose models it understands, such as `pandera`."""

    def __call__(self, model: Any) -> Contract:
        """Make the contract that a model states; a `DefinitionError` when it cannot be one."""


def contract_of(model: object) -> Contract:
    """Return the contract that a model states: a class or an object of a library that an installed package knows.

    Raises:
        DefinitionError: No installed package knows the model's library, or the model cannot be a contract.
        ConfigurationError: The package that knows it is broken.
    """
    bases = model.__mro__ if isinstance(model, type) else type(model).__mro__
    libraries = {base.__module__.partition(".")[0] for base in bases}
    known = [record.name for record in installed(_GROUP)]
    for library in known:
        if library in libraries and (factory := find(_GROUP, library, ContractFactory)):
            return factory(model)
    raise DefinitionError(
        f"`{model!r}` is not a model of {' or '.join(known) or 'an installed library'}.",
        where="validation_schema",
        fix="give a model of such a library, or install the package that understands this one.",
    )
