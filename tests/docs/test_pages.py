"""Every page: links lead somewhere, and the last lines say where to go next."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.generated import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("docs/**/*.md"), *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md"))])
IDS = [page.relative_to(REPOSITORY).as_posix() for page in PAGES]
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_leads_somewhere(page: Path) -> None:
    missing = []
    for target in _LINK.findall(_prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (heading and heading not in _headings(linked)):
            missing.append(target)
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_the_page_ends_with_where_to_go_next(page: Path) -> None:
    last = _prose(page).rpartition("\n## ")[2]
    assert last.startswith("Where to go next\n")
    assert _LINK.search(last)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_page_is_reached_from_the_index(page: Path) -> None:
    """A page that no other page links to is a page that nobody reads."""
    linked = {
        (other.parent / target.partition("#")[0]).resolve()
        for other in PAGES
        for target in _LINK.findall(_prose(other))
        if other != page
    }
    assert page in linked or page.name == "README.md"


def _prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def _headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", _prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
