"""Names that people give, and names of columns: which ones can be used, and what to take in place of the others."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

from cascade.errors import UsageError
from cascade.ingestion.text import snake_case
from cascade.names import COLUMN_PREFIX

__all__ = ["class_name", "column_names", "is_reserved", "quoted", "require_name", "title", "usable"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_HERE = Path(__file__).parent

# What DuckDB or Trino does not take as a name without quotes.
_RESERVED = frozenset((_HERE / "reserved.txt").read_text("utf-8").split())
# What the files that are written use themselves.
_OURS = frozenset((_HERE / "used.txt").read_text("utf-8").split())


def require_name(name: str, what: str) -> str:
    """Return a name that can be a file, a Python function and a table.

    Args:
        name: What somebody typed.
        what: What shall have it, such as `workflow`.

    Raises:
        UsageError: It cannot; the error suggests one that can.
    """
    problem = ""
    if not _NAME.fullmatch(name):
        problem = "it needs small letters, digits and underscores, a letter first, at most 63 of them"
    elif keyword.iskeyword(name) or keyword.issoftkeyword(name) or name in _RESERVED:
        problem = "it is a word of Python or of SQL"
    elif name in _OURS or name.startswith("test_"):
        problem = "the files that are written use it themselves"
    if not problem:
        return name
    raise UsageError(
        f"{name!r} cannot be the name of a {what}: {problem}.",
        where="NAME, which becomes a file, a Python function and a table",
        fix=f"take another one, such as {usable(name)}",
    )


def usable(name: str) -> str:
    """Return a name close to another one that can be a file, a function and a table."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = snake_case(re.sub(r"[^A-Za-z0-9]+", "_", plain)).strip("_")[:50]
    words = words.removeprefix("test_")
    words = words if words[:1].isalpha() else f"rows_{words}".rstrip("_")
    taken = not _NAME.fullmatch(words) or keyword.iskeyword(words) or keyword.issoftkeyword(words)
    return f"{words}_rows" if taken or words in _RESERVED | _OURS else words


def column_names(sources: Iterable[str]) -> dict[str, str]:
    """Return the column of each name of the source: small letters, digits and underscores, each one once."""
    found: dict[str, str] = {}
    for position, source in enumerate(sources, start=1):
        name = snake_case(source)
        if name[:1].isdigit():
            name = f"col_{name}"
        if not name.strip("_") or name.startswith(COLUMN_PREFIX):
            name = f"column_{position}"
        found[source] = _free(name, lambda candidate: candidate in found.values())
    return found


def _free(name: str, is_taken: Callable[[str], bool]) -> str:
    number, candidate = 2, name
    while is_taken(candidate):
        number, candidate = number + 1, f"{name}_{number}"
    return candidate


def is_reserved(name: str) -> bool:
    """Say whether SQL takes a name only in quotes."""
    return name in _RESERVED or not _PLAIN.fullmatch(name)


def quoted(name: str) -> str:
    """Return a column as SQL of both engines writes it: in quotes only where they are needed."""
    return '"' + name.replace('"', '""') + '"' if is_reserved(name) else name


def class_name(name: str) -> str:
    """Return the name of the model of a table: `SupportTickets` for `support_tickets`."""
    return "".join(word.capitalize() for word in name.split("_"))


def title(name: str) -> str:
    """Return a name as a sentence begins with it: `Support tickets`."""
    return name.replace("_", " ").capitalize()
