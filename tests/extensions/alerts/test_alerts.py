"""The promises of `cascade alerts`: what people are told, by whom, how often, and what never reaches a log.

Modules: `cascade_alerts.commands`, `cascade_alerts.findings`, `cascade_alerts.settings`, `cascade_alerts.telling`,
`cascade_operations.after`.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from cascade.config import Settings, load_settings
from cascade.errors import ConfigurationError
from cascade.framework.definitions import build_definitions, problems_of
from cascade.framework.instance import open_instance
from cascade_alerts.hooks import build_sensor
from cascade_alerts.targets import open_receivers
from support import forks
from support.dbt import dbt_project
from support.projects import Command, Said, make_project
from support.receiver import Receiver, receiving

_WORKFLOW = '''\
"""Guests, and a rule for them; `guests.json` says who comes."""

import json
import sys
import time
from pathlib import Path

import pandera.polars as pa
from cascade.ingestion import cascade_ingestion, none
from cascade.quality import cascade_quality, row_count


class Guests(pa.DataFrameModel):
    id: int
    age: int


@cascade_ingestion(
    unique_key="id", partitions=none(), validation_schema=Guests, on_invalid="quarantine", quarantine_limit=1,
    quarantine_fraction=1, max_retries=0, freshness_hours=(1, 2),
)
def guests():
    return json.loads(Path("guests.json").read_text())


@cascade_quality(asset="raw/guests")
def nobody_is_young(lakehouse):
    """Selects guests below 18."""
    return "SELECT * FROM raw.guests WHERE age < 18"


@cascade_quality(asset="raw/guests", checks=[row_count(minimum=5, blocking=False)])
def there_may_be_guests():
    """A warning only."""
'''
_GOOD = [{"id": 1, "age": 30}, {"id": 2, "age": 40}]
_YOUNG = [{"id": 1, "age": 3}, {"id": 2, "age": 4}, {"id": 3, "age": 50}]
_BROKEN = [{"id": 1, "age": "x"}, {"id": 2, "age": "y"}, {"id": 3, "age": 30}]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as opened:
        yield opened


@pytest.fixture
def root(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose target `team` is the receiver; the secret is a variable."""
    files = {"workflows/guests.py": _WORKFLOW, "cascade.yaml": "alerts: {targets: {team: '${HOOK}'}}\n"}
    root = make_project(tmp_path / "shop", files)
    monkeypatch.setenv("HOOK", receiver.address)
    monkeypatch.chdir(root)
    return root


class Shop:
    """Runs of the project, and what people are told of them."""

    def __init__(self, root: Path, cascade: Command, receiver: Receiver) -> None:
        self.root, self.cascade, self.receiver = root, cascade, receiver

    def run(self, rows: object, *arguments: str) -> Said:
        (self.root / "guests.json").write_text(json.dumps(rows))
        return self.cascade(*(arguments or ("run",)))

    def tick(self) -> dg.SkipReason:
        """Let the sensor look, as Dagster's daemon does."""
        settings = load_settings()
        sensor, definitions = build_sensor(settings), build_definitions(settings)
        assert sensor is not None
        with open_instance(settings) as instance:
            context = dg.build_sensor_context(instance=instance, definitions=definitions)
            said = sensor(context)
        assert isinstance(said, dg.SkipReason)
        return said

    @property
    def titles(self) -> list[str]:
        return [title for title, _ in self.receiver.take()]


@pytest.fixture
def shop(root: Path, capsys: pytest.CaptureFixture[str], receiver: Receiver) -> Shop:
    return Shop(root, Command(capsys), receiver)


def test_a_failed_check_is_told_once_with_what_one_needs_and_its_recovery_too(shop: Shop) -> None:
    """The step of a check fails with it, and nothing is promoted: that is one cause, not three."""
    failed = shop.run(_YOUNG)
    assert failed.code == 1
    ((title, text),) = shop.receiver.take()
    assert title == "shop: check `nobody_is_young` of raw.guests failed"
    branch = failed.err.partition("branch ")[2].partition(" ")[0]
    for line in (
        "table: raw.guests",
        "check: nobody_is_young",
        "failing rows: 2",
        f"branch: {branch}",
        f'look: cascade query "select * from raw.guests limit 20" --branch {branch}',
    ):
        assert line in text.splitlines()
    assert shop.cascade("query", "select * from raw.guests limit 20", "--branch", branch).code == 0

    shop.run(_YOUNG)
    assert shop.titles == []
    assert shop.tick().skip_message == "There is nothing to tell."  # the daemon looks at the same runs
    shop.run(_GOOD)
    assert shop.titles == ["shop: recovered: check `nobody_is_young` of raw.guests failed"]
    shop.tick()
    shop.run(_GOOD)
    assert shop.titles == []


def test_the_daemon_tells_of_runs_that_no_command_started(shop: Shop) -> None:
    shop.tick()  # from now on
    settings = load_settings()
    (shop.root / "guests.json").write_text("no JSON")
    with open_instance(settings) as instance:
        job = build_definitions(settings).resolve_implicit_global_asset_job_def()
        job.execute_in_process(instance=instance, raise_on_error=False)
    assert shop.titles == []
    shop.tick()
    ((title, text),) = shop.receiver.take()
    assert title == "shop: raw.guests failed on dev"
    assert "JSONDecodeError" in text
    assert "look: cascade dev, then run " in text
    shop.run(_GOOD, "materialize", "guests")
    assert shop.titles == ["shop: recovered: raw.guests failed on dev"]


def test_too_many_rows_that_break_the_contract_are_told_as_such(shop: Shop) -> None:
    shop.run(_BROKEN)
    ((title, text),) = shop.receiver.take()
    assert title == "shop: raw.guests was not loaded, since too many rows break its contract"
    assert {"failing rows: 2", "limit: quarantine_limit=1", "check: contract"} <= {*text.splitlines()}
    shop.run(_GOOD)
    assert shop.titles == ["shop: recovered: raw.guests was not loaded, since too many rows break its contract"]


def test_a_refused_promotion_is_told_and_a_later_one_recovers(shop: Shop) -> None:
    shop.run(_YOUNG, "materialize", "guests")
    assert shop.titles == ["shop: check `nobody_is_young` of raw.guests failed on dev"]
    assert shop.cascade("branch", "promote", "dev").code == 1
    ((title, text),) = shop.receiver.take()
    assert title == "shop: dev was not promoted"
    assert "raw.guests: check `nobody_is_young` failed" in text
    assert "look: cascade branch diff dev" in text.splitlines()
    shop.run(_GOOD, "materialize", "guests")
    assert shop.cascade("branch", "promote", "dev").code == 0
    assert shop.titles == [
        "shop: recovered: check `nobody_is_young` of raw.guests failed on dev",
        "shop: recovered: dev was not promoted",
    ]


def test_a_table_that_nobody_loads_is_told_as_stale(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.run(_GOOD)
    shop.tick()
    assert shop.titles == []
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 3 * 3600)
    shop.tick()
    shop.tick()
    ((title, text),) = shop.receiver.take()
    assert title == "shop: raw.guests was not loaded for too long"
    assert "the last load was 3.0 hours ago, 2 are allowed" in text


def test_a_command_that_fails_before_a_run_is_told(shop: Shop) -> None:
    (shop.root / "workflows/broken.py").write_text("import nothing_like_it\n")
    assert shop.run(_GOOD).code != 0
    ((title, text),) = shop.receiver.take()
    assert title == "shop: `cascade run` failed"
    assert "nothing_like_it" in text
    (shop.root / "workflows/broken.py").unlink()
    shop.run(_GOOD)
    assert shop.titles == ["shop: recovered: `cascade run` failed"]
    shop.run(_GOOD, "run", "--select", "typo")
    assert shop.titles == []


def test_a_receiver_that_is_away_fails_no_run_and_hears_it_later(shop: Shop) -> None:
    shop.receiver.status = 500
    first, second = shop.run(_YOUNG), shop.run(_YOUNG)
    assert (first.code, second.code) == (1, 1)
    assert "alerts: `team` (${HOOK}) could not be told: " in first.err
    assert "could not be told" not in second.err
    assert "is away" in shop.cascade("alerts", "list").out
    assert shop.run(_GOOD, "alerts", "test").code == 1
    shop.receiver.status = 200
    shop.tick()
    assert shop.titles == ["shop: check `nobody_is_young` of raw.guests failed"]


def test_a_target_hears_what_it_asked_for(shop: Shop) -> None:
    (shop.root / "cascade.yaml").write_text(
        "alerts: {targets: {pager: {url: '${HOOK}', events: [promotion_refused]}, team: '${HOOK}'}}\n"
    )
    shop.run(_YOUNG)
    assert len(shop.titles) == 1
    listed = json.loads(shop.cascade("alerts", "list", "--json").out)
    assert [problem["told"] for problem in listed["open"]] == [["team"]]
    assert listed["targets"][0]["events"] == ["promotion_refused"]


def test_a_test_message_is_sent_to_those_that_are_named(shop: Shop) -> None:
    said = shop.cascade("alerts", "test", "team")
    assert (said.code, said.out) == (0, "team (${HOOK}): sent\n")
    assert shop.titles == ["shop: a test of Cascade's alerts"]
    said = shop.cascade("alerts", "test", "nobody")
    assert said.code == 2
    assert "There is no target nobody." in said.err
    assert "name one of team." in said.err


_WRONG = {
    "an unknown kind of address": ("{targets: {a: 'slak://x'}}", "`slak://` is not a kind of address", "`slack://`"),
    "an address that lacks a part": ("{targets: {a: 'slack://'}}", "not complete for `slack://`", "cascade.yaml"),
    "a secret that is missing": ("{targets: {a: 'slack://${NO_TOKEN}'}}", "NO_TOKEN is not set", "`.env`"),
    "a secret in a file": ("{targets: {a: 'json://me:geheim@localhost'}}", "holds a secret", "${NAME}"),
    "an unknown event": ("{targets: {a: {url: 'json://x', events: [run_fail]}}}", "`run_fail` is not", "`run_failed`"),
    "an unknown option": ("{targets: {a: {url: 'json://x', event: []}}}", "event", "cascade.yaml"),
}


@pytest.mark.parametrize("case", _WRONG)
def test_what_is_wrong_is_refused_before_anything_runs(case: str, shop: Shop) -> None:
    written, *parts = _WRONG[case]
    (shop.root / "cascade.yaml").write_text(f"alerts: {written}\n")
    for command in ("run", "alerts"):
        said = shop.run(_GOOD, command, *(["list"] if command == "alerts" else []))
        assert said.code == 2, said
        for part in ("alerts", "fix:", *parts):
            assert part in said.err
        assert "geheim" not in said.err
    assert not (shop.root / ".cascade").exists()


def test_wrong_targets_are_a_problem_of_the_definitions(shop: Shop) -> None:
    """`cascade validate` and `dagster dev` show it; nothing else is left out."""
    (shop.root / "cascade.yaml").write_text("alerts: {targets: {a: 'slak://x'}}\n")
    problems = problems_of(build_definitions(load_settings()))
    assert problems.broken == []
    (problem,) = problems.jobs
    assert "`slak://` is not a kind of address" in problem


def test_a_secret_is_in_no_error_and_no_list(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address in the environment is a secret as a whole."""
    monkeypatch.setenv("CASCADE_ALERTS__TARGETS", json.dumps({"team": "json://127.0.0.1:9/T0pSecretHook"}))
    settings = load_settings()
    (receiver,) = open_receivers(settings)
    why = receiver.send("title", "text", "failure")
    assert why
    shown = f"{why} {receiver} {settings} {settings.plugins}"
    assert "T0pSecret" not in shown
    assert receiver.shown == "json://***"


def test_without_targets_nothing_is_told_and_there_is_no_sensor(tmp_path: Path) -> None:
    settings = Settings(project_dir=tmp_path)
    assert open_receivers(settings) == []
    assert build_sensor(settings) is None


def test_without_apprise_the_error_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ConfigurationError, match="uv sync --extra alerts"):
        open_receivers(load_settings())


_LOADED = """import json
from pathlib import Path

from cascade.ingestion import cascade_ingestion


@cascade_ingestion(unique_key="id", partitions="none", max_retries=0)
def guests():
    return json.loads(Path("guests.json").read_text())
"""
_DBT = {
    "workflows/guests.py": _LOADED,
    "transforms/dbt/dbt_project.yml": dbt_project(
        "models: {shop: {silver: {+schema: silver, +materialized: table}}}\n"
    ),
    "transforms/dbt/models/silver/adults.sql": "select * from {{ source('raw', 'guests') }}\n",
    "transforms/dbt/models/silver/silver.yml": "sources: [{name: raw, schema: raw, tables: [{name: guests}]}]\n",
    "transforms/dbt/tests/nobody_is_a_child.sql": "select * from {{ ref('adults') }} where age < 18\n",
    "transforms/dbt/tests/many_may_come.sql": (
        "{{ config(severity='warn') }} select count(*) as n from {{ ref('adults') }} having count(*) < 9\n"
    ),
}


def test_a_failed_test_of_dbt_is_told_once_and_its_recovery_too(root: Path, receiver: Receiver) -> None:
    """One of severity `warn` keeps nothing from being promoted, and is not told."""
    for path, text in _DBT.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)

    def run(rows: object) -> int:
        (root / "guests.json").write_text(json.dumps(rows))
        return forks.call("run", cwd=root, environment=os.environ, seconds=120).returncode

    assert run(_YOUNG) == 1
    ((title, text),) = receiver.take()
    assert title == "shop: check `nobody_is_a_child` of silver.adults failed", text
    assert "failing rows: 2" in text
    assert run(_YOUNG) == 1
    assert receiver.take() == []
    assert run(_GOOD) == 0
    assert [title for title, _ in receiver.take()] == [
        "shop: recovered: check `nobody_is_a_child` of silver.adults failed"
    ]
