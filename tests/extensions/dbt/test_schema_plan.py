"""The promises of `cascade schema plan` and `cascade plan` over models: what the next run does to columns of `main`.

The first makes the tables without rows, by dbt; the second must say the same without it.

Modules: `cascade_operations.schema`, `cascade_operations.run`, `cascade_operations.columns`, `cascade_project.asking`,
`cascade_project.columns`.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cascade.catalog import MAIN, open_catalog
from cascade.config import Settings
from cascade.errors import TransformError, UsageError
from cascade_operations import plan_run, plan_schema, run_pipeline
from cascade_operations.planned import PlannedAsset
from support.dbt import dbt_project
from support.lakes import settings_in
from support.projects import make_project

pytestmark = pytest.mark.on_servers("nessie", shared=True)

WORKFLOW = '''\
"""What happened."""

from cascade.ingestion import cascade_ingestion


@cascade_ingestion(unique_key="id", partitions="none")
def events():
    return [{"id": 1, "name": "a", "v": 1}]
'''
SYNC = "{{ config(materialized='incremental', unique_key='id', on_schema_change='sync_all_columns') }} "
FAIL = SYNC.replace("sync_all_columns", "fail")
EVENTS = "from {{ source('raw', 'events') }}"

# Each model, as `main` has it and as it is now; and what becomes of its columns.
MODELS: dict[str, tuple[str, str, list[tuple[str, str]]]] = {
    "kept": (f"select id, name {EVENTS}", f"select id, name {EVENTS}", []),
    "retyped": ("select v from {{ ref('retypes') }}", "", [("retype", "v")]),
    "said_otherwise": (f"select id {EVENTS}", f"select id {EVENTS} where id > 0", []),
    "renames": (
        f"select id, name {EVENTS}",
        f"select id, name as title {EVENTS}",
        [("drop", "name"), ("add", "title")],
    ),
    "follows": ("select * from {{ ref('renames') }}", "", [("drop", "name"), ("add", "title")]),
    "retypes": (f"select id, v {EVENTS}", f"select id, cast(v as varchar) as v {EVENTS}", [("retype", "v")]),
    "in_step": (SYNC + f"select id, name {EVENTS}", SYNC + f"select id, v {EVENTS}", [("drop", "name"), ("add", "v")]),
    # The default would give the column another type.
    "varies": (
        f"select {{{{ var('shown', 'id') }}}} as shown {EVENTS}",
        f"select id, {{{{ var('shown', 'id') }}}} as shown {EVENTS}",
        [("add", "id")],
    ),
    "forbids": (FAIL + f"select id, name {EVENTS}", FAIL + f"select id, name {EVENTS}", []),
}
ROOT = "transforms/dbt/models"
FILES = {
    "workflows/shop.py": WORKFLOW,
    "transforms/dbt/dbt_project.yml": dbt_project(
        "models: { shop: { +materialized: table, +schema: silver } }\n"
        "seeds: { shop: { +schema: files } }\nsnapshots: { shop: { +schema: files } }\n"
        "vars: { shop: { shown: name } }\n"
    ),
    "transforms/dbt/seeds/shops.csv": "id,name\n1,north\n",
    "transforms/dbt/snapshots/past_shops.sql": "{% snapshot past_shops %}\n"
    "{{ config(unique_key='id', strategy='check', check_cols='all') }}\nselect * from {{ ref('shops') }}\n"
    "{% endsnapshot %}\n",
    f"{ROOT}/sources.yml": "sources: [{ name: raw, tables: [{ name: events }] }]\n"
    # A test of the data says nothing of a table without rows, and must not stop what is below it.
    "models: [{ name: renames, data_tests: [{ dbt_utils_at_least_one: {} }] }]\n",
    "transforms/dbt/tests/v_is_positive.sql": "select id from {{ ref('retypes') }} where cast(v as integer) < 0",
    "transforms/dbt/macros/tests.sql": "{% test dbt_utils_at_least_one(model) %}"
    "select n from (select count(*) as n from {{ model }}) as counted where n = 0{% endtest %}",
    **{f"{ROOT}/{name}.sql": before for name, (before, _, _) in MODELS.items()},
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="AssetExecutionContext")  # what dagster-dbt still uses
        yield


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A project whose models have changed since `main` was made."""
    root = make_project(tmp_path_factory.mktemp("shop") / "project", FILES)
    settings = settings_in(root)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.chdir(root)
        done = run_pipeline(settings)
        assert done.success, done.failures
        for name, (_, now, _) in MODELS.items():
            if now:
                (root / ROOT / f"{name}.sql").write_text(now)
        yield settings


def test_a_plan_of_models_says_what_goes_what_comes_and_what_has_another_type(settings: Settings) -> None:
    catalog = open_catalog(settings)
    before = catalog.pointers(MAIN)
    plans = {plan.table: plan for plan in plan_schema(settings)}
    assert {step.action for step in plans.pop("raw.events").steps} == {"keep"}
    found = {name: [(step.action, step.column) for step in plan.steps] for name, plan in plans.items()}
    reached = {(name, step.column): step.reaches for name, plan in plans.items() for step in plan.steps if step.reaches}
    assert reached == {
        ("silver.renames", "name"): ("silver.follows.name",),
        ("silver.retypes", "v"): ("silver.retyped.v",),
    }
    models = {f"silver.{name}": steps for name, (_, _, steps) in MODELS.items()}
    assert found == {**models, "files.shops": [], "files.past_shops": []}
    assert (catalog.pointers(MAIN), [branch.name for branch in catalog.branches()]) == (before, [MAIN])


def test_the_first_run_of_a_project_breaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its source brings columns that nothing declares, and Cascade adds one; models that read them are no mistake."""
    loaded = {f"{ROOT}/loaded.sql": f"select id, name, _cascade_ingested_at {EVENTS}"}
    # A namespace of its own: on servers `main` has the tables of the other tests.
    project = {"transforms/dbt/dbt_project.yml": FILES["transforms/dbt/dbt_project.yml"].replace("files", "own")}
    root = make_project(tmp_path / "project", FILES | loaded | project)
    monkeypatch.chdir(root)
    plan = plan_run(settings_in(root))
    others = {"raw/events", "silver/loaded", "own/shops", "own/past_shops"}
    assert {asset.asset for asset in plan.assets} == {*others, *(f"silver/{m}" for m in MODELS)}
    assert (plan.breaking, {asset.problem for asset in plan.assets}) == (0, {""})


def planned(settings: Settings, namespace: str = "silver") -> dict[str, PlannedAsset]:
    """Return what a run would do with tables of a namespace."""
    return {asset.asset: asset for asset in plan_run(settings).assets if asset.asset.startswith(f"{namespace}/")}


def test_a_plan_of_a_run_says_the_same_without_dbt_and_why_and_for_whom_it_breaks(settings: Settings) -> None:
    catalog = open_catalog(settings)
    before = catalog.pointers(MAIN)
    plan = planned(settings)
    found = {name.partition("/")[2]: [(c.action, c.column) for c in asset.columns] for name, asset in plan.items()}
    assert found == {name: steps for name, (_, _, steps) in MODELS.items()}
    assert [asset.problem for asset in plan.values() if asset.problem] == []
    assert "its SQL changed" in plan["silver/renames"].why
    assert "the run makes silver.renames, which it reads" in plan["silver/follows"].why
    breaks = {(name, c.column): c.consumers for name, asset in plan.items() for c in asset.columns if c.breaking}
    assert breaks == {
        ("silver/renames", "name"): ("silver/follows",),
        ("silver/follows", "name"): (),
        ("silver/retypes", "v"): ("check v_is_positive", "silver/retyped"),
        ("silver/retyped", "v"): (),
        ("silver/in_step", "name"): (),
    }
    reached = {(name, c.column): c.reaches for name, asset in plan.items() for c in asset.columns if c.reaches}
    assert reached == {
        ("silver/renames", "name"): ("silver.follows.name",),
        ("silver/retypes", "v"): ("silver.retyped.v",),
    }
    assert (catalog.pointers(MAIN), [branch.name for branch in catalog.branches()]) == (before, [MAIN])


# What is written into a model's file, and what the plan says breaks.
BROKEN: dict[str, tuple[str, str, str]] = {
    "a column that is not there": ("kept", f"select id, naem {EVENTS}", "naem"),
    "a column that an incremental model gave up": ("forbids", FAIL + f"select id {EVENTS}", "its table has name"),
    "a new column that is forbidden": ("forbids", FAIL + f"select id, name, v {EVENTS}", "the new column v"),
}


@pytest.mark.parametrize(("model", "sql", "problem"), BROKEN.values(), ids=BROKEN)
def test_a_run_that_would_fail_at_a_model_says_so_before(
    model: str, sql: str, problem: str, settings: Settings
) -> None:
    file = Path(settings.dbt_path) / f"models/{model}.sql"
    before = file.read_text()
    file.write_text(sql)
    try:
        asset = planned(settings)[f"silver/{model}"]
    finally:
        file.write_text(before)
    assert problem in asset.problem
    assert (asset.columns_known, asset.breaking) == (True, True)


def test_the_file_of_a_seed_is_read_and_a_snapshot_of_it_keeps_what_vanishes(settings: Settings) -> None:
    file = Path(settings.dbt_path) / "seeds/shops.csv"
    before = file.read_text()
    try:
        file.write_text("id,city\n007,Lelystad\n")
        plan = planned(settings, "files")
        file.write_text("id,name\n1\n")
        torn = planned(settings, "files")["files/shops"]
    finally:
        file.write_text(before)
    found = {name: [(c.action, c.column, c.consumers) for c in asset.columns] for name, asset in plan.items()}
    assert found == {
        "files/shops": [
            ("retype", "id", ("files/past_shops",)),
            ("drop", "name", ("files/past_shops",)),
            ("add", "city", ()),
        ],
        "files/past_shops": [("add", "city", ())],
    }
    assert "its file changed" in plan["files/shops"].why
    assert (torn.breaking, torn.problem) == (True, "line 2 has 1 columns, and the header 2")


def test_models_that_cannot_be_made_are_refused_in_dbt_s_words(settings: Settings) -> None:
    file = Path(settings.dbt_path) / "models/forbids.sql"
    before = file.read_text()
    file.write_text(FAIL + f"select id {EVENTS}")
    try:
        with pytest.raises(TransformError, match=r"cannot be made as their models are now(.|\n)*name"):
            plan_schema(settings, ["silver.forbids"])
    finally:
        file.write_text(before)
    assert [branch.name for branch in open_catalog(settings).branches()] == [MAIN]


def test_a_decision_about_a_model_is_refused(settings: Settings) -> None:
    options: dict[str, Any] = {"drop": ["name"]}
    with pytest.raises(UsageError, match="A model decides about its columns itself"):
        plan_schema(settings, ["silver.renames"], **options)
