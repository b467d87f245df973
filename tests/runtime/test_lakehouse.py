"""The promises of `cascade.lakehouse`: which branch a run writes to, and what it sees of it."""

from pathlib import Path

import dagster as dg
import pytest
from pyiceberg.exceptions import NoSuchTableError

import cascade
from cascade.catalog import MAIN
from cascade.config import Settings, hand_on
from cascade.errors import BranchNotFoundError, CatalogError
from cascade.lakehouse import Lakehouse, branch_of_run
from cascade.names import BRANCH_TAG, is_run_branch
from cascade.testing import TemporaryLakehouse
from support.lakes import numbers, promoted, put, settings_in

pytestmark = pytest.mark.on_servers("nessie")

RUN = "0a1b2c3d-4444-4555-8666-777788889999"
ROOT = "9f8e7d6c-4444-4555-8666-777788889999"
BACKFILL = "dagster/backfill"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


def _run(job: str, root: str | None, **tags: str) -> dg.DagsterRun:
    names = {"branch": BRANCH_TAG, "backfill": BACKFILL}
    return dg.DagsterRun(
        job_name=job,
        run_id=RUN,
        root_run_id=root,
        parent_run_id=root,
        tags={names[name]: value for name, value in tags.items()},
    )


RULES: dict[str, tuple[dg.DagsterRun, str]] = {
    "job": (_run("nightly", None), "run-0a1b2c3d"),
    "job_again": (_run("nightly", ROOT), "run-9f8e7d6c"),
    "bare": (_run("__ASSET_JOB", None), "dev"),
    "bare_numbered": (_run("__ASSET_JOB_3", None), "dev"),
    "bare_again": (_run("__ASSET_JOB", ROOT), "dev"),
    "backfill": (_run("nightly", None, backfill="abcdefgh"), "run-abcdefgh"),
    "bare_backfill": (_run("__ASSET_JOB", None, backfill="abcdefgh"), "run-abcdefgh"),
    "backfill_again": (_run("nightly", ROOT, backfill="abcdefgh"), "run-abcdefgh"),
    "tag": (_run("nightly", None, branch="fix"), "fix"),
    "tag_beats_backfill": (_run("nightly", None, branch="fix", backfill="abcdefgh"), "fix"),
    "tag_beats_bare": (_run("__ASSET_JOB", ROOT, branch="fix"), "fix"),
}


@pytest.mark.parametrize(("run", "branch"), RULES.values(), ids=RULES.keys())
def test_the_branch_of_a_run_follows_from_its_record(run: dg.DagsterRun, branch: str, settings: Settings) -> None:
    assert branch_of_run(run, settings) == branch


def test_the_setting_names_the_branch_of_bare_materializations(tmp_path: Path) -> None:
    settings = Settings(project_dir=tmp_path, branch="ada")
    assert branch_of_run(_run("__ASSET_JOB", None), settings) == "ada"


@pytest.mark.parametrize("name", ["../../x", "main/../x", ""])
def test_a_tag_that_is_no_name_is_refused(name: str, settings: Settings) -> None:
    run = _run("nightly", None, branch=name)
    if name:
        with pytest.raises(CatalogError, match="is not a name"):
            branch_of_run(run, settings)
    else:
        assert branch_of_run(run, settings) == "run-0a1b2c3d"


@pytest.mark.parametrize(("name", "ends"), [("run-0a1b2c3d", True), ("dev", False), ("rerun-x", False)])
def test_branches_of_runs_are_told_by_their_name(name: str, ends: bool) -> None:
    assert is_run_branch(name) is ends


def test_a_branch_is_made_by_the_first_write_and_main_is_read_until_then(settings: Settings) -> None:
    lakehouse = Lakehouse(settings, "fix")
    promoted(lakehouse.catalog, "raw.a", numbers(1, 2))
    assert (lakehouse.ref, lakehouse.query("SELECT count(*) AS n FROM raw.a").to_pylist()) == (MAIN, [{"n": 2}])
    assert len(lakehouse.table("raw.a").scan().to_arrow()) == 2
    assert not lakehouse.catalog.exists("fix")
    lakehouse.ensure_branch()
    assert lakehouse.ref == "fix"


def test_everything_is_seen_as_the_branch_has_it(settings: Settings) -> None:
    lakehouse = Lakehouse(settings, "fix")
    promoted(lakehouse.catalog, "raw.a", numbers(1, 2))
    result = put(lakehouse.catalog, "fix", "raw.b", numbers(1, 3))
    assert lakehouse.tables() == ["raw.a", "raw.b"]
    assert (lakehouse.head("raw.b"), lakehouse.row_count("raw.b")) == (result.snapshot_id, 3)
    assert lakehouse.query("SELECT CAST(sum(id) AS bigint) AS s FROM raw.b").to_pylist() == [{"s": 6}]


def test_a_table_of_the_branch_takes_commits(settings: Settings) -> None:
    lakehouse = Lakehouse(settings, "fix")
    put(lakehouse.catalog, "fix", "raw.a", numbers(1, 1))
    lakehouse.table("raw.a").transaction().set_properties(owner="ada").commit_transaction()
    assert lakehouse.table("raw.a").properties["owner"] == "ada"


def test_a_table_that_does_not_exist_has_no_head_and_no_rows(settings: Settings) -> None:
    lakehouse = Lakehouse(settings, "fix")
    assert (lakehouse.head("raw.nope"), lakehouse.row_count("raw.nope")) == (None, None)
    with pytest.raises(NoSuchTableError):
        lakehouse.table("raw.nope")


def test_a_lakehouse_on_main_reads_and_makes_no_branch(settings: Settings) -> None:
    lakehouse = Lakehouse(settings, MAIN)
    promoted(lakehouse.catalog, "raw.a", numbers(1, 1))
    assert lakehouse.ensure_branch() == MAIN
    assert lakehouse.query("SELECT id FROM raw.a WHERE id = ?", parameters=[1]).to_pylist() == [{"id": 1}]


def test_a_branch_deleted_under_a_run_fails_it_instead_of_coming_back_empty(settings: Settings) -> None:
    lakehouse = Lakehouse(settings, "run-1a2b3c4d")
    put(lakehouse.catalog, lakehouse.ensure_branch(), "raw.a", numbers(1, 1))
    lakehouse.catalog.delete("run-1a2b3c4d")
    for work in (lakehouse.ensure_branch, lakehouse.tables, lambda: lakehouse.query("SELECT 1")):
        with pytest.raises(BranchNotFoundError, match="was deleted while it was in use"):
            work()
    assert not lakehouse.catalog.exists("run-1a2b3c4d")


def test_a_branch_that_ended_with_its_promotion_is_read_on_main(settings: Settings) -> None:
    lakehouse = Lakehouse(settings, "run-1a2b3c4d")
    put(lakehouse.catalog, lakehouse.ensure_branch(), "raw.a", numbers(1, 1))
    lakehouse.catalog.merge("run-1a2b3c4d")
    lakehouse.catalog.delete("run-1a2b3c4d")
    lakehouse.forget_branch()
    assert (lakehouse.ref, lakehouse.tables()) == (MAIN, ["raw.a"])


def test_a_notebook_opens_the_lakehouse_of_the_folder_it_lies_in_and_reads(settings: Settings) -> None:
    root, catalog = settings.project_dir, Lakehouse(settings, MAIN).catalog
    promoted(catalog, "raw.a", numbers(1, 1))
    catalog.tag("for-notebooks")  # Trino has kept what a test before called v1
    (root / "pyproject.toml").write_text("[tool.cascade]\n")
    (root / "cascade.yaml").write_text(hand_on(settings))
    (root / "notebooks").mkdir()
    for branch in (MAIN, "for-notebooks"):
        lake = cascade.open(branch, project=root / "notebooks")
        assert lake.tables() == ["raw.a"]
        assert lake.query("SELECT id FROM raw.a").to_pylist() == [{"id": 1}]
        with pytest.raises(CatalogError):
            lake.table("raw.a").append(lake.table("raw.a").scan().to_arrow())
    with pytest.raises(BranchNotFoundError, match="no branch or tag `v2`"):
        cascade.open("v2", project=root)


def test_a_users_test_stays_in_its_folder_whatever_the_project_runs_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "ENGINE": "trino",
        "WAREHOUSE": "s3://everybody/s",
        "CATALOG_URL": "postgresql://ada:guess@nowhere.invalid/cascade",
        "MARTS_URL": "postgresql://ada:guess@nowhere.invalid/marts",
    }.items():
        monkeypatch.setenv(f"CASCADE_{name}", value)
    lake = TemporaryLakehouse(tmp_path, project_dir=tmp_path)
    put(lake.lakehouse.catalog, "test", "raw.a", [{"id": 1}])
    assert lake.query("SELECT id FROM raw.a") == [{"id": 1}]
    assert list((tmp_path / "lake").rglob("*.parquet"))
