"""A workflow in plain Python: a function that a person fills in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cascade.errors import UsageError
from cascade_create.names import title
from cascade_create.render import Code
from cascade_create.sample import Sample
from cascade_create.sources.base import Request, Shape, StandIn

__all__ = ["look_at_python"]


def look_at_python(request: Request) -> _Python:
    """Return the source of a function."""
    return _Python(request.name, tuple(request.key) or ("id",), request.cursor)


@dataclass(frozen=True)
class _Python:
    name: str
    known_key: Sequence[str]
    cursor: str
    most: int = 1_000
    texts: bool = False
    secrets: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def code(self, shape: Shape) -> Code:
        row = {**dict.fromkeys(self.known_key, 1), "value": "first"}
        rows = [row, {**row, self.known_key[-1]: 2, "value": "second"}]
        if self.cursor:
            rows = [{**one, self.cursor: f"2026-01-0{day}T00:00:00Z"} for day, one in enumerate(rows, start=1)]
        body = "    # Fetch rows here: dicts, an Arrow table, a data frame, or anything of dlt.\n"
        body += "".join(f"    yield {one!r}\n".replace("'", '"') for one in rows)
        return Code(about=f"{title(self.name)}, from Python.", doc=f"Rows of {self.name}.", body=body.rstrip())

    def stand_in(self, sample: Sample, rows: Sequence[Mapping[str, Any]]) -> StandIn:
        return StandIn({}, [], "", "")

    def explain(self, error: Exception) -> UsageError:
        return UsageError(f"{error}")
