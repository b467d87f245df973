"""The promises of `cascade monitoring`: what the metrics say, that they are cheap, and what happens when parts fail.

Modules: `cascade_monitoring.commands`, `cascade_monitoring.event_log`, `cascade_monitoring.exporter`,
`cascade_monitoring.metrics`, `cascade_monitoring.tables`.
"""

import json
import re
import threading
import time
import urllib.error
from collections import defaultdict
from pathlib import Path

import dagster as dg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cascade import names
from cascade.catalog import MAIN, open_catalog
from cascade.config import load_settings
from cascade.errors import ServiceError
from cascade.framework.instance import open_instance
from cascade_monitoring.event_log import EventLog
from cascade_monitoring.exporter import exporting, open_server
from cascade_monitoring.metrics import METRICS, Values
from cascade_monitoring.tables import Tables
from cascade_services.native.processes import direct
from support.lakes import numbers, promoted
from support.projects import Command, make_project

_WORKFLOW = '''\
"""Guests, and a rule for them; `guests.json` says who comes."""

import json
from pathlib import Path

import pandera.polars as pa
from cascade.ingestion import cascade_ingestion, none
from cascade.quality import cascade_quality


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
'''
_GOOD = [{"id": 1, "age": 30}, {"id": 2, "age": "x"}]
_YOUNG = [{"id": 1, "age": 3}, {"id": 2, "age": 40}]
_HOW_TO = Path(__file__).resolve().parents[3] / "docs/how-to/watch-the-lake.md"

Found = dict[tuple[str, ...], float]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = make_project(tmp_path / "shop", {"workflows/guests.py": _WORKFLOW})
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def cascade(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def read(text: str | bytes) -> Found:
    """Return the series of an answer: name and values of labels, by label, to the value."""
    shown = text.decode() if isinstance(text, bytes) else text
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(shown)
        for sample in family.samples
    }


def test_the_metrics_say_what_runs_did_and_what_main_holds(root: Path, cascade: Command) -> None:
    (root / "guests.json").write_text(json.dumps(_GOOD))
    assert cascade("run").code == 0
    (root / "guests.json").write_text(json.dumps(_YOUNG))
    assert cascade("run").code == 1
    said = cascade("monitoring", "metrics")
    assert said.code == 0
    found, now, table, job = read(said.out), time.time(), "raw.guests", "__ASSET_JOB"
    assert found["cascade_runs_total", job, "success"] == found["cascade_runs_total", job, "failure"] == 1
    assert 0 < found["cascade_run_duration_seconds", job] < 60
    assert now - 60 < found["cascade_run_ended_timestamp_seconds", job, "failure"] < now
    assert found["cascade_loads_total", table] == 2
    outcomes = [found["cascade_load_rows_total", one, table] for one in ("loaded", "quarantined", "duplicate")]
    assert outcomes == [1 + 2, 1, 0]
    assert now - 60 < found["cascade_load_timestamp_seconds", table] < now
    assert found["cascade_check_failing", "nobody_is_young", table] == 1
    assert found["cascade_check_failing", "contract", table] == 0
    results = [found["cascade_checks_total", one, table] for one in ("passed", "warned", "failed")]
    assert results == [2, 1, 1]
    # What failed was not promoted: main holds what the first run loaded.
    assert (found["cascade_table_rows", table], found["cascade_table_files", table]) == (1, 1)
    assert found["cascade_table_rows", "quarantine.raw__guests"] == 1
    assert found["cascade_table_size_bytes", table] > 0
    assert found["cascade_table_max_age_seconds", table] == 2 * 3600
    assert (found["cascade_promotions_total",], found["cascade_tables_unreadable",]) == (1, 0)
    assert {name for name, *_ in found} <= {metric.exported for metric in METRICS}


def test_what_is_done_on_a_branch_of_ones_own_makes_no_table_of_main_look_fresh_or_failing(
    root: Path, cascade: Command
) -> None:
    (root / "guests.json").write_text(json.dumps(_YOUNG))
    assert cascade("run", "--branch", "dev").code == 1
    found = read(cascade("monitoring", "metrics").out)
    assert found["cascade_loads_total", "raw.guests"] == 1
    of_main = ("cascade_load_timestamp_seconds", "cascade_check_failing")
    assert [series for series in found if series[0] in of_main and "raw.guests" in series] == []


def test_a_promotion_that_is_refused_is_counted_by_its_reason(root: Path) -> None:
    """As `cascade/promote` fails in a run: with the runtime's own error."""

    @dg.op(name="cascade__promote")
    def promote() -> None:
        from cascade.errors import PromotionConflictError

        raise PromotionConflictError("main has moved")

    @dg.job
    def nightly() -> None:
        promote()

    with open_instance(load_settings()) as instance:
        assert not nightly.execute_in_process(instance=instance, raise_on_error=False).success
        values: Values = defaultdict(dict)
        EventLog(instance, values).catch_up()
    assert values["cascade.promotions.refused"] == {("checks",): 0, ("conflict",): 1}
    assert values["cascade.promotion.refused.timestamp"][()] > time.time() - 60
    assert values["cascade.run.ended.timestamp"]["nightly", "success"] == 0


def test_each_event_is_read_once_however_long_the_history_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values: Values = defaultdict(dict)
    said = {names.LOADED_ROWS: 1, names.TOTAL_SECONDS: 0.5}
    with open_instance(load_settings()) as instance:

        def report(count: int) -> None:
            for _ in range(count):
                instance.report_runless_asset_event(dg.AssetMaterialization(["raw", "t"], metadata=said))

        log = EventLog(instance, values)
        parsed: list[str] = []
        parse = dg.deserialize_value
        monkeypatch.setattr(dg, "deserialize_value", lambda text, as_: parsed.append(text) or parse(text, as_))
        for new, expected in ((40, 40), (0, 40), (3, 43), (0, 43)):
            report(new)
            log.catch_up()
            assert len(parsed) == expected
            assert values["cascade.load.rows"]["raw.t", "loaded"] == expected


def test_only_tables_that_moved_are_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    lake, values, loaded = open_catalog(settings), Values(dict), list[str]()
    for table in ("raw.a", "raw.b"):
        promoted(lake, table, numbers(1, 3))
    tables = Tables(settings)
    load = type(lake).load
    monkeypatch.setattr(type(lake), "load", lambda self, table, at: loaded.append(table) or load(self, table, at))

    def refresh() -> list[str]:
        loaded.clear()
        tables.refresh(values)
        return sorted(loaded)

    assert refresh() == ["raw.a", "raw.b"]
    assert refresh() == []
    promoted(lake, "raw.b", numbers(4, 5))
    loaded.clear()
    assert refresh() == ["raw.b"]
    assert values["cascade.table.rows"] == {("raw.a",): 3, ("raw.b",): 5}
    assert values["cascade.promotions"][()] == 3


def test_a_table_that_is_dropped_leaves_the_metrics(root: Path, cascade: Command) -> None:
    settings = load_settings()
    for table in ("raw.a", "raw.b"):
        promoted(open_catalog(settings), table, numbers(1, 3))
    with exporting(settings) as collect:
        assert ("cascade_table_rows", "raw.a") in read(collect())
        assert cascade("table", "drop", "raw.a", "--yes").code == 0
        assert ("cascade_table_rows", "raw.a") not in read(collect())


def test_a_damaged_table_hides_no_other(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load_settings()
    lake = open_catalog(settings)
    for table in ("raw.a", "raw.b"):
        promoted(lake, table, numbers(1, 3))
    Path(lake.pointers(MAIN)["raw.a"]).unlink()
    with exporting(settings) as collect:
        found = read(collect())
    assert found["cascade_tables_unreadable",] == 1
    assert found["cascade_table_rows", "raw.b"] == 3
    assert ("cascade_table_rows", "raw.a") not in found
    assert "raw.a cannot be read" in capsys.readouterr().err


def test_the_server_answers_with_metrics_or_says_why_it_cannot() -> None:
    told: list[bytes | ServiceError] = [b"up 1\n", ServiceError("PostgreSQL is away.", fix="start it.")]

    def collect() -> bytes:
        match told.pop(0):
            case bytes() as answer:
                return answer
            case error:
                raise error

    with open_server(collect, host="127.0.0.1", port=0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        with direct().open(f"{place}/metrics") as answer:
            assert answer.read() == b"up 1\n"
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
        for path, status, text in (("/metrics", 503, "PostgreSQL is away."), ("/", 404, "are at /metrics")):
            with pytest.raises(urllib.error.HTTPError) as refused:
                direct().open(place + path)
            with refused.value as error:
                assert (error.code, text in error.read().decode()) == (status, True)
        server.shutdown()


def test_a_port_that_is_taken_is_told(root: Path, cascade: Command) -> None:
    with open_server(lambda: b"", host="127.0.0.1", port=0) as server:
        said = cascade("monitoring", "serve", "--port", str(server.server_port))
    assert said.code == 2
    assert f"127.0.0.1:{server.server_port}" in said.err
    assert "`--port`" in said.err


def test_the_page_has_every_metric() -> None:
    rows = re.findall(r"^\| `(cascade_\w+)` \| (\w+) \| (.*?) \| (.*?) \| (.*?) \|$", _HOW_TO.read_text(), re.MULTILINE)
    units = {"s": "seconds", "By": "bytes", "": ""}
    assert rows == [
        (
            one.exported,
            one.kind,
            units.get(one.unit, one.unit.strip("{}") + "s"),
            ", ".join(f"`{label}`" for label in one.labels),
            one.meaning.removesuffix("."),
        )
        for one in METRICS
    ]
