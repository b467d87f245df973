"""A workflow in plain Python: a function that a person fills in."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cascade.errors import UsageError
from cascade_create.names import title
from cascade_create.partitions import recent_start
from cascade_create.render import Code, Raw, literal
from cascade_create.sample import Sample
from cascade_create.sources.base import Request, Shape, StandIn, json_path

__all__ = ["look_at_python"]

_ROWS = "dicts, an Arrow table, a data frame, or anything of dlt."


def look_at_python(request: Request) -> _Python:
    """Return the source of a function."""
    start = recent_start(request.partitions) if request.partitions else None
    return _Python(request.name, tuple(request.key) or ("id",), request.cursor, start)


@dataclass(frozen=True)
class _Python:
    name: str
    known_key: Sequence[str]
    cursor: str
    start: dt.date | None  # of its partitions
    most: int = 1_000
    texts: bool = False
    secrets: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def code(self, shape: Shape) -> Code:
        """Return a function with two rows, which a person replaces."""
        about = f"{title(self.name)}, from Python."
        if shape.slices:
            body = f"{shape.slices.lines.splitlines()[0]}\n    # Fetch the rows of this time here: {_ROWS}\n"
            rows = self._rows(Raw("begin.replace(tzinfo=dt.UTC)"), Raw("begin.replace(tzinfo=dt.UTC)"))
            says = f"Rows of {self.name}; a partition has those whose {self.cursor} lies in it."
            return Code(about, says, body + _yielded(rows), ["import datetime as dt"])
        if not shape.cursor:
            days = [f"{self.start}T00:00:00Z"] * 2
            body = f"    # Fetch rows here: {_ROWS}\n"
            return Code(about, f"Rows of {self.name}.", body + _yielded(self._rows(*days)))
        rows = self._rows("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
        newest = f"`since.last_value` is the newest {self.cursor} so far, None in the first run."
        top = (
            "@dlt.resource\ndef new_rows(since: dlt.sources.incremental[str]) -> Iterator[dict]:\n"
            f'    """Fetch what is new; {newest}"""\n'
            f"    # Ask for rows from there on: {_ROWS}\n{_yielded(rows)}"
        )
        path = literal(json_path(self.cursor))
        return Code(
            about,
            f"Rows of {self.name}. A run loads those whose {self.cursor} is new.",
            f"    return new_rows(dlt.sources.incremental({path}))",
            ["from collections.abc import Iterator", "import dlt"],
            top,
        )

    def _rows(self, *moments: Any) -> list[dict[str, Any]]:
        """Two rows of different keys, which name their partition too where there are partitions."""
        keys: list[Any] = [1, 2]
        if self.start:
            keys = (
                ["first", "second"]
                if "tzinfo" not in str(moments[0])
                else [Raw(f'f"{{partition_date}} {key}"') for key in (1, 2)]
            )
        last = self.known_key[-1]
        rows = zip(keys, ("first", "second"), moments, strict=True)
        return [
            {**dict.fromkeys(self.known_key, 1), last: key, "value": word, **({self.cursor: at} if self.cursor else {})}
            for key, word, at in rows
        ]

    def stand_in(self, sample: Sample, rows: Sequence[Mapping[str, Any]]) -> StandIn:
        """Return nothing: the test runs the function itself."""
        return StandIn({}, [], "", "")

    def explain(self, error: Exception) -> UsageError:
        """Return the error."""
        return UsageError(f"{error}")


def _yielded(rows: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(f"    yield {literal(dict(row), 4, 6)}" for row in rows)
