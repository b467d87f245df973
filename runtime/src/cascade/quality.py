"""What a check is, and the door to `@cascade_quality` and the built-in checks, which a package brings.

Options of every built-in check:
    name (str): Name of the check: letters, digits, underscores. By default the kind of check and its columns.
    blocking (bool): Whether a failure blocks the promotion. By default as the group's `blocking`.
    tolerance (float): Fraction of the rows that may fail, 0 to 1, for the checks that count failing rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import TYPE_CHECKING, Any

from cascade.catalog import check_table_name
from cascade.duck.sql import Value
from cascade.errors import CatalogError, DefinitionError
from cascade.plugins import find

if TYPE_CHECKING:
    from dagster import AssetCheckExecutionContext, AssetCheckResult, AssetCheckSeverity

    from cascade.lakehouse import Lakehouse

__all__ = ["CHECKS", "SAMPLE_ROWS", "Check", "Outcome", "Scope", "Value", "check_name", "require", "table_name"]


#: The group of functions that make a check, by the function's name; `cascade.quality` hands them on.
CHECKS = "cascade.checks"

#: How many failing rows are shown.
SAMPLE_ROWS = 5


@dataclass(frozen=True)
class Scope:
    """What a check reads: the table `namespace.table`, on the run's branch."""

    table: str
    lakehouse: Lakehouse
    context: AssetCheckExecutionContext

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows that a statement selects, each as column to value."""
        rows = self.lakehouse.query(sql)
        # Not `to_pylist`: it refuses two columns of one name, which a user's join may well have.
        columns = [(name, column.to_pylist()) for name, column in zip(rows.column_names, rows.columns, strict=True)]
        return [{name: values[i] for name, values in columns} for i in range(rows.num_rows)]


@dataclass(frozen=True)
class Outcome:
    """What a check found.

    Attributes:
        passed: Whether the table fulfils the rule.
        description: One sentence.
        metadata: Figures, and under `sql` the statement.
        sample: Some of the failing rows.
        severity: Of a failure; `None`: an error if the check is blocking, else a warning.
    """

    passed: bool
    description: str
    metadata: Mapping[str, int | float | str] = field(default_factory=dict)
    sample: Sequence[Mapping[str, object]] = ()
    severity: AssetCheckSeverity | None = None


@dataclass(frozen=True)
class Check:
    """One rule on a table.

    Attributes:
        name: Its name among the checks of the asset.
        description: What it requires, one sentence.
        evaluate: Runs it.
        blocking: Whether its failure blocks the promotion; `None`: as its group says.
        others: Further tables it reads, `namespace.table`; it runs after them.
        sql: The statement that a user wrote; empty for built-in checks.
    """

    name: str
    description: str
    evaluate: Callable[[Scope], Outcome | AssetCheckResult]
    blocking: bool | None = None
    others: tuple[str, ...] = ()
    sql: str = ""

    def __post_init__(self) -> None:
        require(
            isinstance(self.blocking, bool | None),
            f"blocking={self.blocking!r} is neither True nor False.",
            self.name,
            "give one of them.",
        )


def require(holds: bool, what: str, where: str, fix: str) -> None:
    """Raise a `DefinitionError` unless a condition holds."""
    if not holds:
        raise DefinitionError(what, where=where, fix=fix)


def table_name(asset: str) -> str:
    """Return `namespace.table` of an asset's name, written with a slash or a dot.

    Raises:
        DefinitionError: It is not the name of a table.
    """
    try:
        return check_table_name(asset.replace("/", "."))
    except (CatalogError, AttributeError):
        raise DefinitionError(
            f"{asset!r} is not the name of a table.",
            where="asset= of cascade_quality, or other= of reconciles",
            fix="write namespace/table, for example raw/weather_observations.",
        ) from None


def check_name(kind: str, name: str | None, *parts: str) -> str:
    """Return the given name; without one, the kind of check and its columns.

    Raises:
        DefinitionError: Dagster does not allow the name.
    """
    if name is None:
        return "_".join([kind, *(re.sub(r"\W+", "_", part, flags=re.ASCII).strip("_") for part in parts)])
    valid = isinstance(name, str) and bool(re.fullmatch(r"[A-Za-z0-9_]+", name))
    require(valid, f"{name!r} is not a name for a check.", kind, "use letters, digits and underscores.")
    return name


def __getattr__(name: str) -> Any:
    """Return the decorator, or a function that makes a check, of the package that brings it."""
    for group in () if name.startswith("_") else (CHECKS, "cascade.decorators"):
        if made := find(group, name, FunctionType):
            return made
    raise AttributeError(f"module 'cascade.quality' has no attribute {name!r}")
