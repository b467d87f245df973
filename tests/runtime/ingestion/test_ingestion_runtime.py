"""The promises of a load's time limit and of its retries."""

import contextlib
import datetime as dt
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import requests
import sqlalchemy as sa

from cascade.deadline import deadline
from cascade.errors import IngestionError, SchemaMismatchError
from cascade.ingestion import cascade_ingestion, daily
from cascade.ingestion.limits import TimeLimitError, is_transient
from support.ingestion import Lake

pytestmark = pytest.mark.on_servers("nessie")


def wait_for_ever() -> None:
    """As for a server that does not answer."""
    threading.Event().wait()


def compute_for_ever() -> None:
    while True:
        pass


def repeat_for_ever() -> None:
    """As a source does that repeats whatever fails."""
    while True:
        with contextlib.suppress(Exception):
            wait_for_ever()


def ask_a_server_that_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        requests.get(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout=600)


def wait_for_a_program() -> None:
    subprocess.run(["sleep", "600"], check=True)


def in_thread(work: Callable[[], object]) -> BaseException | None:
    """Run something on another thread and return what it raised."""
    raised: list[BaseException | None] = []

    def run() -> None:
        try:
            work()
            raised.append(None)
        except BaseException as error:  # noqa: BLE001 # whatever it is, it is what the test asks for
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    return raised[0]


def _limited(work: Callable[[], object], seconds: float = 0.05) -> None:
    with deadline(seconds, TimeLimitError("Stopped.", where="asset raw/a")):
        work()


HANGING = [wait_for_ever, compute_for_ever, repeat_for_ever, ask_a_server_that_is_silent, wait_for_a_program]


@pytest.mark.parametrize("work", HANGING)
def test_what_takes_too_long_is_stopped(work: Callable[[], object]) -> None:
    with pytest.raises(IngestionError, match=r"Stopped[\s\S]*raw/a"):
        _limited(work)


def test_what_takes_too_long_is_stopped_on_another_thread_too() -> None:
    error = in_thread(lambda: _limited(compute_for_ever))
    assert isinstance(error, IngestionError)
    assert "Stopped" in str(error)


def test_nothing_is_stopped_in_time_and_nothing_remains_afterwards() -> None:
    before = signal.getsignal(signal.SIGALRM)
    _limited(lambda: None, 60)
    assert in_thread(lambda: _limited(lambda: None, 60)) is None
    assert (signal.getitimer(signal.ITIMER_REAL), signal.getsignal(signal.SIGALRM)) == ((0.0, 0.0), before)
    assert not [t for t in threading.enumerate() if isinstance(t, threading.Timer) and not t.finished.is_set()]


@pytest.mark.parametrize("thread", ["main", "other"])
def test_an_error_of_the_block_passes_through(thread: str) -> None:
    if thread == "main":
        with pytest.raises(ZeroDivisionError):
            _limited(lambda: 1 / 0, 60)
    else:
        assert isinstance(in_thread(lambda: _limited(lambda: 1 / 0, 60)), ZeroDivisionError)


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def _refused(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(str(status), response=response)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("reset"),
        TimeoutError(),
        OSError("network is unreachable"),
        RuntimeError("source busy"),
        requests.exceptions.JSONDecodeError("half a page", "", 0),
        requests.ConnectionError(),
        _refused(503),
        _refused(429),
        _caused(RuntimeError("pipe"), ConnectionError("reset")),
    ],
    ids=repr,
)
def test_a_failure_of_the_world_is_worth_repeating(error: BaseException) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        KeyError("x"),
        TypeError("x"),
        FileNotFoundError("x"),
        PermissionError("x"),
        SchemaMismatchError("x"),
        ImportError("x"),
        ZeroDivisionError(),
        sa.exc.ProgrammingError("SELECT", None, Exception("there is no table")),
        _refused(401),
        _caused(RuntimeError("pipe"), _refused(404)),
        _caused(RuntimeError("pipe"), KeyError("x")),
    ],
    ids=repr,
)
def test_a_mistake_is_not_worth_repeating(error: BaseException) -> None:
    assert not is_transient(error)


# --- through the decorator --------------------------------------------------------------------------------


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, project_dir=tmp_path)


def _failing(times: int, error: BaseException, calls: list[int], **options: Any) -> Any:
    @cascade_ingestion(table_name="t", partitions="none", retry_delay_seconds=0, **options)
    def fetch() -> list[dict[str, int]]:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return [{"id": 1}]

    return fetch


def test_a_failure_of_the_world_is_repeated_until_it_succeeds(lake: Lake) -> None:
    calls: list[int] = []
    lake.succeed(_failing(2, ConnectionError("reset"), calls, max_retries=2))
    assert (len(calls), lake.rows("raw.t")) == (3, [{"id": 1}])


def test_a_failure_is_repeated_as_often_as_it_says(lake: Lake) -> None:
    calls: list[int] = []
    assert "reset" in lake.fail(_failing(9, ConnectionError("reset"), calls, max_retries=1))
    assert len(calls) == 2


@pytest.mark.parametrize("error", [ValueError("no"), FileNotFoundError("weather.csv")], ids=repr)
def test_a_mistake_is_not_repeated(lake: Lake, error: Exception) -> None:
    calls: list[int] = []
    assert str(error) in lake.fail(_failing(9, error, calls, max_retries=3))
    assert len(calls) == 1


def test_a_load_that_takes_too_long_is_stopped_and_writes_nothing(lake: Lake) -> None:
    @cascade_ingestion(table_name="t", partitions="none", max_runtime_seconds=1, max_retries=0)
    def fetch() -> Any:
        yield {"id": 1}
        wait_for_ever()

    assert "Stopped after 1 seconds" in lake.fail(fetch)
    assert lake.lakehouse.tables() == []


def test_a_load_on_another_thread_is_stopped_too(lake: Lake) -> None:
    @cascade_ingestion(table_name="t", partitions="none", max_runtime_seconds=1, max_retries=0)
    def fetch() -> Any:
        compute_for_ever()

    said: list[str] = []
    assert in_thread(lambda: said.append(lake.fail(fetch))) is None
    assert "Stopped after 1 seconds" in said[0]


def test_an_attempt_that_was_stopped_is_repeated(lake: Lake) -> None:
    calls: list[int] = []

    # Long enough for the second attempt, on servers too.
    @cascade_ingestion(table_name="t", partitions="none", max_runtime_seconds=5, max_retries=1, retry_delay_seconds=0)
    def fetch() -> Any:
        calls.append(1)
        if len(calls) == 1:
            wait_for_ever()
        return [{"id": 1}]

    lake.succeed(fetch)
    assert lake.rows("raw.t") == [{"id": 1}]


# --- freshness --------------------------------------------------------------------------------------------

# Days ago that are loaded, in this order; hours at which the check warns and fails; whether it passes, or how severe it
# is. The day before yesterday ended between 24 and 48 hours ago.
AGES: dict[str, tuple[list[int], tuple[float, float], str]] = {
    "young enough": ([2], (100, 200), ""),
    "old enough to warn": ([2], (12, 200), "WARN"),
    "too old": ([2], (12, 20), "ERROR"),
    "too old at once": ([2], (20, 20), "ERROR"),
    "an older day is loaded afterwards": ([2, 9], (100, 200), ""),
    "only an older day is loaded": ([9], (100, 150), "ERROR"),
}


@pytest.mark.parametrize(("days", "hours", "severity"), AGES.values(), ids=AGES)
def test_the_age_of_the_newest_partition_is_a_check_that_stops_nothing(
    lake: Lake, days: list[int], hours: tuple[float, float], severity: str
) -> None:
    today = dt.datetime.now(dt.UTC).date()

    @cascade_ingestion(table_name="t", partitions=daily(start=today - dt.timedelta(20)), freshness_hours=hours)
    def fetch(partition_date: str) -> Any:
        return []

    for ago in days:
        lake.succeed(fetch, str(today - dt.timedelta(ago)))
    found = lake.check(fetch, "freshness")
    assert (found.passed, "" if found.passed else found.severity.value, found.blocking) == (
        not severity,
        severity,
        False,
    )
    assert f"warn after {hours[0]:g}, fail after {hours[1]:g}" in str(found.description)


@pytest.mark.parametrize(("ago", "passed"), [(2, True), (9, False)])
def test_the_newest_partition_counts_in_the_dimension_of_time(lake: Lake, ago: int, passed: bool) -> None:
    today = dt.datetime.now(dt.UTC).date()
    days = dg.DailyPartitionsDefinition(str(today - dt.timedelta(20)))
    lands = dg.MultiPartitionsDefinition({"land": dg.StaticPartitionsDefinition(["be", "nl"]), "day": days})

    @cascade_ingestion(table_name="t", partitions=lands, freshness_hours=(100, 150))
    def fetch(partition_key: str) -> Any:
        return []

    lake.succeed(fetch, f"{today - dt.timedelta(ago)}|nl")
    assert lake.check(fetch, "freshness").passed is passed
