"""The promises of `cascade.framework.launch`: what runs of a project leave behind, and what they say."""

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from cascade.config import Settings
from cascade.framework.definitions import build_definitions, guards_of
from cascade.framework.launch import materialize, open_instance
from cascade.lakehouse import Lakehouse
from cascade.publish import promote_branch

_WORKFLOW = '''\
"""A table whose rows are checked."""

import pandera.polars as pa
from cascade.ingestion import cascade_ingestion, none


class Guests(pa.DataFrameModel):
    """Who is expected."""

    id: int


@cascade_ingestion(unique_key="id", partitions=none(), validation_schema=Guests, max_retries=0)
def guests():
    """Two guests."""
    return [{"id": 1}, {"id": 2}]
'''


def _silent(event: str, subject: str) -> None:
    """Somebody who does not listen."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project of one file, and the working folder."""
    root = tmp_path_factory.mktemp("project")
    (root / "pyproject.toml").write_text("[tool.cascade]\n")
    (root / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (root / "workflows/ingestion").mkdir(parents=True)
    (root / "workflows/ingestion/guests.py").write_text(_WORKFLOW)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield root


# --- the branch of a run ----------------------------------------------------------------------------------


def _by_command(settings: Settings) -> None:
    assert materialize(settings, ["guests"], tell=_silent).success


def _in_the_ui(settings: Settings) -> None:
    """As the UI materializes an asset: without a tag of ours."""
    key = dg.AssetKey(["raw", "guests"])
    job = build_definitions(settings).resolve_implicit_job_def_def_for_assets([key])
    assert job is not None
    with open_instance(settings) as instance:
        assert job.execute_in_process(instance=instance, asset_selection=[key]).success


@pytest.mark.parametrize(("branch", "write"), [("ada", _by_command), ("eve", _in_the_ui)])
def test_a_branch_is_promoted_by_somebody_whose_settings_name_another(
    branch: str, write: Callable[[Settings], None], project: Path
) -> None:
    write(Settings(project_dir=project, branch=branch))
    settings = Settings(project_dir=project, branch="ben")
    lake = Lakehouse(settings, "ben").lake
    start = lake.log(limit=1)[0].id if lake.log(limit=1) else 0
    with open_instance(settings) as instance:
        entry = promote_branch(lake, settings, branch, instance, guards_of(build_definitions(settings)))
    assert entry is not None
    assert [change.table for change in entry.changes] == ["raw.guests"]
    lake.restore(start)
