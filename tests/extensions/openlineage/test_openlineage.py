"""The promises of `cascade-openlineage`: what a receiver is told of runs, that it is told once, and nothing is lost.

Modules: `cascade_openlineage.delivery`, `cascade_openlineage.events`, `cascade_openlineage.hooks`.
"""

import contextlib
import datetime as dt
import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource

from cascade.catalog import open_catalog
from cascade.config import Settings, load_settings
from cascade.errors import ConfigurationError
from cascade.framework.instance import open_instance
from cascade_openlineage import datasets, receiver
from cascade_openlineage.hooks import build_sensor, prepare
from support import forks
from support.dbt import dbt_project
from support.projects import make_project
from support.receiver import Receiver, receiving

_FILES = {
    "workflows/shop.py": '''\
"""Guests and their visits; `broken` says what goes wrong."""

import datetime as dt
import os
from pathlib import Path

import pandera.polars as pa
from cascade.ingestion import cascade_ingestion, daily, none
from cascade.quality import cascade_quality


class Guests(pa.DataFrameModel):
    id: int
    age: int


@cascade_ingestion(unique_key="id", partitions=none(), validation_schema=Guests, max_retries=0)
def guests():
    if Path("broken").exists():
        address = f"postgresql://shop:{os.environ['SHOP_PASSWORD']}@db/shop"
        raise ValueError(f"{address} says no to {os.environ['SHOP_TOKEN']} and {os.environ['SHOP_HOOK']}")
    return [{"id": 1, "age": 30}, {"id": 2, "age": 40}, {"id": 2, "age": 41}]


@cascade_ingestion(
    unique_key="id", partitions=daily(start="2024-01-01", end="2024-01-04"), partition_column="day", max_retries=0
)
def visits(partition_dates: list[str]):
    return [{"id": n, "day": dt.date.fromisoformat(day)} for n, day in enumerate(partition_dates)]


@cascade_quality(asset="raw/guests")
def nobody_is_young(lakehouse):
    """Selects guests below 18."""
    return "SELECT * FROM raw.guests WHERE age < 18"
''',
    "transforms/dbt/dbt_project.yml": dbt_project(
        "models: {shop: {+materialized: table, silver: {+schema: silver}, marts: {+schema: marts}}}\n"
    ),
    "transforms/dbt/models/silver/adults.sql": "select g.id, g.age + 1 as next_age, v.day "
    "from {{ source('raw', 'guests') }} g join {{ source('raw', 'visits') }} v on v.id = g.id\n",
    "transforms/dbt/models/marts/ages.sql": "select next_age, count(*) as n from {{ ref('adults') }} group by 1\n",
    "transforms/dbt/models/raw.yml": "sources: [{name: raw, schema: raw, tables: [{name: guests}, {name: visits}]}]\n",
}
_SECRETS = {"SHOP_PASSWORD": "p4ss-word", "SHOP_TOKEN": "tok-3n-value", "SHOP_HOOK": "h00k-value"}
Event = dict[str, Any]


def _environment(receiver: Receiver) -> dict[str, str]:
    """As a user sets it, but for the seconds that the library waits for a receiver that is away."""
    transport = {"TYPE": "http", "URL": receiver.url, "RETRY": '{"total": 0, "status_forcelist": []}'}
    return _SECRETS | {f"OPENLINEAGE__TRANSPORT__{name}": value for name, value in transport.items()}


def _settings(root: Path) -> Settings:
    with contextlib.chdir(root):
        return load_settings()


class Shop:
    """Runs of the project, and the events of each."""

    def __init__(self, root: Path, receiver: Receiver) -> None:
        self.root, self.receiver = root, receiver

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **_environment(self.receiver)}
        return forks.call(*(arguments or ("run",)), cwd=self.root, environment=environment, seconds=180)

    def tick(self) -> str:
        """Let the sensor look, as Dagster's daemon does."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in _environment(self.receiver).items():
                patch.setenv(name, value)
            settings = _settings(self.root)
            sensor = build_sensor(settings)
            assert sensor is not None
            with open_instance(settings) as instance:
                said = sensor(dg.build_sensor_context(instance=instance))
        assert isinstance(said, dg.SkipReason)
        return said.skip_message or ""

    def take(self) -> list[Event]:
        taken, self.receiver.bodies = self.receiver.bodies, []
        return taken


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with receiving() as opened:
        yield Shop(make_project(tmp_path_factory.mktemp("lineage") / "shop", _FILES), opened)


@pytest.fixture(scope="module")
def told(shop: Shop) -> list[Event]:
    """The events of a first run: two loads, two models, a check, a promotion, and a mart."""
    done = shop.run()
    assert done.returncode == 0, done.stderr
    assert shop.tick() == "Everything is sent."  # the daemon looks at the same run
    return shop.take()


@pytest.fixture(scope="module")
def check() -> Callable[[Any, str], None]:
    """Hold something against a schema of OpenLineage's, by the schema's address."""
    files = Path(__file__).parent.joinpath("schemas").glob("*.json")
    schemas = [Resource.from_contents(json.loads(file.read_text("utf-8"))) for file in files]
    known: Any = Registry().with_resources((str(schema.id()), schema) for schema in schemas)

    def check(value: Any, address: str) -> None:
        Draft202012Validator({"$ref": address}, registry=known, format_checker=FormatChecker()).validate(value)

    return check


def _facets(event: Event) -> Iterator[dict[str, Any]]:
    yield from (event["run"]["facets"] | {f"job {name}": one for name, one in event["job"]["facets"].items()}).values()
    for dataset in event["inputs"] + event["outputs"]:
        yield from dataset.get("facets", {}).values()
        yield from {**dataset.get("inputFacets", {}), **dataset.get("outputFacets", {})}.values()


def _end(events: list[Event], job: str) -> Event:
    (found,) = (one for one in events if one["job"]["name"] == job and one["eventType"] != "START")
    return found


def test_each_event_and_each_facet_fits_the_schema_of_openlineage(
    told: list[Event], check: Callable[[Any, str], None]
) -> None:
    assert told
    for event in told:
        check(event, "https://openlineage.io/spec/2-0-2/OpenLineage.json")
        check(event, event["schemaURL"])
        assert dt.datetime.fromisoformat(event["eventTime"]).tzinfo
        for facet in _facets(event):
            check(facet, facet["_schemaURL"])
            assert facet["_producer"] == event["producer"] == "urn:cascade-openlineage:0.1.0"


def test_the_schemas_refuse_what_is_wrong(told: list[Event], check: Callable[[Any, str], None]) -> None:
    """The test above would pass as well if nothing were looked at."""
    facet = _end(told, "silver.adults")["outputs"][0]["facets"]["columnLineage"]
    with pytest.raises(Exception, match="inputFields"):
        check(facet | {"fields": {"id": {}}}, facet["_schemaURL"])


def test_runs_steps_and_models_begin_and_end_once_below_each_other(told: list[Event]) -> None:
    seen = Counter((event["run"]["runId"], event["eventType"]) for event in told)
    assert set(seen.values()) == {1}
    runs = {event["run"]["runId"]: event for event in told}
    assert seen.keys() == {(run, state) for run in runs for state in ("START", "COMPLETE")}
    parents = {}
    for event in runs.values():
        above = event["run"]["facets"].get("parent")
        parents[event["job"]["name"]] = above and above["job"]["name"]
        assert above is None or runs[above["run"]["runId"]]["job"]["name"] == above["job"]["name"]
        assert event["job"]["namespace"] == "shop"
    top = next(job for job, above in parents.items() if above is None)
    assert parents == {
        top: None,
        "raw.guests": top,
        "raw.visits": top,
        f"{top}.raw__guests__nobody_is_young": top,
        f"{top}.dbt": top,
        "silver.adults": f"{top}.dbt",
        "marts.ages": f"{top}.dbt",
        "cascade.promote": top,
        "cascade.publish": top,
    }
    kinds = {event["job"]["name"]: event["job"]["facets"]["jobType"]["jobType"] for event in told}
    assert [kinds[name] for name in (top, "raw.guests", "marts.ages")] == ["JOB", "TASK", "MODEL"]


def test_a_table_is_named_by_its_place_and_has_columns_rows_and_snapshot(shop: Shop, told: list[Event]) -> None:
    (wrote,) = _end(told, "raw.guests")["outputs"]
    warehouse = f"{shop.root}/.cascade/warehouse"
    assert (wrote["namespace"], wrote["name"]) == ("file", f"{warehouse}/raw/guests")
    known = {"namespace": f"file://{warehouse}", "name": "raw.guests", "type": "TABLE"}
    assert wrote["facets"]["symlinks"]["identifiers"] == [known]
    fields = [(field["name"], field["type"]) for field in wrote["facets"]["schema"]["fields"]]
    assert fields == [("id", "long"), ("age", "long"), ("_cascade_ingested_at", "timestamptz")]
    assert wrote["outputFacets"]["outputStatistics"]["rowCount"] == 2
    (tag,) = wrote["facets"]["tags"]["tags"]
    assert tag["key"] == "branch"
    assert tag["value"].startswith("run-")


def test_versions_are_the_snapshots_of_iceberg(shop: Shop, told: list[Event]) -> None:
    """Of what was written, and of what was read."""
    catalog = open_catalog(_settings(shop.root))
    heads = {name: catalog.load(name, at).current_snapshot() for name, at in catalog.pointers("main").items()}
    wanted = {f"{shop.root}/.cascade/warehouse/{name.replace('.', '/')}": head for name, head in heads.items()}
    versions = {
        (dataset["name"], dataset["facets"]["version"]["datasetVersion"])
        for event in told
        for dataset in event["inputs"] + event["outputs"]
        if "version" in dataset.get("facets", {})
    }
    assert versions == {(name, str(head.snapshot_id)) for name, head in wanted.items() if head}


def test_columns_have_their_lineage_from_the_source_to_the_mart(shop: Shop, told: list[Event]) -> None:
    def lineage(job: str) -> dict[str, list[str]]:
        (wrote,) = _end(told, job)["outputs"]
        fields = wrote["facets"]["columnLineage"]["fields"]
        return {
            column: [f"{read['name'].rpartition('warehouse/')[2]}.{read['field']}" for read in field["inputFields"]]
            for column, field in fields.items()
        }

    assert lineage("raw.guests") == {"id": ["source/raw.guests.id"], "age": ["source/raw.guests.age"]}
    assert lineage("silver.adults") == {
        "id": ["raw/guests.id"],
        "next_age": ["raw/guests.age"],
        "day": ["raw/visits.day"],
    }
    assert lineage("marts.ages") == {"next_age": ["silver/adults.next_age"], "n": []}
    assert lineage("cascade.publish") == {"next_age": ["marts/ages.next_age"], "n": ["marts/ages.n"]}
    (mart,) = _end(told, "cascade.publish")["outputs"]
    assert mart["name"] == f"{shop.root}/.cascade/published.duckdb/marts.ages"
    (column,) = mart["facets"]["columnLineage"]["fields"]["n"]["inputFields"]
    assert column["transformations"] == [{"type": "DIRECT", "subtype": "IDENTITY"}]


def test_rows_that_were_read_and_results_of_checks_are_told(told: list[Event]) -> None:
    def rows(job: str) -> dict[str, int]:
        return {
            read["name"].rpartition("warehouse/")[2]: read["inputFacets"]["dataQualityMetrics"]["rowCount"]
            for read in _end(told, job)["inputs"]
        }

    assert rows("raw.guests") == {"source/raw.guests": 3}
    assert rows("silver.adults") == {"raw/guests": 2, "raw/visits": 4}
    checked = next(event for event in told if event["job"]["name"].endswith("nobody_is_young") and event["inputs"])
    (assertion,) = checked["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert (assertion["name"], assertion["success"], assertion["severity"]) == ("nobody_is_young", True, "error")


def test_a_run_that_fails_says_why_without_secrets(
    shop: Shop, told: list[Event], check: Callable[[Any, str], None]
) -> None:
    assert told
    broken = shop.root / "broken"
    broken.touch()
    assert shop.run("run", "--select", "raw.guests").returncode == 1
    broken.unlink()
    events = shop.take()
    top = events[0]["job"]["name"]
    for job in ("raw.guests", top):
        failed = _end(events, job)
        assert failed["eventType"] == "FAIL"
        facet = failed["run"]["facets"]["errorMessage"]
        check(facet, facet["_schemaURL"])
        assert "postgresql://***@db/shop says no to *** and ***" in facet["message"]
        assert "workflows/shop.py:" in facet["message"]
    assert not [secret for secret in _SECRETS.values() if secret in json.dumps(told + events)]


def test_what_a_later_run_reads_has_its_version_once_it_is_promoted(shop: Shop, told: list[Event]) -> None:
    """A model alone, on a branch of its own, reads tables that another run has written and promoted."""
    before = {one["name"]: one["facets"]["version"]["datasetVersion"] for one in _end(told, "silver.adults")["inputs"]}
    assert shop.run("materialize", "silver.adults").returncode == 0
    read = _end(shop.take(), "silver.adults")["inputs"]
    assert {one["name"]: one["facets"]["version"]["datasetVersion"] for one in read} == before


def test_a_receiver_that_is_away_delays_and_loses_nothing(shop: Shop, told: list[Event]) -> None:
    """It goes away in the middle of a run's events; the run does not mind, and each event arrives once."""
    assert told
    shop.receiver.takes = 3
    done = shop.run("run", "--select", "raw.guests")
    assert done.returncode == 0, done.stderr
    assert "events of OpenLineage wait for their receiver (it answers 500) and are sent later" in done.stderr
    assert "wait for their receiver" in shop.tick()
    first = shop.take()
    assert len(first) == 3
    shop.receiver.takes = float("inf")
    assert shop.tick() == "Everything is sent."
    events = first + shop.take()
    seen = Counter((event["run"]["runId"], event["eventType"]) for event in events)
    assert set(seen.values()) == {1}
    assert Counter(state for _, state in seen) == {"START": len(seen) // 2, "COMPLETE": len(seen) // 2}
    assert shop.tick() == "Everything is sent."
    assert shop.take() == []


def test_an_event_that_the_receiver_refuses_keeps_none_back(shop: Shop, told: list[Event]) -> None:
    """Of all runs, as if nothing had been sent yet."""
    assert told
    with open_instance(_settings(shop.root)) as instance:
        instance.daemon_cursor_storage.set_cursor_values({"cascade_openlineage": '{"since": 1}'})
    shop.receiver.status = 422
    said = shop.tick()
    shop.receiver.status = 200
    refused = int(said.removeprefix("the receiver refuses ").partition(" events")[0])
    assert refused >= len(told)
    assert shop.tick() == "Everything is sent."
    assert shop.take() == []


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without anything, in whose folder we are."""
    monkeypatch.chdir(make_project(tmp_path / "own"))
    return tmp_path / "own"


def test_without_a_receiver_there_is_neither_sensor_nor_anything_to_do(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build_sensor(load_settings()) is None
    assert prepare(load_settings()) is None
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:5000")
    before = {**os.environ}
    assert prepare(load_settings()) is not None
    assert {**os.environ} == before  # the library writes variables of its own
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    assert prepare(load_settings()) is None


def test_a_file_in_the_project_says_where_events_go(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "openlineage.yml").write_text("transport: {type: file, log_file_path: told.json, append: true}\n")
    monkeypatch.chdir("/")
    monkeypatch.setenv("CASCADE_PROJECT_DIR", str(own))
    assert receiver.is_asked_for(load_settings())
    with receiver.open_client(load_settings()) as client:
        assert client.transport.kind == "file"


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"OPENLINEAGE_CONFIG": "nowhere.yml"}, "there is no file nowhere.yml, which OPENLINEAGE_CONFIG names"),
        ({"OPENLINEAGE__TRANSPORT__TYPE": "async_http", "OPENLINEAGE__TRANSPORT__URL": "http://a"}, "async_http"),
        ({"OPENLINEAGE__TRANSPORT__TYPE": "pigeon"}, "OPENLINEAGE_URL=http://127.0.0.1:5000"),
        ({"OPENLINEAGE_URL": "no-address"}, "No receiver of OpenLineage's events can be used"),
    ],
)
def test_a_wrong_configuration_is_told_before_anything_runs(
    own: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], says: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=says):
        prepare(load_settings())


def test_tables_on_servers_are_named_by_bucket_and_database(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASCADE_WAREHOUSE", "s3://lake/shop")
    assert datasets.table_name(load_settings(), "marts.ages") == ("s3://lake", "shop/marts/ages")
    read = datasets.table_input(load_settings(), "marts.ages", {})
    mart = datasets.mart_output("postgresql://db:5432/marts", "marts.ages", read, ["n"], 2)
    assert (mart.namespace, mart.name) == ("postgres://db:5432", "marts.marts.ages")
