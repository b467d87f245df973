"""The table `services` of cascade.yaml, as far as settings go: `chosen` reads it with its YAML tags."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["ServicesTable"]


class ServicesTable(BaseModel):
    """Takes every name: which there are is checked by the commands that start them."""

    model_config = ConfigDict(extra="allow", frozen=True)
