"""A generated project in Dagster's UI, and the browser that looks at it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from support.dagster_ui import DagsterUI, dagster_dev
from support.generated import Project, generate, stranger

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


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project as a newcomer has it."""
    environment = stranger(tmp_path_factory.mktemp("home"))
    return Project(generate(tmp_path_factory.mktemp("generated") / "my-project", environment), environment)


@pytest.fixture(scope="module")
def ui(browser: Browser, project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterUI]:
    """The project, served by `dagster dev`; not started where there is no browser to look at it."""
    with dagster_dev(project, tmp_path_factory.mktemp("dagster") / "dev.log") as running:
        yield running


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
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """An empty page of the size of the docs' pictures."""
    page = browser.new_page(viewport={"width": 1600, "height": 900})
    page.set_default_timeout(_LIMIT_MILLISECONDS)
    expect.set_options(timeout=_LIMIT_MILLISECONDS)
    yield page
    page.close()
