"""What a command does, in one sentence: read from its source, not imported."""

from __future__ import annotations

import ast
import re

from cascade.plugins.source import folders

__all__ = ["first_sentence"]


def first_sentence(value: str) -> str:
    """Return the first sentence of the docstring of `module:function`; empty if it has none.

    Raises:
        ModuleNotFoundError: There is no such file.
        SyntaxError: The file is not Python.
    """
    module, _, name = value.partition(":")
    inner = "/".join(module.split(".")[1:])
    found = folders(value)
    files = [file for at in found for file in ((at / f"{inner}.py", at / inner / "__init__.py") if inner else (at,))]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise ModuleNotFoundError(f"No module named {module!r}")
    for node in ast.parse(file.read_bytes(), str(file)).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            paragraph = " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
            return re.split(r"(?<=[.!?]) ", paragraph, maxsplit=1)[0]
    return ""
