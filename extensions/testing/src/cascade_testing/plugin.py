"""The plugin of pytest: the fixture `lakehouse`, and the unit tests of dbt models as tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cascade_testing.lakehouse import TemporaryLakehouse
    from cascade_testing.unit_tests import UnitTestFile


def pytest_configure(config: pytest.Config) -> None:
    """Give tests the variables of the project's `.env` before a workflow is imported, as every command does."""
    if (config.rootpath / ".env").is_file():
        from cascade.config import export_dotenv

        export_dotenv(config.rootpath)


@pytest.fixture
def lakehouse() -> TemporaryLakehouse:
    """A lakehouse of its own for each test, empty at the start; see `cascade.testing.TemporaryLakehouse`."""
    from cascade_testing.lakehouse import fresh_lakehouse

    return fresh_lakehouse()


def pytest_collection() -> None:
    """Let plain assets of Dagster ask for `lakehouse` by name, whatever a test imports first."""
    import cascade._dagster  # noqa: F401


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> UnitTestFile | None:
    """Collect the unit tests of the project's dbt models, from the YAML files that pytest is pointed at."""
    if file_path.suffix not in (".yml", ".yaml") or b"unit_tests:" not in file_path.read_bytes():
        return None
    from cascade_testing.unit_tests import UnitTestFile, is_of_dbt

    return UnitTestFile.from_parent(parent, path=file_path) if is_of_dbt(file_path) else None
