"""The promises of `cascade_dbt`: one real dbt project, every model an Iceberg table on the run's branch.

Each dbt process costs seconds: the models run three times for the whole module, and every test looks at what that left.
On servers dbt runs on Trino.

Modules: `cascade_dbt.dagster_dbt`, `cascade_dbt.models`.
"""

import datetime as dt
import errno
import json
import os
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from filelock import FileLock

from cascade.catalog import MAIN
from cascade.config import Settings
from cascade.errors import TransformError
from cascade.lakehouse import Lakehouse
from cascade.names import BRANCH_METADATA, BRANCH_TAG, FULL_REFRESH_TAG, SNAPSHOT_METADATA
from cascade_dbt.assets import build_dbt_assets
from cascade_dbt.project import dbt_environment, parse_project, start_parsing
from cascade_operations.failures import error_text
from support.dbt import dbt_project
from support.file_operations import watched
from support.generated import odd_folder
from support.lakes import Rows, put, read, settings_in

pytestmark = pytest.mark.on_servers("nessie", shared=True)

PROJECT = dbt_project("""\
models: { shop: { +schema: silver } }
""")
SOURCES = """\
sources:
  - name: raw
    tables:
      - name: events
        columns: [{ name: id, data_tests: [unique] }]
models:
  - name: as_table
    description: What happened.
    columns: [{ name: id, data_tests: [not_null] }]
  - name: labelled
    columns:
      - name: label
        data_tests: [{ accepted_values: { arguments: { values: [one] }, config: { severity: warn } } }]
  - name: failing
    columns: [{ name: id, data_tests: [{ accepted_values: { arguments: { values: [1, 2], quote: false } } }] }]
unit_tests:
  - name: doubles
    model: as_view
    given: [{ input: ref('as_table'), rows: [{ id: 21 }] }]
    expect: { rows: [{ id: 42 }] }
"""
# Microbatches end with the present.
THIS_YEAR = dt.datetime(dt.datetime.now(dt.UTC).year, 1, 1, tzinfo=dt.UTC)
EVENTS = "select * from {{ source('raw', 'events') }}"
NEW = "{% if is_incremental() %} where id > (select max(id) from {{ this }}) {% endif %}"
MODELS = {
    "as_table": "{{ config(materialized='table', event_time='seen') }} " + EVENTS,
    "as_view": "{{ config(materialized='view') }} select id * 2 as id from {{ ref('as_table') }}",
    "merged": "{{ config(materialized='incremental', unique_key='id') }} select id, name from {{ ref('as_table') }}",
    "appended": "{{ config(materialized='incremental', incremental_strategy='append') }}"
    f" select id from {{{{ ref('as_table') }}}} {NEW}",
    "refreshed": "{{ config(materialized='incremental', incremental_strategy='append', full_refresh=true) }}"
    " select id from {{ ref('as_table') }}",
    "never_refreshed": "{{ config(materialized='incremental', incremental_strategy='append', full_refresh=false) }}"
    " select id from {{ ref('as_table') }}",
    "yearly": "{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='seen',"
    f" batch_size='year', begin='{THIS_YEAR:%Y-%m-%d}', lookback=1) }}}}"
    " select id, seen from {{ ref('as_table') }}",
    "ignoring": "{{ config(materialized='incremental', unique_key='id', on_schema_change='ignore') }} " + EVENTS,
    "adding": "{{ config(materialized='incremental', unique_key='id', on_schema_change='append_new_columns') }} "
    + EVENTS,
    "syncing": "{{ config(materialized='incremental', unique_key='id', on_schema_change='sync_all_columns') }} "
    "select id, seen, {% if is_incremental() %} extra {% else %} 'x' as gone {% endif %} from {{ ref('as_table') }}",
    "strict": "{{ config(materialized='incremental', unique_key='id', on_schema_change='fail') }} " + EVENTS,
    "failing": "{{ config(materialized='table') }} select id from {{ ref('as_table') }}",
    "labelled": "{{ config(materialized='table') }} select e.id, l.label from {{ ref('as_table') }} as e"
    " join {{ ref('labels') }} as l on l.id = e.id",
}


def events(*ids: int, name: str = "old", **more: Any) -> Rows:
    return [{"id": n, "name": name, "seen": THIS_YEAR + dt.timedelta(hours=n), **more} for n in ids]


@dataclass
class Shop:
    """A dbt project that ran."""

    settings: Settings
    lakehouse: Lakehouse
    instance: dg.DagsterInstance
    results: list[dg.ExecuteInProcessResult] = field(default_factory=list)

    def run(self, lakehouse: Lakehouse | None = None, *assets: str, **tags: str) -> None:
        lakehouse = lakehouse or self.lakehouse
        manifest = parse_project(self.settings)
        assert manifest is not None
        asset = build_dbt_assets(self.settings, manifest)
        assert asset is not None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="AssetExecutionContext")  # what dagster-dbt still uses
            result = dg.materialize(
                [asset],
                instance=self.instance,
                selection=[dg.AssetKey(name.split(".")) for name in assets] or None,
                resources={"lakehouse": lakehouse},
                tags={BRANCH_TAG: lakehouse.branch, **tags},
                raise_on_error=False,
            )
        self.results.append(result)

    def snapshots(self, table: str) -> int:
        return len(self.lakehouse.table(table).snapshots())

    def rows(self, table: str) -> Rows:
        return read(self.lakehouse.catalog, "fix", table)

    def checks(self, run: int) -> dict[str, bool]:
        return {e.check_name: e.passed for e in self.results[run].get_asset_check_evaluations()}


def write_project(folder: Path) -> Settings:
    settings = settings_in(folder)
    for place, text in {
        "pyproject.toml": "[tool.cascade]\n",
        "transforms/dbt/dbt_project.yml": PROJECT,
        "transforms/dbt/models/schema.yml": SOURCES,
        "transforms/dbt/seeds/labels.csv": 'id,label\n1,one\n2,"t,wo"\n',
        **{f"transforms/dbt/models/{name}.sql": sql for name, sql in MODELS.items()},
    }.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return settings


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The project after two runs: the second one with changed rows and a new column."""
    folder = odd_folder(tmp_path_factory.mktemp("shop"))
    settings = write_project(folder)
    (folder / "dagster").mkdir()
    instance = dg.DagsterInstance.ephemeral(tempdir=str(folder / "dagster"))
    found = Shop(settings, Lakehouse(settings, "fix"), instance)
    lake = found.lakehouse.catalog
    put(lake, "fix", "raw.events", events(1, 2))
    found.run()
    put(lake, "fix", "raw.events", events(2, 3, 30, name="new", extra=7), "merge", key=["id"])
    found.run()
    return found


def test_models_and_seeds_are_tables_of_the_run_s_branch(shop: Shop) -> None:
    lake = shop.lakehouse.catalog
    assert set(lake.pointers("fix")) == {"raw.events", "raw.labels", *(f"silver.{name}" for name in MODELS)}
    assert lake.pointers(MAIN) == {}


def test_the_first_run_succeeds_with_all_tests_as_checks(shop: Shop) -> None:
    assert shop.results[0].success
    assert len(shop.checks(0)) == 4
    assert [name for name, passed in shop.checks(0).items() if not passed] == ["accepted_values_labelled_label__one"]


def test_asset_keys_are_namespace_and_table(shop: Shop) -> None:
    keys = {m.asset_key for m in shop.results[0].asset_materializations_for_node("dbt")}
    assert {dg.AssetKey(["silver", "as_table"]), dg.AssetKey(["raw", "labels"])} <= keys


def test_each_materialization_says_which_snapshot_of_which_branch_it_made(shop: Shop) -> None:
    first = {m.asset_key.path[-1]: m.metadata for m in shop.results[0].asset_materializations_for_node("dbt")}
    snapshot = min(shop.lakehouse.table("silver.as_table").snapshots(), key=lambda s: s.timestamp_ms)
    assert first["as_table"][SNAPSHOT_METADATA].value == str(snapshot.snapshot_id)
    assert first["as_table"][BRANCH_METADATA].value == "fix"
    assert first["as_table"]["dagster/row_count"].value == 2


def test_each_materialization_says_what_each_column_is_computed_from(shop: Shop) -> None:
    """Through views, batches of time, and reads of the model's own table; a seed is computed from nothing."""
    expected = {
        "as_table": {"id": ["raw.events.id"], "name": ["raw.events.name"], "seen": ["raw.events.seen"]},
        "as_view": {"id": ["silver.as_table.id"]},
        "yearly": {"id": ["silver.as_table.id"], "seen": ["silver.as_table.seen"]},
        "appended": {"id": ["silver.as_table.id"]},
        "labelled": {"id": ["silver.as_table.id"], "label": ["raw.labels.label"]},
    }
    for result in shop.results[:2]:
        told = {m.asset_key.path[-1]: m.metadata for m in result.asset_materializations_for_node("dbt")}
        for model, columns in expected.items():
            lineage = told[model]["dagster/column_lineage"].value.deps_by_column
            found = {
                column: [".".join([*dep.asset_key.path, dep.column_name]) for dep in deps]
                for column, deps in lineage.items()
            }
            assert found.items() >= columns.items()
        assert told["labels"].keys().isdisjoint({"dagster/column_lineage", "no_column_lineage"})


def test_events_carry_names_that_are_those_of_all_tables(shop: Shop) -> None:
    """Numbers that Dagster draws over time have one name for all; ids of dbt's own say nothing on a page."""
    said = [m.metadata for m in shop.results[0].asset_materializations_for_node("dbt")]
    assert all(isinstance(m["total_seconds"].value, float) for m in said)
    assert {m["dagster/table_name"].value for m in said} >= {"silver.as_table", "raw.labels"}
    uri = next(m["dagster/uri"].value for m in said if m["dagster/table_name"].value == "silver.as_table")
    assert uri == shop.lakehouse.table("silver.as_table").location()
    checks = [e.metadata for e in shop.results[0].get_asset_check_evaluations()]
    assert all("failing_rows" in m for m in checks if "unit" not in str(m))
    noise = {"unique_id", "invocation_id", "status", "Execution Duration", "dagster_dbt/failed_row_count"}
    assert all(noise.isdisjoint(m) for m in [*said, *checks])


def test_each_check_says_which_snapshot_it_looked_at(shop: Shop) -> None:
    assert all(SNAPSHOT_METADATA in e.metadata for e in shop.results[0].get_asset_check_evaluations())


def test_a_table_is_replaced_with_the_columns_it_has_now(shop: Shop) -> None:
    assert [(row["id"], row["name"], row["extra"]) for row in shop.rows("silver.as_table")] == [
        (1, "old", None),
        (2, "new", 7),
        (3, "new", 7),
        (30, "new", 7),
    ]
    assert shop.snapshots("silver.as_table") == 2


def test_a_view_is_a_table_that_each_run_replaces(shop: Shop) -> None:
    assert [row["id"] for row in shop.rows("silver.as_view")] == [2, 4, 6, 60]


def test_an_incremental_model_with_a_key_is_merged(shop: Shop) -> None:
    assert [(row["id"], row["name"]) for row in shop.rows("silver.merged")] == [
        (1, "old"),
        (2, "new"),
        (3, "new"),
        (30, "new"),
    ]


def test_an_incremental_model_knows_that_its_table_exists(shop: Shop) -> None:
    assert [row["id"] for row in shop.rows("silver.appended")] == [1, 2, 3, 30]


def test_a_full_refresh_begins_anew(shop: Shop) -> None:
    assert [row["id"] for row in shop.rows("silver.refreshed")] == [1, 2, 3, 30]


def test_a_microbatch_replaces_its_own_slices(shop: Shop) -> None:
    assert [(row["id"], row["seen"]) for row in shop.rows("silver.yearly")] == [
        (n, THIS_YEAR + dt.timedelta(hours=n)) for n in (1, 2, 3, 30)
    ]


def test_a_seed_is_a_table_with_what_its_file_says(shop: Shop) -> None:
    assert shop.rows("raw.labels") == [{"id": 1, "label": "one"}, {"id": 2, "label": "t,wo"}]
    assert [row["label"] for row in shop.rows("silver.labelled")] == ["one", "t,wo"]


def test_on_schema_change_decides_over_new_columns(shop: Shop) -> None:
    columns = {n: [f.name for f in shop.lakehouse.table(f"silver.{n}").schema().fields] for n in MODELS}
    assert "extra" not in columns["ignoring"]
    assert "extra" in columns["adding"]
    assert sorted(columns["syncing"]) == ["extra", "id", "seen"]


def test_a_run_with_the_tag_makes_tables_of_incremental_models_anew(shop: Shop) -> None:
    """It is what `cascade run --full-refresh` sets, and what somebody sets in Dagster's UI."""
    shop.lakehouse.catalog.create("again", "fix")
    again = Lakehouse(shop.settings, "again")
    shop.run(again, "silver.syncing", "silver.never_refreshed", **{FULL_REFRESH_TAG: "true"})
    assert shop.results[-1].success
    assert len(read(again.catalog, "again", "silver.never_refreshed")) == 2 + 4 + 4
    assert [f.name for f in again.table("silver.syncing").schema().fields] == ["id", "seen", "gone"]


def test_a_model_that_forbids_changed_columns_fails_and_keeps_its_rows(shop: Shop) -> None:
    assert not shop.results[1].success
    assert [row["name"] for row in shop.rows("silver.strict")] == ["old", "old"]
    assert shop.snapshots("silver.strict") == 1


@pytest.mark.parametrize(
    "value",
    ["'12:00:00+05'::TIMETZ", "'101'::BIT", "1::VARIANT", "['101'::BIT]", "{'a': MAP {1: '12:00:00+05'::TIMETZ}}"],
)
def test_a_column_that_arrow_would_change_is_refused(value: str) -> None:
    from cascade_dbt.duckdb_plugin import arrow_rows

    with pytest.raises(TransformError, match=r"no type for these columns: `t` \("):
        arrow_rows(duckdb.sql(f"SELECT 1 AS id, {value} AS t"), "silver.t")


def test_a_failing_dbt_test_is_a_failed_check(shop: Shop) -> None:
    assert not shop.checks(1)["accepted_values_failing_id__False__1__2"]
    assert [e.severity for e in shop.results[1].get_asset_check_evaluations() if "failing" in e.check_name] == [
        dg.AssetCheckSeverity.ERROR
    ]


def test_a_test_that_warns_is_a_check_that_blocks_nothing(shop: Shop) -> None:
    (warned,) = [e for e in shop.results[0].get_asset_check_evaluations() if "labelled" in e.check_name]
    assert (warned.passed, warned.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_the_description_of_a_model_is_the_comment_of_its_table(shop: Shop) -> None:
    assert shop.lakehouse.table("silver.as_table").properties["comment"] == "What happened."


def test_each_model_is_one_snapshot_a_run(shop: Shop) -> None:
    assert {name: shop.snapshots(f"silver.{name}") for name in ("as_view", "merged", "appended")} == {
        "as_view": 2,
        "merged": 2,
        "appended": 2,
    }


def test_a_run_leaves_files_of_dbt_only_when_it_failed_and_its_message_names_them(shop: Shop) -> None:
    left = shop.settings.data_path / "dbt" / "runs" / shop.results[1].run_id
    assert list(left.parent.iterdir()) == [left]
    failure = next(e for e in shop.results[1].all_events if e.is_step_failure)
    assert str(left / "dbt.log") in str(failure.step_failure_data.error)
    assert (left / "dbt.log").is_file()
    said = error_text(failure.step_failure_data.error, shop.settings.project_dir)
    assert re.match(r"transforms/dbt/models/\S*strict.sql(:\d+)?: model strict: ", said)
    assert not [noise for noise in ("The dbt CLI process", "Dagster compute logs", "called by") if noise in said]
    assert sorted(p.name for p in shop.settings.dbt_path.iterdir()) == ["dbt_project.yml", "models", "seeds"]


# --- what the parser lets pass -----------------------------------------------------------------------------


def node(kind: str = "model", name: str = "x", code: str = "") -> dict[str, Any]:
    path = f"{kind}s/{name}.sql"
    return {"resource_type": kind, "name": name, "schema": "silver", "original_file_path": path, "raw_code": code}


MACROS = {
    "keep": {"package_name": "shop", "macro_sql": "{% macro keep() %}", "depends_on": {"macros": ["kept"]}},
    "kept": {"package_name": "more", "macro_sql": "{% macro kept() %} drop table t", "depends_on": {"macros": []}},
}


@pytest.mark.parametrize(
    ("nodes", "parents", "says"),
    [
        (
            {"a": node(name="one"), "b": node(name="two")},
            {"a": ["b"], "b": ["a"]},
            r"in a circle: models/(one|two)\.sql -> models/",
        ),
        ({"f": node("function", "twice")}, {}, r"The function twice would not be kept"),
        ({"m": node() | {"database": "other"}}, {}, r"x is in another database, other"),
        (
            {"h": node("operation", code="create table t as select 1")},
            {},
            r"A hook of x writes beside the lakehouse: create table t",
        ),
        (
            {"h": node("operation", code="{{ keep() }}") | {"depends_on": {"macros": ["keep"]}}},
            {},
            r"A hook of x writes beside the lakehouse: drop table t",
        ),
    ],
    ids=["circle", "function", "database", "hook", "hook of a macro"],
)
def test_what_dbt_parses_and_nobody_can_run_is_refused_by_name(
    nodes: dict[str, dict[str, Any]], parents: dict[str, list[str]], says: str, tmp_path: Path
) -> None:
    manifest = tmp_path / "manifest.json"
    parsed = {"nodes": nodes, "parent_map": parents, "macros": MACROS, "metadata": {"adapter_type": "duckdb"}}
    manifest.write_text(json.dumps(parsed))
    with pytest.raises(TransformError, match=says):
        build_dbt_assets(Settings(project_dir=tmp_path), manifest)


# --- parsing ----------------------------------------------------------------------------------------------


def test_what_has_not_changed_is_not_parsed_again(shop: Shop) -> None:
    manifest = shop.settings.data_path / "dbt" / "target" / "manifest.json"
    before = manifest.stat()
    assert parse_project(shop.settings) == manifest
    assert manifest.stat() == before


def _reads_the_manifest_until_a_file_changes(settings: Settings, manifest: Path) -> None:
    assert parse_project(settings) == manifest
    os.utime(settings.dbt_path / "dbt_project.yml")
    with pytest.raises(TransformError, match="cannot be kept: Read-only file system"):
        parse_project(settings)


def test_where_nothing_can_be_written_the_manifest_is_read_while_it_is_true(shop: Shop) -> None:
    target = shop.settings.data_path / "dbt" / "target"
    stamp = (shop.settings.dbt_path / "dbt_project.yml").stat()
    arguments = (shop.settings, target / "manifest.json")
    ended = watched(
        _reads_the_manifest_until_a_file_changes, *arguments, under=target, answer=lambda _o, _n: errno.EROFS
    )
    os.utime(shop.settings.dbt_path / "dbt_project.yml", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert ended.code == 0


def test_a_project_that_dbt_cannot_parse_is_a_transform_error_in_dbt_s_words(tmp_path: Path) -> None:
    settings = write_project(tmp_path)
    for name in ("broken", "torn"):  # dbt ends with the first one that it meets
        (settings.dbt_path / "models" / f"{name}.sql").write_text(f"select * from {{{{ ref('no_{name}') }}}}")
    with pytest.raises(
        TransformError,
        match=r"cannot parse the project: Compilation Error\n.*[\s\S]*'no_\w+' which was not found",
    ) as caught:
        parse_project(settings)
    assert all(caught.value.what.count(f"'no_{name}'") == 1 for name in ("broken", "torn"))
    assert caught.value.where == str(settings.dbt_path)


def test_a_file_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    settings = write_project(tmp_path)
    seed = settings.dbt_path / "seeds" / "latin.csv"
    seed.parent.mkdir(exist_ok=True)
    seed.write_bytes("id,t\n1,ü\n".encode("latin-1"))
    with pytest.raises(TransformError, match="not text in UTF-8") as caught:
        parse_project(settings)
    assert (caught.value.where, caught.value.fix) == (str(seed), "save the file as UTF-8.")


def test_parsing_that_nobody_waits_for_frees_its_lock_at_once(tmp_path: Path) -> None:
    """An import that raises in between must not make every other process wait."""
    settings = write_project(tmp_path)
    lock = FileLock(settings.data_path / "dbt" / "target" / "parse.lock")
    try:
        with start_parsing(settings):
            raise KeyboardInterrupt
    except KeyboardInterrupt as interrupted:
        kept = interrupted  # its traceback keeps every frame alive, as a debugger or a reporter of errors does
    with lock.acquire(blocking=False):
        assert kept.__traceback__


def test_a_project_without_dbt_has_no_manifest(tmp_path: Path) -> None:
    assert parse_project(Settings(project_dir=tmp_path)) is None


def test_dbt_s_environment_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASCADE_PROJECT_DIR", "before")
    before = dict(os.environ)
    with dbt_environment(Settings(project_dir=tmp_path), "fix"):
        assert (os.environ["CASCADE_RUN_BRANCH"], os.environ["CASCADE_PROJECT_DIR"]) == ("fix", str(tmp_path))
    assert dict(os.environ) == before
