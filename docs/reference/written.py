"""The page of names: what Cascade writes into other systems, read from the modules that hold these names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import cascade.names
import cascade_servers.names

__all__ = ["page"]

_INTRODUCTION = """# Names

What Cascade writes into tables, run histories, databases and files of others, and what it reads there of others.
These names are a public format: data holds them for years. A release that changes one says so in the changelog, and how
old data is read.
"""


def page() -> Iterator[str]:
    """Return the page in pieces."""
    yield _INTRODUCTION
    for module in (cascade.names, cascade_servers.names):
        yield from _sections(Path(str(module.__file__)).read_text("utf-8"))


def _sections(source: str) -> Iterator[str]:
    """Return a heading and a table for each section of a module: `# Heading`, then `#:` comments and constants."""
    meaning: list[str] = []
    begins = True
    for line in source.splitlines():
        if line.startswith("def "):
            return
        if line.startswith("# "):
            yield f"\n## {line[2:]}\n\n| name | constant | meaning |\n|---|---|---|\n"
        elif line.startswith("#:"):
            if begins:
                meaning = []
            meaning.append(line[2:].strip())
            begins = False
        elif " = " in line and line[0].isupper():
            constant, _, value = line.partition(" = ")
            found = ast.literal_eval(value)
            name = found if isinstance(found, str) else "/".join(found)
            yield f"| `{name}` | `{constant}` | {' '.join(meaning)} |\n"
            begins = True
