"""The messages that the page on troubleshooting explains and does not play through are those of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from support.generated import REPOSITORY

_WORDS = 3
_PAGE = (REPOSITORY / "docs/how-to/troubleshooting.md").read_text("utf-8")
_MESSAGES = [
    line for block in re.findall(r"^```text\n(.*?)^```$", _PAGE, re.DOTALL | re.M) for line in block.splitlines()
]


@pytest.fixture(scope="module")
def texts() -> list[re.Pattern[str]]:
    """Every text of the code; what it fills in may be anything."""
    sources = [*REPOSITORY.glob("runtime/src/**/*.py"), *REPOSITORY.glob("extensions/*/src/**/*.py")]
    return [re.compile(text) for source in sources for text in _texts(ast.parse(source.read_text("utf-8")))]


@pytest.mark.parametrize("message", _MESSAGES)
def test_the_message_is_one_of_the_code(message: str, texts: list[re.Pattern[str]]) -> None:
    assert any(text.match(message) for text in texts)


def _texts(module: ast.Module) -> Iterator[str]:
    """Patterns for the first lines of texts that have some words of their own."""
    for node in ast.walk(module):
        parts: list[ast.AST] = [*node.values] if isinstance(node, ast.JoinedStr) else [node]
        said = [
            part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "\0" for part in parts
        ]
        first = "".join(said).partition("\n")[0]
        if len(re.findall(r"\w{2,}", first)) >= _WORDS:
            more = ".+" if first.endswith(": ") else r"\.?"
            yield re.escape(first).replace("\0", ".+?") + more + "$"
