"""The promises of `cascade_dbt.unchanged`: which models a run leaves out, and that none is left out in doubt.

One dbt project is run once and promoted; each test changes one thing of its manifest, of its files or of `main`, and
asks again. On servers the models were made by Trino.
"""

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from cascade.catalog import MAIN, BranchingCatalog
from cascade.config import Settings
from cascade.errors import TransformError
from cascade.lakehouse import Lakehouse
from cascade.names import BRANCH_TAG, MADE_FROM_PROPERTY
from cascade_dbt.assets import build_dbt_assets
from cascade_dbt.project import parse_project
from cascade_dbt.unchanged import judge, read_recipes, record
from cascade_maintain.compact import compact_tables
from support.dbt import dbt_project
from support.lakes import put, settings_in

pytestmark = pytest.mark.on_servers("nessie", shared=True)

FILES = {
    "dbt_project.yml": dbt_project("""\
vars: { greeting: hello }
models: { shop: { +schema: silver, +materialized: table } }
seeds: { shop: { +schema: raw } }
"""),
    "models/schema.yml": """\
sources: [{ name: raw, tables: [{ name: events }] }]
models: [{ name: first, description: What happened., columns: [{ name: id, description: Its number. }] }]
""",
    "macros/mine.sql": "{% macro outer() %}{{ inner() }}{% endmacro %}{% macro inner() %}1{% endmacro %}"
    "{% macro other() %}2{% endmacro %}",
    "seeds/labels.csv": "id,label\n1,one\n",
    "models/first.sql": "select id from {{ source('raw', 'events') }}",
    "models/second.sql": "select id from {{ ref('first') }}",
    "models/between.sql": "{{ config(materialized='ephemeral') }} select id from {{ ref('first') }}",
    "models/third.sql": "select id from {{ ref('between') }}",
    "models/labelled.sql": "select id, label from {{ ref('labels') }}",
    "models/calling.sql": "select {{ outer() }} as one",
    "models/greeting.sql": "select '{{ var('greeting') }}' as said",
    "models/merged.sql": "{{ config(materialized='incremental', unique_key='id') }} select id from {{ ref('first') }}"
    "{% if is_incremental() %} where id > {{ other() }} {% endif %}",
    "models/plain.sql": "select 1 as one",
}
ALL = {f"silver.{Path(name).stem}" for name in FILES if name.startswith("models/") and name.endswith(".sql")} - {
    "silver.between"
} | {"raw.labels"}
OF_EVENTS = {"silver.first", "silver.second", "silver.third", "silver.merged"}

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Shop:
    """A dbt project whose models are on `main`."""

    settings: Settings
    catalog: BranchingCatalog
    parsed: Manifest

    def computed(self, manifest: Manifest | None = None, *, loaded: set[str] | None = None) -> set[str]:
        """Return the models that a run makes, given what it loads."""
        recipes = read_recipes(self.settings, manifest or self.parsed)
        loaded = loaded or set()
        return set(recipes) - judge(recipes, self.catalog, set(recipes), loaded).same.keys()

    def reasons(self, manifest: Manifest | None = None) -> dict[str, tuple[str, ...]]:
        """Return why a run makes each of them."""
        recipes = read_recipes(self.settings, manifest or self.parsed)
        return judge(recipes, self.catalog, set(recipes), ()).changed


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    settings = settings_in(folder)
    (folder / "pyproject.toml").write_text("[tool.cascade]\n")
    for name, text in FILES.items():
        path = settings.dbt_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    lakehouse = Lakehouse(settings, "run-1")
    lakehouse.ensure_branch()
    for number in (1, 3):
        put(lakehouse.catalog, "run-1", "raw.events", [{"id": number}])
    manifest = parse_project(settings)
    assert manifest is not None
    models = build_dbt_assets(settings, manifest)
    assert models is not None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="AssetExecutionContext")  # what dagster-dbt still uses
        with dg.DagsterInstance.ephemeral(tempdir=str(folder)) as instance:
            tags = {BRANCH_TAG: "run-1"}
            done = dg.materialize([models], instance=instance, resources={"lakehouse": lakehouse}, tags=tags)
    assert done.success
    lakehouse.catalog.merge("run-1")
    return Shop(settings, lakehouse.catalog, json.loads(manifest.read_text()))


@pytest.fixture
def changed(shop: Shop) -> Iterator[Shop]:
    """The shop, for a test that moves `main`: it is put back, and with it what is known of the tables."""
    entry = shop.catalog.log(MAIN, limit=1)[0].id
    yield shop
    shop.catalog.restore(entry)
    assert shop.computed() == set()


def test_what_nobody_has_changed_is_left_out(shop: Shop) -> None:
    assert set(read_recipes(shop.settings, shop.parsed)) == ALL
    assert shop.computed() == set()


def node(manifest: Manifest, name: str) -> dict[str, Any]:
    found: dict[str, Any] = manifest["nodes"][f"model.shop.{name}"]
    return found


def macro(manifest: Manifest, name: str) -> None:
    manifest["macros"][f"macro.shop.{name}"]["macro_sql"] += " "


def other_adapter(manifest: Manifest) -> None:
    manifest["metadata"]["adapter_type"] = {"duckdb": "trino", "trino": "duckdb"}[manifest["metadata"]["adapter_type"]]


CHANGES: dict[str, tuple[Callable[[Manifest], object], set[str]]] = {
    "SQL": (lambda m: node(m, "second").update(raw_code="select 2 as id"), {"silver.second"}),
    "SQL of what others read": (lambda m: node(m, "first").update(raw_code="select 2 as id"), OF_EVENTS),
    "SQL of an ephemeral model": (lambda m: node(m, "between").update(raw_code="select 2 as id"), {"silver.third"}),
    "configuration": (lambda m: node(m, "plain")["config"].update(materialized="view"), {"silver.plain"}),
    "description": (lambda m: node(m, "first").update(description="Else."), OF_EVENTS),
    "columns": (lambda m: node(m, "first")["columns"]["id"].update(description="Else."), set()),
    "columns of a contract": (lambda m: node(m, "first")["config"]["contract"].update(enforced=True), OF_EVENTS),
    "tags and tests": (lambda m: m["nodes"].update(t={"resource_type": "test", "config": {}}), set()),
    "a macro": (lambda m: macro(m, "outer"), {"silver.calling"}),
    "a macro of a macro": (lambda m: macro(m, "inner"), {"silver.calling"}),
    "a macro that only later runs call": (lambda m: macro(m, "other"), {"silver.merged"}),
    "a macro of ours": (lambda m: macro(m, "cascade_store"), ALL),
    "the version of dbt's adapter": (other_adapter, ALL),
    "always": (lambda m: node(m, "plain")["config"].update(meta={"cascade": {"always": True}}), {"silver.plain"}),
    "a hook of the project": (lambda m: m["nodes"].update(o={"resource_type": "operation", "config": {}}), ALL),
}


@pytest.mark.parametrize(("change", "computed"), CHANGES.values(), ids=CHANGES)
def test_what_has_changed_in_the_project_is_computed(
    change: Callable[[Manifest], object], computed: set[str], shop: Shop
) -> None:
    manifest = copy.deepcopy(shop.parsed)
    change(manifest)
    assert shop.computed(manifest) == computed


WHY: dict[str, tuple[str, str]] = {
    "SQL": ("silver.second", "its SQL changed"),
    "SQL of what others read": ("silver.second", "the run makes silver.first, which it reads"),
    "configuration": ("silver.plain", "its configuration changed"),
    "a macro of a macro": ("silver.calling", "its macro inner changed"),
    "a macro of ours": ("silver.plain", "its macros of dbt and Cascade changed"),
    "always": ("silver.plain", "every run computes it, since its meta says so"),
}


@pytest.mark.parametrize("change", WHY)
def test_a_run_can_say_why_it_computes_a_model(change: str, shop: Shop) -> None:
    manifest = copy.deepcopy(shop.parsed)
    CHANGES[change][0](manifest)
    table, why = WHY[change]
    assert why in shop.reasons(manifest)[table]


@pytest.mark.parametrize(
    ("file", "computed"),
    [("dbt_project.yml", {"silver.greeting"}), ("seeds/labels.csv", {"raw.labels", "silver.labelled"})],
)
def test_what_has_changed_in_files_is_computed(file: str, computed: set[str], shop: Shop) -> None:
    path = shop.settings.dbt_path / file
    path.write_text(FILES[file].replace("hello", "good day").replace("one", "uno"))
    try:
        assert shop.computed() == computed
    finally:
        path.write_text(FILES[file])


def test_what_reads_a_table_that_the_run_makes_is_computed(shop: Shop) -> None:
    assert shop.computed(loaded={"raw.events"}) == OF_EVENTS
    assert shop.computed(loaded={"silver.first"}) == OF_EVENTS


MOVES: dict[str, tuple[Callable[[BranchingCatalog], object], set[str]]] = {
    "rows loaded": (lambda c: put(c, "other", "raw.events", [{"id": 2}], "append"), OF_EVENTS),
    "a column added": (lambda c: add_column(c, "raw.events"), OF_EVENTS),
    "a model's table written by others": (lambda c: put(c, "other", "silver.second", [{"id": 2}]), {"silver.second"}),
    "a table dropped": (lambda c: c.open("other").drop_table("silver.second"), {"silver.second"}),
    "a table that no model reads": (lambda c: put(c, "other", "raw.more", [{"id": 2}]), set()),
}


def add_column(catalog: BranchingCatalog, table: str) -> None:
    from pyiceberg.types import LongType

    with catalog.open("other").load_table(table).update_schema() as update:
        update.add_column("more", LongType())


@pytest.mark.parametrize(("move", "computed"), MOVES.values(), ids=MOVES)
def test_what_was_promoted_meanwhile_is_noticed(
    move: Callable[[BranchingCatalog], object], computed: set[str], changed: Shop
) -> None:
    changed.catalog.create("other")
    try:
        move(changed.catalog)
        changed.catalog.merge("other")
    finally:
        changed.catalog.delete("other")
    assert changed.computed() == computed
    assert (computed == OF_EVENTS) == (changed.reasons().get("silver.first") == ("raw.events changed",))


def test_a_restore_to_the_time_before_has_all_computed(changed: Shop) -> None:
    changed.catalog.restore(0)
    assert changed.computed(loaded={"raw.events"}) == ALL


def test_after_compaction_nothing_is_computed(changed: Shop) -> None:
    """Neither what reads a compacted table, nor a compacted model."""
    found = compact_tables(changed.catalog).compacted
    assert "raw.events" in [table.table for table in found]
    assert changed.computed() == set()


def test_a_table_whose_record_speaks_of_another_snapshot_is_computed(changed: Shop) -> None:
    """A property lives on when somebody else writes the table."""
    catalog = changed.catalog
    catalog.create("other")
    put(catalog, "other", "silver.plain", [{"one": 2}], "append")
    assert MADE_FROM_PROPERTY in catalog.open("other").load_table("silver.plain").properties
    catalog.merge("other")
    catalog.delete("other")
    assert changed.computed() == {"silver.plain"}


STATES: dict[str, tuple[int, bool, bool]] = {
    "as dbt left it": (0, True, True),
    "written by somebody else since": (1, True, False),
    "while what it reads was written": (0, False, False),
}


@pytest.mark.parametrize(("off", "unmoved", "recorded"), STATES.values(), ids=STATES)
def test_a_table_is_recorded_only_if_all_is_known_of_it(off: int, unmoved: bool, recorded: bool, changed: Shop) -> None:
    catalog = changed.catalog
    catalog.create("other")
    before = catalog.pointers("other")
    if not unmoved:
        put(catalog, "other", "silver.first", [{"id": 2}])
    head = put(catalog, "other", "silver.second", [{"id": 2}], "replace").snapshot_id
    recipes = read_recipes(changed.settings, changed.parsed)
    record(recipes, catalog, "other", {"silver.second": head + off}, before)
    catalog.merge("other")
    catalog.delete("other")
    assert ("silver.second" not in changed.computed()) == recorded


MORE = {
    "select current_date as d": "current_date",
    "select now() as t": "now",
    "select cast(uuid() as varchar) as u": "uuid",
    "select random() as r": "random",
    "select '{{ run_started_at }}' as t": "run_started_at",
    "select '{{ env_var(\"HOME\") }}' as h": "env_var",
    "select * from read_csv('x.csv')": "read_csv",
    "select * from 'x.parquet'": "from 'x.parquet",
    "select * from other.raw.events": "from other.raw.events",
    "select '{{ modules.datetime.datetime.now() }}' as t": "modules.datetime",
    "{% set found = run_query('select 1') %} select 1 as id": "run_query",
    "{% for n in graph.nodes %} {% endfor %} select 1 as id": "graph.",
    "select 1 as id from {{ this }}": "it reads its own table",
    "select id from silver.first": "it names silver.first without ref()",
    "{{ source('raw', 'ev' ~ 'ents') }}": "it names a source in a way that only dbt understands",
}


@pytest.mark.parametrize(("sql", "why"), MORE.items())
def test_a_model_that_may_depend_on_more_is_always_computed_and_says_why(sql: str, why: str, shop: Shop) -> None:
    manifest = copy.deepcopy(shop.parsed)
    node(manifest, "plain").update(raw_code=sql)
    said = read_recipes(shop.settings, manifest)["silver.plain"].always
    assert said == (why if " " in why and why.startswith("it ") else f"it depends on {why}")


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "Python": ({"language": "python"}, "it is written in python"),
    "hook": ({"config": {"post-hook": [{"sql": "select 1"}]}}, "it has a hook"),
    "environment": ({"unrendered_config": {"tags": "{{ env_var('X') }}"}}, "its configuration depends on env_var"),
    "append": ({"config": {"materialized": "incremental"}}, "each run appends its rows"),
    "function": ({"depends_on": {"nodes": ["function.shop.f"]}}, "it depends on function.shop.f"),
}


@pytest.mark.parametrize(("change", "why"), CONFIGS.values(), ids=CONFIGS)
def test_a_configuration_that_may_depend_on_more_says_so_too(change: dict[str, Any], why: str, shop: Shop) -> None:
    manifest = copy.deepcopy(shop.parsed)
    plain = node(manifest, "plain")
    plain.update({key: {**plain[key], **value} if key == "config" else value for key, value in change.items()})
    assert read_recipes(shop.settings, manifest)["silver.plain"].always == why


@pytest.mark.parametrize("change", [{"database": "elsewhere"}, {"meta": {"external_location": "x.csv"}}])
def test_a_source_that_is_no_table_of_the_lakehouse_has_no_known_state(change: dict[str, Any], shop: Shop) -> None:
    manifest = copy.deepcopy(shop.parsed)
    manifest["sources"]["source.shop.raw.events"].update(change)
    recipe = read_recipes(shop.settings, manifest)["silver.first"]
    assert recipe.always == "it reads raw.events, which is no table of the lakehouse"


def test_a_source_in_a_branch_that_dbt_has_not_met_is_read_all_the_same(shop: Shop) -> None:
    manifest = copy.deepcopy(shop.parsed)
    code = "select 1 as id {% if is_incremental() %} from {{ source('raw', 'events') }} {% endif %}"
    node(manifest, "plain").update(raw_code=code)
    assert read_recipes(shop.settings, manifest)["silver.plain"].inputs == {"raw.events"}


def test_a_table_that_is_named_without_source_is_read_too(shop: Shop) -> None:
    manifest = copy.deepcopy(shop.parsed)
    node(manifest, "plain").update(raw_code='select id from "RAW" . "events"')
    recipe = read_recipes(shop.settings, manifest)["silver.plain"]
    assert recipe.reads(shop.catalog.pointers(MAIN)) == ["raw.events"]


def test_a_microbatch_is_computed_when_a_new_batch_begins(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = copy.deepcopy(shop.parsed)
    node(manifest, "plain")["config"].update(incremental_strategy="microbatch", batch_size="day")
    before = read_recipes(shop.settings, manifest)["silver.plain"]
    assert read_recipes(shop.settings, manifest)["silver.plain"] == before
    monkeypatch.setattr("cascade_dbt.unchanged.now", lambda: "2999-01-01T00:00")
    assert read_recipes(shop.settings, manifest)["silver.plain"] != before


def test_a_flag_of_dbt_in_the_environment_counts(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBT_EMPTY", "1")
    assert shop.computed() == ALL


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"allways": True}, r"`meta: \{cascade: \{'allways': True\}\}` of x means nothing"),
        ({"always": "yes"}, "means nothing"),
        ("always", "means nothing"),
        ({"always": True, "engines": ["embedded"]}, "circle"),  # what is wrong beside it is seen
    ],
)
def test_a_misspelt_wish_is_refused(tmp_path: Path, wish: object, says: str) -> None:
    plain = {"resource_type": "model", "name": "x", "schema": "silver", "original_file_path": "models/x.sql"}
    nodes = {"x": {**plain, "config": {"meta": {"cascade": wish}}}}
    (tmp_path / "manifest.json").write_text(json.dumps({"nodes": nodes, "parent_map": {"x": ["x"]}}))
    with pytest.raises(TransformError, match=says):
        build_dbt_assets(Settings(project_dir=tmp_path), tmp_path / "manifest.json")
