"""What commands run is on Dagster's timeline. Modules: `cascade_operations.timeline`."""

from pathlib import Path

import dagster as dg
import pytest

from cascade.config import load_settings
from cascade.framework.instance import open_instance
from support.projects import Command, make_project

_FILES = {
    "workflows/orders.py": """\
from cascade.ingestion import cascade_ingestion

@cascade_ingestion(unique_key="id", partitions="none", on_invalid="quarantine")
def orders():
    return [{"id": 1}, {"id": None}]
""",
    "workspace.yaml": "load_from: [{python_file: {relative_path: definitions.py, location_name: shop}}]\n",
}


def test_a_command_s_run_says_where_its_job_is_defined_and_which_table_has_the_rows_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster's timeline leaves out runs without the first; the second is told without a contract, too."""
    monkeypatch.chdir(make_project(tmp_path / "shop", _FILES))
    said = Command(capsys)("run")
    assert said.code == 0, said.err
    assert "1 loaded + 1 quarantined + 0 duplicates; see quarantine.raw__orders)" in said.out
    with open_instance(load_settings()) as instance:
        (run,) = instance.get_runs()
        event = instance.get_latest_materialization_event(dg.AssetKey(["raw", "orders"]))
    assert run.remote_job_origin is not None
    where = run.remote_job_origin.repository_origin
    assert (where.code_location_origin.location_name, where.repository_name) == ("shop", "__repository__")
    assert run.tags["dagster/code_location"] == "shop"
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["quarantine_table"].value == "quarantine.raw__orders"
