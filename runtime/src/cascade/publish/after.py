"""What installed packages do once `main` has moved, such as to compact its tables; none of it undoes the promotion."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from cascade.catalog import BranchingCatalog, LogEntry
from cascade.plugins import load_all

__all__ = ["AfterPromotion", "FollowUp", "after_promotion"]


class AfterPromotion(Protocol):
    """Group `cascade.after_promotion`, by any name: does something in the process that has just promoted a branch."""

    def __call__(self, catalog: BranchingCatalog, entry: LogEntry) -> str:
        """Do it. What it raises is told beside the promotion.

        Args:
            catalog: The catalog, with the project's settings.
            entry: The promotion: the tables that moved, and the states before and after it.

        Returns:
            What was done, in words; "" when there was nothing to do.
        """


class FollowUp(NamedTuple):
    """What a package did after a promotion, in words, or why it failed."""

    name: str
    said: str
    failed: bool = False


def after_promotion(catalog: BranchingCatalog, entry: LogEntry) -> list[FollowUp]:
    """Let installed packages follow a promotion, and return what they said."""
    found = []
    for record in load_all("cascade.after_promotion", AfterPromotion):
        try:
            if record.cause:
                raise record.error
            found.append(FollowUp(record.name, record.object(catalog, entry)))
        # A package may raise anything.
        except Exception as error:  # noqa: BLE001
            found.append(FollowUp(record.name, f"{type(error).__name__}: {error}", failed=True))
    return [each for each in found if each.said]
