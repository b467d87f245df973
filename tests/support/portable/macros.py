"""The portable macros as the runtime's macro files describe them: the source of their page in the documentation."""

import re
from pathlib import Path
from typing import NamedTuple

from cascade_dbt import project as parse

__all__ = ["Macro", "macros"]

_DOCUMENTED = re.compile(
    r"\{# (?P<text>[^#]*?) Example: (?P<example>`.*`) #\}\n\{% macro (?P<name>cascade_\w+)\((?P<arguments>.*?)\) -?%\}"
)


class Macro(NamedTuple):
    """One macro that users may call."""

    name: str
    arguments: str
    description: str
    example: str


def macros() -> list[Macro]:
    """Return the macros in the order of their files."""
    folder = Path(parse.__file__).parent / "macros"
    found = [
        Macro(match["name"], match["arguments"], match["text"], match["example"])
        for path in sorted(folder.glob("portable*.sql"))
        for match in _DOCUMENTED.finditer(path.read_text("utf-8"))
    ]
    return sorted(found, key=lambda macro: macro.name)
