"""Every error that Cascade raises, and the shape of its message: what happened, where, how to fix it."""

from __future__ import annotations

__all__ = [
    "BranchNotFoundError",
    "CascadeError",
    "CatalogError",
    "ConfigurationError",
    "ContractError",
    "DamagedFileError",
    "DefinitionError",
    "IngestionError",
    "LeaseHeldError",
    "ProjectNotFoundError",
    "PromotionConflictError",
    "PromotionRefusedError",
    "QueryError",
    "SchemaMismatchError",
    "ServiceError",
    "TransformError",
    "UsageError",
    "count",
]


class CascadeError(Exception):
    """Base of every error of Cascade.

    Args:
        what: What happened, one sentence.
        where: The file, table, branch or option it happened at.
        fix: What the reader can do about it.
    """

    #: Exit code of a command: 1 if the work failed, 2 for wrong usage or configuration.
    exit_code = 1

    # The defaults keep errors picklable: they cross process boundaries in Dagster.
    def __init__(self, what: str = "", *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        parts = [self.what]
        if self.where:
            parts.append(f"  where: {self.where}")
        if self.fix:
            parts.append(f"  fix: {self.fix}")
        return "\n".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.what,), {"where": self.where, "fix": self.fix}


class ConfigurationError(CascadeError):
    """A setting, or the project's layout, is wrong."""

    exit_code = 2


class ProjectNotFoundError(ConfigurationError):
    """There is no project in the working folder or above it."""


class UsageError(CascadeError):
    """A command or a function was asked for something that does not exist or makes no sense."""

    exit_code = 2


class DefinitionError(CascadeError):
    """A decorator was given options that do not exist or contradict each other."""

    exit_code = 2


class CatalogError(CascadeError):
    """The catalog refuses: an invalid name, a write to `main`, a warehouse that was moved."""


class BranchNotFoundError(CatalogError):
    """The branch or tag does not exist."""


class LeaseHeldError(CatalogError):
    """Another process is running against the same target branch."""


class PromotionConflictError(CatalogError):
    """The target has changed since the branch was created; nothing was merged."""


class PromotionRefusedError(CascadeError):
    """A blocking check of a changed table has failed or has not run; nothing was merged."""


class SchemaMismatchError(CascadeError):
    """Rows and table do not fit together."""


class DamagedFileError(CascadeError):
    """A data file is not what was written: a disk, a copy or a person has changed it."""


class ServiceError(CascadeError):
    """A server cannot be reached, refuses, or gives an answer that Cascade does not understand."""


class ContractError(CascadeError):
    """Rows break the contract that their Pandera model states."""


class IngestionError(CascadeError):
    """The rows of an ingestion asset could not be fetched or loaded."""


class QueryError(CascadeError):
    """A SQL statement cannot be run, or is not allowed to."""


class TransformError(CascadeError):
    """The dbt project is missing or cannot be parsed."""


def count(number: int, noun: str) -> str:
    """Return a number of things in words, such as `1 row` or `2,000 rows`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
