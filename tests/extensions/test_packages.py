"""What belongs together stays together: one version, and a clear word when an extension is missing."""

import re
import tomllib
from pathlib import Path

import pytest

from cascade.config import Settings
from cascade.plugins.families import FAMILIES
from cascade_dbt.project import MACROS, macros_folder
from cascade_operations.plugins import inspect_plugins, known_groups

REPOSITORY = Path(__file__).resolve().parents[2]
MANIFESTS = sorted(REPOSITORY.glob("extensions/*/pyproject.toml"))


def _project(manifest: Path) -> dict[str, object]:
    found: dict[str, object] = tomllib.loads(manifest.read_text("utf-8"))["project"]
    return found


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.parent.name)
def test_an_extension_has_the_runtime_s_version_and_asks_for_it(manifest: Path) -> None:
    version = _project(REPOSITORY / "runtime" / "pyproject.toml")["version"]
    extension = _project(manifest)
    assert extension["version"] == version
    assert f"cascade-runtime=={version}" in extension["dependencies"]  # type: ignore[operator]


def test_everything_that_our_packages_bring_fits_its_protocol() -> None:
    records = inspect_plugins()
    assert [str(record) for record in records if record.cause] == []
    assert known_groups().keys() - FAMILIES.keys() == {record.group for record in records} - FAMILIES.keys()


def test_the_runtime_names_no_extension() -> None:
    """Not in a message either: what a package brings is found by entry points, and may be somebody else's."""
    names = re.compile("|".join(f"cascade[-_]{manifest.parent.name}" for manifest in MANIFESTS))
    files = (path for path in (REPOSITORY / "runtime" / "src").rglob("*") if path.suffix in (".py", ".sql"))
    found = [f"{path.name}: {names.findall(text)}" for path in files if names.search(text := path.read_text("utf-8"))]
    assert found == []


@pytest.mark.parametrize(("engine", "more"), [("embedded", set()), ("trino", {"1-trino"})])
def test_dbt_gets_the_macros_of_the_engine_s_package_beside_our_own_in_one_folder(
    engine: str, more: set[str], tmp_path: Path
) -> None:
    """`macro-paths` of a project has one place for both. What is Trino's stays with the server's package."""
    folder = macros_folder(Settings(project_dir=tmp_path, engine=engine))
    assert {path.name for path in folder.glob("0-cascade_dbt/*.sql")} == {path.name for path in MACROS.glob("*.sql")}
    assert {path.name for path in folder.iterdir()} == {"0-cascade_dbt"} | more
    if more:
        assert "materialization table, adapter='trino'" in (folder / "1-trino" / "models.sql").read_text("utf-8")
    assert [path.name for path in MACROS.glob("*.sql") if "trino__" in path.read_text("utf-8")] == []
