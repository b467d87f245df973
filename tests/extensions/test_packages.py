"""What belongs together stays together: one version, and a clear word when an extension is missing."""

import tomllib
from pathlib import Path

import pytest

from cascade.catalog.base import CatalogFactory
from cascade.catalog.database import DatabaseFactory
from cascade.config import Settings
from cascade.engine.base import Engine
from cascade.errors import ConfigurationError
from cascade.framework.base import AssetSource, ScheduleFactory, StorageProvider
from cascade.plugins import load, load_all
from cascade.publish.marts import PublishMarts
from cascade_dbt.project import MACROS, macros_folder

REPOSITORY = Path(__file__).resolve().parents[2]
MANIFESTS = sorted(REPOSITORY.glob("extensions/*/pyproject.toml"))
SHAPES: dict[str, type[object]] = {
    "cascade.assets": AssetSource,
    "cascade.catalogs": CatalogFactory,
    "cascade.databases": DatabaseFactory,
    "cascade.engines": Engine,
    "cascade.marts": PublishMarts,
    "cascade.schedules": ScheduleFactory,
    "cascade.storages": StorageProvider,
}


def _project(manifest: Path) -> dict[str, object]:
    found: dict[str, object] = tomllib.loads(manifest.read_text("utf-8"))["project"]
    return found


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.parent.name)
def test_an_extension_has_the_runtime_s_version_and_asks_for_it(manifest: Path) -> None:
    version = _project(REPOSITORY / "runtime" / "pyproject.toml")["version"]
    extension = _project(manifest)
    assert extension["version"] == version
    assert f"cascade-runtime=={version}" in extension["dependencies"]  # type: ignore[operator]


def test_every_extension_point_of_the_runtime_is_filled_and_fits_its_protocol() -> None:
    for group, shape in SHAPES.items():
        found = load_all(group, shape)
        assert found, group
        assert [str(record) for record in found if record.cause] == []


@pytest.mark.parametrize("name", ["engine", "catalog_url"])
def test_without_the_package_the_error_says_which_setting_asked_and_what_to_do(name: str) -> None:
    with pytest.raises(ConfigurationError, match="No installed package brings `spark`") as caught:
        load("cascade.engines", "spark", Engine, setting=name)
    assert f"setting `{name}`" in str(caught.value)
    assert "there is `trino`" in str(caught.value)
    assert "`cascade plugins list`" in str(caught.value)


def test_dbt_gets_the_macros_of_the_engine_s_package_beside_the_runtime_s_in_one_folder(tmp_path: Path) -> None:
    """`macro-paths` of a project has one place for both. What is Trino's stays with the server's package."""
    folder = macros_folder(Settings(project_dir=tmp_path, engine="trino"))
    assert {path.name for path in folder.glob("runtime/*.sql")} == {path.name for path in MACROS.glob("*.sql")}
    assert "materialization table, adapter='trino'" in (folder / "trino" / "models.sql").read_text("utf-8")
    assert [path.name for path in MACROS.glob("*.sql") if "trino__" in path.read_text("utf-8")] == []
