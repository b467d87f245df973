"""Events of many partitions are stored at once, and say what single ones say.

Modules: `cascade.framework.storage`.
"""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from cascade.config import build_settings
from cascade.framework.instance import open_instance
from cascade_embedded.storage import SqliteEvents
from support.partition_events import RUNS, told

ROOT = Path(__file__).resolve().parents[3]


def test_events_that_are_stored_at_once_say_what_single_ones_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "template" / "dagster.yaml", tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.cascade]\n")
    with monkeypatch.context() as singly, dg.instance_for_test() as dagsters_own:
        singly.setenv("DAGSTER_EVENT_BATCH_SIZE", "0")
        expected = told(dagsters_own)
    with open_instance(build_settings(tmp_path, {})) as instance:
        assert isinstance(instance.event_log_storage, SqliteEvents)
        assert told(instance) == expected
    assert expected["one"]["partitions"] == {"2024-01-02", "2024-01-03", "2024-01-04"}
    assert set(expected["two"]["not yet"].values()) == {RUNS[1]}
    # A check without partitions is planned once, not once for each partition of the run: it gets one result.
    checks = [(run, status.value, partition) for run, status, partition in expected["one"]["checks"]]
    assert checks == [(RUNS[1], "SUCCEEDED", None), (RUNS[0], "SUCCEEDED", None)]
