"""The page of what packages may bring, and of what ours use: read from the code."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

EXTENSIONS = Path(__file__).resolve().parents[2] / "extensions"

_BEGIN = """\
# Extension points

A package brings something by an entry point in one of these groups. Cascade's own packages use the same groups.
What is loaded is checked: it has the members of its Protocol, and takes their arguments. A class that has them
as methods fits, too.

```toml
[project.entry-points."cascade.commands"]
greet = "my_package.commands:greet"
```

A plugin that cannot be imported, would end or stop the process, has another shape or the name of another one
costs itself:
`cascade plugins check` and `cascade validate` say its package, file, line and cause. Nothing is promoted while
a plugin is broken that may hold checks: one of `cascade.assets`, or a source, a check or a transformation. The
runtime keeps its own names: a package that brings a command `run` is refused, and `cascade run` works on.

| group | named by | Protocol |
|---|---|---|
"""
_IMPORTS = """\
## What a package may import

What these modules offer (their `__all__`) is what our own packages use of the runtime, and a test compares. All
else may change without a word.

"""


def page() -> Iterator[str]:
    """Return the page in parts."""
    from cascade_operations.plugins import known_groups

    yield _BEGIN
    known = known_groups()
    own = known.pop("cascade.groups")
    for group, (named, shape) in known.items():
        yield f"| [`{group}`](#{group.replace('.', '')}) | {named} | `{shape.__module__}.{shape.__name__}` |\n"
    yield f"| `cascade.groups` | {own[0]} | any Protocol: a package that reads a group itself says its shape |\n"
    shown: set[type] = set()
    for group, (_, shape) in known.items():
        # With what it extends, each beside the room that asks for it.
        kinds = [kind for kind in shape.__mro__ if kind.__module__.startswith("cascade") and kind not in shown]
        shown.update(kinds)
        parts = [inspect.getsource(kind).rstrip() for kind in kinds]
        yield f"\n## {group}\n\n```python\n" + "\n\n\n".join(parts) + "\n```\n"
    yield "\n" + _IMPORTS
    yield "".join(f"- `{module}`\n" for module in sorted(imported()))


def imported() -> dict[str, set[str]]:
    """Return what the source of the extensions imports of the runtime: module to names."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in sorted(EXTENSIONS.glob("*/src/**/*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "cascade":
                found[node.module or ""].update(alias.name for alias in node.names)
            if isinstance(node, ast.Import):
                for alias in (alias for alias in node.names if alias.name.partition(".")[0] == "cascade"):
                    found[alias.name]  # the whole module
    return dict(found)


def unannounced() -> list[str]:
    """Return what the extensions import, and the module does not offer."""
    found = []
    for name, wanted in sorted(imported().items()):
        module = importlib.import_module(name)
        offered = getattr(module, "__all__", None) or [word for word in vars(module) if not word.startswith("_")]
        found += [f"{name}: {word}" for word in sorted(wanted.difference(offered))]
    return found
