"""A code server that starts closes the runs that its predecessor took with it, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from cascade_servers.code_server import close_runs_of

Status = dg.DagsterRunStatus


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.chdir(tmp_path)
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as opened:
        yield opened


@pytest.mark.parametrize(
    ("host", "status", "closed"),
    [
        ("code", Status.STARTED, True),
        ("code", Status.STARTING, True),
        ("code", Status.CANCELING, True),
        ("code", Status.NOT_STARTED, False),  # it waits for its turn
        ("code", Status.SUCCESS, False),
        ("another", Status.STARTED, False),
        (None, Status.STARTED, False),  # of `cascade run`, on whatever machine
    ],
)
def test_only_runs_that_ended_with_the_code_server_are_closed(
    instance: dg.DagsterInstance, host: str | None, status: Status, closed: bool
) -> None:
    tags = {".dagster/grpc_info": json.dumps({"host": host, "port": 4000})} if host else {}
    run = create_run_for_test(instance, status=status, tags=tags)
    assert close_runs_of("code", instance) == ([run.run_id] if closed else [])
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status is (Status.FAILURE if closed else status)
