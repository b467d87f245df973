"""A generated project in Dagster's UI, and the browser that looks at it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from support.browser import browser, page
from support.dagster_ui import DagsterUI, dagster_dev
from support.generated import Project, generate, stranger

__all__ = ["browser", "page"]


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
