"""The settings of maintenance, `maintain`. Imported when settings are read: nothing but pydantic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cascade.errors import UsageError
from cascade_maintain import parse_age

if TYPE_CHECKING:
    from cascade.config import Settings

__all__ = ["MaintainSettings", "of"]


def _age(value: str) -> str:
    try:
        parse_age(value)
    except UsageError as error:
        raise ValueError(f"{error.what.rstrip('.')}: {error.fix}") from None
    return value


_Age = Annotated[str, AfterValidator(_age)]


class MaintainSettings(BaseModel):
    """When the lake is maintained by itself, and how long things stay. An age is such as `7d`, `12h` or `30m`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after_promotion: bool = Field(
        default=True,
        description="Whether a promotion ends with the maintenance of those of its tables that need it; nothing is "
        "deleted.",
    )
    nightly: bool = Field(
        default=False,
        description="Whether the schedule that keeps the lake clean is on from the start, as in compose.yaml.",
    )
    branches_older_than: _Age = Field(
        default="7d", description="How long ago the last thing must have happened on the branch of a run that ended."
    )
    files_older_than: _Age = Field(
        default="3d", description="How old a file that nothing needs must be; longer than the longest run."
    )
    keep_history: _Age = Field(
        default="30d",
        description="How long entries of `cascade branch log` can be restored, and older states of `main` be read.",
    )


def of(settings: Settings) -> MaintainSettings:
    """Return the settings of maintenance among a project's."""
    return settings.plugin("maintain", MaintainSettings)
