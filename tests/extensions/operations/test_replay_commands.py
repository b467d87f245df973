"""The promises of `cascade quarantine replay` and `drop`: a run on a branch, the gate, and clear refusals.

Modules: `cascade_cli.quarantine`, `cascade_operations.quarantine`, `cascade_operations.instead`.
"""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from cascade.catalog import MAIN, BranchingCatalog, open_catalog
from cascade.config import Settings
from support.lakes import numbers, promoted, put, read
from support.projects import Command, make_project

_WORKFLOW = '''\
"""A table, a check of it, and tables that depend on it."""

import dagster as dg
import pandera.polars as pa
from cascade.ingestion import cascade_ingestion, daily
from cascade.quality import cascade_quality, in_range


class Guests(pa.DataFrameModel):
    """Who is expected."""

    id: int = pa.Field(gt=0)
    age: int


@cascade_ingestion(
    partitions=daily(start="2024-01-01", end="2024-01-02"), write="append", validation_schema=Guests,
    on_invalid="quarantine", max_retries=0,
)
def guests(partition_date: str):
    """A good guest and a bad one."""
    return [{"id": 1, "age": 20}, {"id": -1, "age": 30}]


@cascade_quality(asset="raw.guests", checks=[in_range("age", 0, 99)])
def ages():
    """Nobody is older than 99."""


@dg.asset(deps=[guests])
def host(lakehouse: dg.ResourceParam[object]) -> int:
    """Depends on the guests."""
    return 1


@dg.asset(deps=[guests], partitions_def=dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-03"))
def tables() -> None:
    """Depends on them, day by day."""
'''


@pytest.fixture
def cascade(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cascade: Command) -> BranchingCatalog:
    """A project that has loaded two days, with a bad row each."""
    root = make_project(tmp_path / "project", {"workflows/guests.py": _WORKFLOW})
    monkeypatch.chdir(root)
    said = cascade("run", "--select", "raw/guests")
    assert said.code == 0, said
    return open_catalog(Settings(project_dir=root))


def _main(lake: BranchingCatalog, table: str = "raw.guests") -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "_cascade_ingested_at"} for row in read(lake, MAIN, table)]


def _branches(lake: BranchingCatalog) -> list[str]:
    return [branch.name for branch in lake.branches()]


def test_mended_rows_reach_main_through_the_gate(cascade: Command, lake: BranchingCatalog, tmp_path: Path) -> None:
    """A failing check keeps them on the run's branch; mended again they are promoted, once."""
    file = tmp_path / "bad.jsonl"
    assert cascade("quarantine", "show", "raw.guests", "-p", "2024-01-02", "--to", str(file)).code == 0
    (row,) = map(json.loads, file.read_text().splitlines())
    assert {name: value for name, value in row.items() if name != "_cascade_id"} == {"id": -1, "age": 30}
    file.write_text(json.dumps({**row, "id": 2, "age": 130}))
    before = lake.pointers(MAIN)
    said = cascade("quarantine", "replay", "raw.guests", "--from", str(file))
    assert (said.code, lake.pointers(MAIN)) == (1, before), said
    assert "FAILED: raw/guests" in said.out
    file.write_text(json.dumps({**row, "id": 2, "age": 13}))
    dry = json.loads(cascade("quarantine", "replay", "raw.guests", "--from", str(file), "--dry-run", "--json").out)
    assert (dry["rows"], dry["loaded"], dry["left"], dry["report"]) == (1, 1, 1, None)
    assert lake.pointers(MAIN) == before
    said = cascade("quarantine", "replay", "raw.guests", "--from", str(file), "--json")
    done = json.loads(said.out)
    assert (said.code, done["loaded"], done["failed"], done["left"]) == (0, 1, [], 1), said
    assert done["report"]["promotion"]["tables"] == ["quarantine.raw__guests", "raw.guests"]
    assert done["stale"] == ["tables"]
    assert "host" in [asset["asset"] for asset in done["report"]["assets"]]
    assert [row for row in _main(lake) if row["id"] == 2] == [{"id": 2, "age": 13, "_cascade_partition": "2024-01-02"}]
    assert [row["partition"] for row in _main(lake, "quarantine.raw__guests")] == ["2024-01-01"]
    said = cascade("quarantine", "replay", "raw.guests", "--from", str(file))
    assert (said.code, len(_main(lake))) == (2, 3), said
    assert "none of the 1 rows of bad.jsonl is in quarantine" in said.err
    assert "_cascade_id" not in said.err


def test_rows_are_dropped_on_a_branch_that_is_promoted(cascade: Command, lake: BranchingCatalog) -> None:
    before, branches = lake.pointers(MAIN), _branches(lake)
    said = cascade("quarantine", "drop", "raw.guests", "--partition", "2024-01-01")
    assert (said.code, "say --yes" in said.err, lake.pointers(MAIN)) == (2, True, before)
    said = cascade("quarantine", "drop", "raw.guests", "--partition", "2024-01-01", "--dry-run", "--json")
    assert json.loads(said.out) == {"table": "raw.guests", "rows": 1, "left": 1, "move": None}
    said = cascade("quarantine", "drop", "raw.guests", "--partition", "2024-01-01", "--yes", "--json")
    done = json.loads(said.out)
    assert (done["rows"], done["left"], done["move"]["tables"]) == (1, 1, ["quarantine.raw__guests"])
    assert [row["partition"] for row in _main(lake, "quarantine.raw__guests")] == ["2024-01-02"]
    assert lake.pointers(MAIN)["raw.guests"] == before["raw.guests"]
    assert cascade("quarantine", "drop", "quarantine.raw__guests", "--yes").code == 0
    assert (_main(lake, "quarantine.raw__guests"), _branches(lake)) == ([], branches)
    said = cascade("quarantine", "drop", "raw.guests", "--yes")
    assert (said.code, "There is nothing to do" in said.err) == (2, True)


_AT = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
REFUSED = {
    "raw.gusts": "the tables with such rows are: raw.guests, raw.old",
    "raw.old": "No asset of this project loads raw.old.",
    "raw.guests --partition 2024-02-01": "partitions 2024-01-01, 2024-01-02",
    "raw.guests --run zzz": "no row is the one that was asked for",
    "raw.guests --from nowhere.csv": "nowhere.csv",
}


def test_what_cannot_be_loaded_again_is_refused(cascade: Command, lake: BranchingCatalog) -> None:
    promoted(lake, "raw.old", numbers(1, 1))
    put(lake, "setup", "quarantine.raw__old", [{"row": "{}", "reasons": ["x"], "_cascade_ingested_at": _AT}])
    lake.merge("setup")
    before = lake.pointers(MAIN)
    for command, problem in REFUSED.items():
        said = cascade("quarantine", "replay", *command.split())
        assert (said.code, problem in said.err) == (2, True), (command, said)
    assert lake.pointers(MAIN) == before
