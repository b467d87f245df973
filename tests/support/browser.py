"""A browser that looks at pages of servers on this machine, and takes pictures of them for the docs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from support.generated import REPOSITORY

_LIMIT_MILLISECONDS = 60_000
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium as the operating system packages it; nothing is downloaded."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.fail(
            "There is no browser to look at the UI with. Install Chromium: `apt-get update && apt-get install chromium`"
            f" (looked for {', '.join(names)} on the PATH)."
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(_FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page of the size of the docs' pictures."""
    page = browser.new_page(viewport={"width": 1600, "height": 900})
    page.set_default_timeout(_LIMIT_MILLISECONDS)
    expect.set_options(timeout=_LIMIT_MILLISECONDS)
    yield page
    page.close()


def take_picture(page: Page, file: Path) -> None:
    """Take a picture; those of the pages are taken again with UPDATE_DOCS_IMAGES=1."""
    page.wait_for_load_state("networkidle")
    assert page.screenshot(path=file).startswith(b"\x89PNG")
    shown = REPOSITORY / "docs/images" / file.name
    if os.environ.get("UPDATE_DOCS_IMAGES") and shown.exists():
        shutil.copy(file, shown)
