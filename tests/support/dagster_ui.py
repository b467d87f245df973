"""A running `dagster dev`, driven through the GraphQL API that its own pages use."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from support.generated import BIN, Project

_MARK = "TESTS_OF_CASCADE_STARTED"
_ENDED = ("SUCCESS", "FAILURE", "CANCELED")
_DEADLINE_SECONDS = 180
T = TypeVar("T")


@contextlib.contextmanager
def dagster_dev(project: Project, log: Path) -> Iterator[DagsterUI]:
    """Run `dagster dev` in a project while the block runs; nothing of it is left behind.

    Its children outlive it when it is killed, so all of them carry a mark, by which they are found.
    """
    mark = uuid.uuid4().hex
    port = _free_port()
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(BIN / "dagster"), "dev", "--host", "127.0.0.1", "--port", str(port)],
            cwd=project.root,
            env=project.environment | {_MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            ui = DagsterUI(f"http://127.0.0.1:{port}", log)
            ui.wait_until_open(process)
            yield ui
        finally:
            _end(process, mark)


def until(condition: Callable[[], T], what: str, *, seconds: float = _DEADLINE_SECONDS) -> T:
    """Ask again and again until the answer is true, and return it; give up at a deadline."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for: {what}"
        time.sleep(0.2)
    return answer


class DagsterUI:
    """What a person does in the Dagster UI, as requests."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.log = log

    def wait_until_open(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the project's definitions are served."""

        def loaded() -> bool:
            assert process.poll() is None, f"`dagster dev` ended:\n{self.log.read_text()[-3000:]}"
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                return bool(self._repositories())
            return False

        until(loaded, "`dagster dev` to serve the project")

    def ask(self, query: str, **variables: Any) -> Any:
        """Send one GraphQL request and return its only field."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/graphql", data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=_DEADLINE_SECONDS) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            pytest.fail(f"{error}: {error.read().decode()[:3000]}\n{query}")
        assert "errors" not in answer, answer["errors"]
        (value,) = answer["data"].values()
        return value

    @property
    def location(self) -> dict[str, str]:
        """The project, as requests name it."""
        (found,) = self._repositories()
        return {"repositoryName": found["name"], "repositoryLocationName": found["location"]["name"]}

    def materialize(
        self, *assets: str, job: str = "__ASSET_JOB", tags: dict[str, str] | None = None, checks: bool = True
    ) -> str:
        """Start a run, of a job or of assets alone, with their checks or without, and return its id."""
        selector: dict[str, Any] = {**self.location, "pipelineName": job}
        if assets:
            selector["assetSelection"] = _keys(assets)
        if not checks:
            selector["assetCheckSelection"] = []
        pairs = [{"key": key, "value": value} for key, value in (tags or {}).items()]
        answer = self.ask(
            """
            mutation($p: ExecutionParams!) {
              launchPipelineExecution(executionParams: $p) {
                __typename
                ... on LaunchRunSuccess { run { runId } }
                ... on PythonError { message }
                ... on InvalidSubsetError { message }
              }
            }
            """,
            p={"selector": selector, "mode": "default", "runConfigData": {}, "executionMetadata": {"tags": pairs}},
        )
        return str(_run_of(answer)["runId"])

    def reexecute_from_failure(self, run_id: str) -> str:
        """Press `Re-execute from failure`, and return the new run's id."""
        answer = self.ask(
            """
            mutation($p: ReexecutionParams!) {
              launchPipelineReexecution(reexecutionParams: $p) {
                __typename
                ... on LaunchRunSuccess { run { runId } }
                ... on PythonError { message }
              }
            }
            """,
            p={"parentRunId": run_id, "strategy": "FROM_FAILURE"},
        )
        return str(_run_of(answer)["runId"])

    def backfill(self, assets: Sequence[str], partitions: Sequence[str]) -> str:
        """Start a backfill over assets, with the same partitions of all that have any, and return its id."""
        answer = self.ask(
            """
            mutation($p: LaunchBackfillParams!) {
              launchPartitionBackfill(backfillParams: $p) {
                __typename
                ... on LaunchBackfillSuccess { backfillId }
                ... on PythonError { message }
              }
            }
            """,
            p={"assetSelection": _keys(assets), "partitionNames": list(partitions)},
        )
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return str(answer["backfillId"])

    def wait_for_backfill(self, backfill: str) -> str:
        """Wait until a backfill has ended, and return its status."""
        query = """
        query($b: String!) { partitionBackfillOrError(backfillId: $b) { ... on PartitionBackfill { status } } }
        """
        ended = ("COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED")

        def status() -> str:
            found = str(self.ask(query, b=backfill)["status"])
            return found if found in ended else ""

        return until(status, f"backfill {backfill} to end")

    def wait(self, *run_ids: str) -> list[dict[str, Any]]:
        """Wait until runs have ended, and return what is known of them."""
        return until(
            lambda: (
                [run for run in self.runs(runIds=list(run_ids)) if run["status"] in _ENDED]
                if all(run["status"] in _ENDED for run in self.runs(runIds=list(run_ids)))
                else []
            ),
            f"runs {', '.join(run_ids)} to end",
        )

    def status(self, run_id: str) -> str:
        """Return a run's status, such as QUEUED, STARTED or SUCCESS."""
        (run,) = self.runs(runIds=[run_id])
        return str(run["status"])

    def runs(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return runs that fit a filter, newest first."""
        query = """
        query($f: RunsFilter) {
          runsOrError(filter: $f) { ... on Runs { results {
            runId status jobName startTime endTime tags { key value } assetSelection { path }
          } } }
        }
        """
        found: list[dict[str, Any]] = self.ask(query, f=wanted)["results"]
        return found

    def failures(self, run_id: str) -> str:
        """Return what failed steps of a run said, as its page shows it."""
        query = """
        query($r: ID!) {
          runOrError(runId: $r) { ... on Run { eventConnection { events {
            ... on ExecutionStepFailureEvent { error { message causes { message } } failureMetadata { description } }
          } } } }
        }
        """
        events = self.ask(query, r=run_id)["eventConnection"]["events"]
        return json.dumps([event for event in events if event], ensure_ascii=False).replace("\\n", "\n")

    def retries(self, run_id: str) -> list[str]:
        """Return why steps of a run were repeated, each time."""
        query = """
        query($r: ID!) {
          runOrError(runId: $r) { ... on Run { eventConnection { events {
            ... on ExecutionStepUpForRetryEvent { error { message causes { message } } }
          } } } }
        }
        """
        events = self.ask(query, r=run_id)["eventConnection"]["events"]
        return [json.dumps(event, ensure_ascii=False) for event in events if event]

    def freshness(self, asset: str) -> str:
        """Return how fresh the daemon finds an asset: HEALTHY, WARNING, DEGRADED, UNKNOWN."""
        query = """
        query($k: AssetKeyInput!) {
          assetNodeOrError(assetKey: $k) { ... on AssetNode { freshnessStatusInfo { freshnessStatus } } }
        }
        """
        found = self.ask(query, k=_keys([asset])[0])["freshnessStatusInfo"]
        return str(found["freshnessStatus"]) if found else ""

    def tick(self, schedule: str) -> str:
        """Switch a schedule on until the daemon has started a run of it, and return the run's id."""
        selector = {**self.location, "scheduleName": schedule}
        started = self.ask(
            "mutation($s: ScheduleSelector!) { startSchedule(scheduleSelector: $s) { __typename "
            "... on ScheduleStateResult { scheduleState { id } } } }",
            s=selector,
        )
        tags = [{"key": "dagster/schedule_name", "value": schedule}]
        try:
            return str(until(lambda: self.runs(tags=tags), f"a tick of {schedule}", seconds=150)[-1]["runId"])
        finally:
            stop = "mutation($i: String!) { stopRunningSchedule(id: $i) { __typename } }"
            self.ask(stop, i=started["scheduleState"]["id"])

    def run_schedule(self, name: str) -> str:
        """Evaluate a schedule's next tick, start the run that it requests, and return its id."""
        selector = {**self.location, "scheduleName": name}
        job = self.ask(
            """
            query($s: ScheduleSelector!) {
              scheduleOrError(scheduleSelector: $s) { ... on Schedule { pipelineName } }
            }
            """,
            s=selector,
        )
        answer = self.ask(
            """
            mutation($s: ScheduleSelector!, $t: Float!) {
              scheduleDryRun(selectorData: $s, timestamp: $t) {
                __typename
                ... on DryRunInstigationTick { evaluationResult {
                  error { message } runRequests { tags { key value } }
                } }
                ... on PythonError { message }
              }
            }
            """,
            s=selector,
            t=time.time(),
        )
        evaluation = answer["evaluationResult"]
        assert evaluation["error"] is None, evaluation
        (wanted,) = evaluation["runRequests"]
        tags = {tag["key"]: tag["value"] for tag in wanted["tags"]}
        return self.materialize(job=job["pipelineName"], tags=tags)

    def _repositories(self) -> list[Any]:
        answer = self.ask(
            "{ repositoriesOrError { __typename ... on RepositoryConnection { nodes { name location { name } } } } }"
        )
        found: list[Any] = answer.get("nodes", [])
        return found


def _keys(assets: Sequence[str]) -> list[dict[str, list[str]]]:
    return [{"path": asset.split("/")} for asset in assets]


def _run_of(answer: Any) -> Any:
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return answer["run"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """End `dagster dev` as Ctrl+C does, then whatever is left of it."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)
    # Code servers and runs have sessions of their own.
    for pid in _marked(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not _marked(mark), "the children of `dagster dev` to end", seconds=20)


def _marked(mark: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{_MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found
