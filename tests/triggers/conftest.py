"""One generated project whose workflows are small and can be told to fail, and one `dagster dev` that serves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.dagster_ui import DagsterUI, dagster_dev
from support.generated import generate, stranger
from support.shop import Shop, replace_example


@pytest.fixture(scope="session")
def shop_project(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    environment = stranger(tmp_path_factory.mktemp("home"))
    root = generate(tmp_path_factory.mktemp("generated") / "my-project", environment)
    replace_example(root)
    return Shop(root, environment)


@pytest.fixture
def shop(shop_project: Shop) -> Shop:
    """The project without branches, and without anything that makes it fail."""
    shop_project.clean()
    return shop_project


@pytest.fixture(scope="module")
def ui(shop_project: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterUI]:
    log: Path = tmp_path_factory.mktemp("dagster") / "dev.log"
    with dagster_dev(shop_project, log) as running:
        yield running
