"""What belongs together stays together: one version, and a clear word when an extension is missing."""

import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from cascade.catalog import open_catalog
from cascade.config import Settings
from cascade.errors import ConfigurationError
from cascade_dbt.project import MACROS, macros_folder

REPOSITORY = Path(__file__).resolve().parents[2]
MANIFESTS = sorted(REPOSITORY.glob("extensions/*/pyproject.toml"))
GROUPS = ("assets", "catalogs", "databases", "engines", "marts", "schedules", "storages")


def _project(manifest: Path) -> dict[str, object]:
    found: dict[str, object] = tomllib.loads(manifest.read_text("utf-8"))["project"]
    return found


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.parent.name)
def test_an_extension_has_the_runtime_s_version_and_asks_for_it(manifest: Path) -> None:
    version = _project(REPOSITORY / "runtime" / "pyproject.toml")["version"]
    extension = _project(manifest)
    assert extension["version"] == version
    assert f"cascade-runtime=={version}" in extension["dependencies"]  # type: ignore[operator]


def test_every_extension_point_of_the_runtime_is_filled_and_loads() -> None:
    for group in GROUPS:
        found = metadata.entry_points(group=f"cascade.{group}")
        assert found, group
        assert all(entry.load() for entry in found)


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({"engine": "trino"}, "engine"),
        ({"catalog_url": "postgresql://a:b@127.0.0.1/c"}, "catalog_url"),
    ],
)
def test_without_the_extension_the_error_says_which_setting_asked_and_what_to_install(
    settings: dict[str, str], asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "entry_points", lambda **_: ())
    with pytest.raises(ConfigurationError, match="cascade-servers") as caught:
        open_catalog(Settings(project_dir=tmp_path, **settings))  # type: ignore[arg-type]
    assert f"`{asked}`" in str(caught.value)


def test_dbt_gets_the_macros_of_the_engine_s_package_beside_the_runtime_s_in_one_folder(tmp_path: Path) -> None:
    """`macro-paths` of a project has one place for both. What is Trino's stays with the server's package."""
    folder = macros_folder(Settings(project_dir=tmp_path, engine="trino"))
    assert {path.name for path in folder.glob("runtime/*.sql")} == {path.name for path in MACROS.glob("*.sql")}
    assert "materialization table, adapter='trino'" in (folder / "trino" / "models.sql").read_text("utf-8")
    assert [path.name for path in MACROS.glob("*.sql") if "trino__" in path.read_text("utf-8")] == []
