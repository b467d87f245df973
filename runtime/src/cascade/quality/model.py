"""What a check is: the rule, what it looks at, what it found; and how its options are refused."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from cascade.catalog import check_table_name
from cascade.errors import CatalogError, DefinitionError

if TYPE_CHECKING:
    from dagster import AssetCheckExecutionContext, AssetCheckResult, AssetCheckSeverity

    from cascade.lakehouse import Lakehouse

__all__ = [
    "SQL_METADATA",
    "Bound",
    "Check",
    "Outcome",
    "Scope",
    "Value",
    "bounds_text",
    "check_name",
    "require_columns",
    "require_order",
    "require_tolerance",
    "table_name",
    "wrong_option",
]

#: Metadata of a check that holds a user's statement, for `cascade validate`.
SQL_METADATA = "cascade/sql"

Bound = int | float | Decimal | dt.date | dt.datetime
Value = str | bool | Bound


@dataclass(frozen=True)
class Scope:
    """What a check looks at: the table `namespace.table`, on the run's branch."""

    table: str
    lakehouse: Lakehouse
    context: AssetCheckExecutionContext


@dataclass(frozen=True)
class Outcome:
    """What a check found.

    Attributes:
        passed: Whether the table is as it should be.
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
        description: What it demands, one sentence.
        evaluate: Runs it.
        blocking: Whether its failure keeps a run from being promoted; `None`: as its group says.
        others: Further tables it reads, `namespace.table`; it runs after them.
        sql: The statement that a user wrote; empty for what is built in.
    """

    name: str
    description: str
    evaluate: Callable[[Scope], Outcome | AssetCheckResult]
    blocking: bool | None = None
    others: tuple[str, ...] = ()
    sql: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.blocking, bool | None):
            raise wrong_option(f"blocking={self.blocking!r} is neither True nor False.", self.name, "give one of them.")


def wrong_option(what: str, where: str, fix: str) -> DefinitionError:
    """Return the error for an option that cannot be."""
    return DefinitionError(what, where=where, fix=fix)


def table_name(asset: str) -> str:
    """Return `namespace.table` of an asset's name, written with a slash or a dot.

    Raises:
        DefinitionError: It is no name of a table.
    """
    try:
        return check_table_name(asset.replace("/", "."))
    except (CatalogError, AttributeError):
        raise wrong_option(
            f"{asset!r} is not the name of a table.",
            "asset= of cascade_quality, or other= of reconciles",
            "write namespace/table, for example raw/weather_observations.",
        ) from None


def check_name(kind: str, name: str | None, *parts: str) -> str:
    """Return the name given, or one made of the kind of check and its columns.

    Raises:
        DefinitionError: Dagster does not allow it.
    """
    if name is None:
        return "_".join([kind, *(re.sub(r"\W+", "_", part, flags=re.ASCII).strip("_") for part in parts)])
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise wrong_option(f"{name!r} is no name for a check.", kind, "use letters, digits and underscores.")
    return name


def require_columns(kind: str, columns: Sequence[str]) -> None:
    """Refuse what are no names of columns, none at all, or one twice."""
    where = f"{kind}({', '.join(map(repr, columns))})"
    if not columns:
        raise wrong_option(f"{kind} names no column.", where, f'name one, for example {kind}("origin").')
    if wrong := [column for column in columns if not isinstance(column, str) or not column.strip()]:
        raise wrong_option(
            f"{', '.join(map(repr, wrong))} is no name of a column.",
            where,
            f'give names, several as {kind}("origin", "time_hour") where it takes several.',
        )
    if len({column.lower() for column in columns}) < len(columns):
        raise wrong_option(f"{kind} names a column twice.", where, "name each column once.")


def require_tolerance(kind: str, tolerance: float) -> None:
    """Refuse what is no fraction."""
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance <= 1:
        raise wrong_option(
            f"tolerance={tolerance!r} is no fraction.", kind, "give a number from 0 to 1; 0.01 allows one in a hundred."
        )


def require_order(where: str, low: Any, high: Any, *, names: tuple[str, str] = ("minimum", "maximum")) -> None:
    """Refuse no bound at all, and a lower one that is above the upper one."""
    if low is None and high is None:
        raise wrong_option(f"Neither {names[0]} nor {names[1]} is given.", where, "give one of them, or both.")
    try:
        wrong = low is not None and high is not None and low > high
    except TypeError:
        raise wrong_option(
            f"{names[0]}={low!r} and {names[1]}={high!r} cannot be compared.", where, "give two of one type."
        ) from None
    if wrong:
        raise wrong_option(f"{names[0]}={low!r} is more than {names[1]}={high!r}.", where, "exchange them.")


def bounds_text(low: object, high: object) -> str:
    """Return two bounds in words."""
    if high is None:
        return f"at least {low}"
    return f"at most {high}" if low is None else f"between {low} and {high}"
