"""The table `services` of cascade.yaml, as far as settings go: `chosen` reads it with its YAML tags."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["ServicesTable"]


class ServicesTable(BaseModel):
    """What the project says of its services, by name; any name, for `cascade services` checks them."""

    model_config = ConfigDict(extra="allow", frozen=True)
