"""The promises of `cascade schema plan` and `apply`: a plan that asks, a run through the gate.

Modules: `cascade_cli.schema`, `cascade_operations.schema`.
"""

import json
from pathlib import Path

import pytest

from cascade.catalog import MAIN, BranchingCatalog, open_catalog
from cascade.config import Settings
from support.lakes import promoted
from support.projects import Command, make_project

_WORKFLOW = '''\
"""A table, a check of it, and an asset that depends on it."""

import dagster as dg
import pandera.polars as pa
from cascade import Lakehouse
from cascade.ingestion import cascade_ingestion
from cascade.quality import cascade_quality, not_null


class Guests(pa.DataFrameModel):
    """Who is expected."""

    id: int
    name: str
    age: int

    class Config:
        """No other columns."""

        strict = True


@cascade_ingestion(partitions="none", unique_key="id", validation_schema=Guests, max_retries=0)
def guests():
    """A guest."""
    return [{"id": 1, "name": "Ada", "age": 20}]


@cascade_quality(asset="raw.guests", checks=[not_null("id")])
def named():
    """Everybody has an id."""


@dg.asset(deps=[guests])
def names(lakehouse: dg.ResourceParam[Lakehouse]) -> None:
    """Reads the name."""
    lakehouse.query("select name from raw.guests")
'''


@pytest.fixture
def cascade(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BranchingCatalog:
    """A project whose contract calls a column `name` that its table calls `title`, and has no `note`."""
    root = make_project(tmp_path / "project", {"workflows/guests.py": _WORKFLOW})
    monkeypatch.chdir(root)
    lake = open_catalog(Settings(project_dir=root))
    promoted(
        lake, "raw.guests", [{"id": 1, "title": "Ada", "age": 20, "note": "old"}], properties={"cascade.key": '["id"]'}
    )
    return lake


def test_a_change_is_asked_for_planned_and_promoted(cascade: Command, lake: BranchingCatalog) -> None:
    before = lake.pointers(MAIN)
    said = cascade("schema", "plan", "raw.guests")
    assert said.code == 3, said
    assert "--rename title=name or --drop title" in said.out
    said = cascade("schema", "apply", "raw.guests", "--rename", "title=name")
    assert (said.code, lake.pointers(MAIN)) == (2, before)
    assert "note: the contract does not have it: --drop note" in said.err
    decided = ("raw.guests", "--rename", "title=name", "--drop", "note")
    said = cascade("schema", "plan", *decided, "--json")
    (plan,) = json.loads(said.out)
    assert (said.code, plan["undecided"], lake.pointers(MAIN)) == (0, 0, before)
    assert [(step["action"], step["column"]) for step in plan["steps"]] == [("rename", "title"), ("drop", "note")]
    said = cascade("schema", "apply", *decided, "--json")
    done = json.loads(said.out)
    assert said.code == 0, said
    assert done["report"]["promotion"]["tables"] == ["raw.guests"]
    assert "names" in [asset["asset"] for asset in done["report"]["assets"]]
    table = lake.load("raw.guests", lake.pointers(MAIN)["raw.guests"])
    assert [f.name for f in table.schema().fields] == ["id", "name", "age"]
    said = cascade("schema", "plan", "--all")
    assert (said.code, said.out) == (0, "raw.guests has the columns of its contract.\n")
    after = lake.pointers(MAIN)
    assert cascade("schema", "apply", "raw.guests").code == 0
    assert lake.pointers(MAIN) == after


def test_what_depends_on_an_old_name_keeps_the_change_from_main(cascade: Command, lake: BranchingCatalog) -> None:
    promoted(lake, "raw.guests", [{"id": 1, "name": "Ada", "age": 20}], mode="replace", exact=True)
    workflow = Path("workflows/guests.py")
    workflow.write_text(workflow.read_text().replace("    name: str\n", "    called: str\n"))
    before = lake.pointers(MAIN)
    said = cascade("schema", "apply", "raw.guests", "--rename", "name=called")
    assert (said.code, lake.pointers(MAIN)) == (1, before), said
    assert "names" in said.err


REFUSED = {
    "plan": "A table, or --all, has to be named.",
    "plan raw.nothing": "No asset of this project loads raw.nothing.",
    "plan --all --drop note": "for one table",
    "plan raw.guests --rename title": "--rename title does not say what becomes what.",
    "apply raw.guests --drop id": "id cannot be dropped: the contract has it",
}


def test_what_cannot_be_done_is_refused_in_words(cascade: Command, lake: BranchingCatalog) -> None:
    before = lake.pointers(MAIN)
    for command, problem in REFUSED.items():
        said = cascade("schema", *command.split())
        assert (said.code, problem in said.err) == (2, True), (command, said)
    assert lake.pointers(MAIN) == before
