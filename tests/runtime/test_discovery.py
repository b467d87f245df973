"""What lies below `workflows/` is found by its type; a file that cannot be used costs itself, never the rest."""

from pathlib import Path

import dagster as dg
import pytest

from cascade.config import Settings
from cascade.framework.definitions import build_definitions
from cascade.framework.discovery import broken_files, discover_user_workflows

ASSET = """
import dagster as dg

@dg.asset
def {name}():
    return 1
"""
RESOURCE = """
import dagster as dg

class Box(dg.ConfigurableResource):
    size: int

{name} = Box(size={size})
"""


def found(folder: Path, **files: str) -> dg.Definitions:
    workflows = folder / "workflows"
    workflows.mkdir()
    for name, text in files.items():
        (workflows / f"{name}.py").write_text(text)
    return discover_user_workflows(workflows)


def test_what_files_define_is_found_by_its_type(tmp_path: Path) -> None:
    definitions = found(tmp_path, a=ASSET.format(name="one"), b=RESOURCE.format(name="box", size=1))
    assert {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()} == {"one"}
    assert set(definitions.resources or {}) == {"box"}
    assert broken_files(definitions) == []


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (ASSET.format(name="one"), ASSET.format(name="one"), "asset one"),
        (RESOURCE.format(name="box", size=1), RESOURCE.format(name="box", size=2), "resource box"),
    ],
    ids=["asset", "resource"],
)
def test_what_two_files_define_is_refused_in_the_second(tmp_path: Path, first: str, second: str, said: str) -> None:
    definitions = found(tmp_path, a=first, b=second, c=ASSET.format(name="other"))
    (problem,) = broken_files(definitions)
    assert problem.startswith("workflows/b.py")
    assert f"{said} is defined already in a.py" in problem
    assert "other" in {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}


def test_one_object_that_two_files_show_is_one(tmp_path: Path) -> None:
    shown = "from workflows.a import box"
    definitions = found(tmp_path, a=RESOURCE.format(name="box", size=1), b=shown)
    assert set(definitions.resources or {}) == {"box"}
    assert broken_files(definitions) == []


def test_settings_are_read_once_for_all_assets(tmp_path: Path) -> None:
    """The given ones count, wherever the command is run: nothing of the folder is read again."""
    (tmp_path / "workflows").mkdir()
    text = "from cascade.ingestion import cascade_ingestion\n"
    for name in ("one", "two"):
        text += f"@cascade_ingestion(unique_key='id')\ndef {name}(partition_date: str): ...\n"
    (tmp_path / "workflows" / "loads.py").write_text(text)
    (tmp_path / "cascade_config.py").write_text("raise SystemExit('read again')")
    (tmp_path / "pyproject.toml").write_text("[tool.cascade]")
    definitions = build_definitions(Settings(project_dir=tmp_path, timezone="Asia/Tokyo"))
    assert broken_files(definitions) == []
    for name in ("one", "two"):
        partitions = definitions.resolve_asset_graph().get(dg.AssetKey(["raw", name])).partitions_def
        assert isinstance(partitions, dg.TimeWindowPartitionsDefinition)
        assert partitions.timezone == "Asia/Tokyo"
