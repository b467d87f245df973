"""The same project gives the same on both engines: the example by its command line, and a dbt project of every kind."""

import datetime as dt
import math
import os
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from cascade.catalog import MAIN, BranchingCatalog, open_catalog
from cascade.config import Settings, build_settings
from cascade.lakehouse import Lakehouse
from cascade.names import BRANCH_TAG
from cascade_dbt.assets import build_dbt_assets
from cascade_dbt.project import parse_project
from support.dbt import dbt_project
from support.generated import Project, generate, stranger
from support.lakes import as_settings, put
from support.servers.lakes import fresh_lake
from support.servers.stack import Stack

_PREFIX = "CASCADE_"
# When a row was loaded is not part of what it says.
_OWN = "_cascade_ingested_at"

Contents = dict[str, tuple[list[tuple[str, str]], list[tuple[Any, ...]]]]


def contents(lake: BranchingCatalog, ref: str) -> Contents:
    """Return the columns and the sorted rows of every table of a branch, as PyIceberg reads them."""
    found: Contents = {}
    for name, location in lake.pointers(ref).items():
        table = lake.load(name, location)
        columns = sorted((f.name, str(f.field_type)) for f in table.schema().fields if f.name != _OWN)
        rows = table.scan().to_arrow().select([column for column, _ in columns]).to_pylist()
        found[name] = columns, sorted((tuple(row.values()) for row in rows), key=_without_floats)
    return found


def _without_floats(row: tuple[Any, ...]) -> str:
    return repr([value for value in row if not isinstance(value, float)])


def assert_same(one: Contents, other: Contents) -> None:
    """Sums of floating point numbers depend on the order of the rows in their last digits."""
    assert one.keys() == other.keys()
    for name, (columns, rows) in one.items():
        assert columns == other[name][0], name
        assert len(rows) == len(other[name][1]), name
        for row, same in zip(rows, other[name][1], strict=True):
            for value, equal in zip(row, same, strict=True):
                close = (
                    isinstance(value, float) and isinstance(equal, float) and math.isclose(value, equal, rel_tol=1e-12)
                )
                assert close or value == equal, (name, row, same)


def settings_of(environment: dict[str, str], folder: Path) -> Settings:
    return build_settings(folder, as_settings(environment))


def test_the_example_gives_the_same_in_every_layer(stack: Stack, tmp_path: Path) -> None:
    home = stranger(tmp_path)
    project = generate(tmp_path / "example", home)
    servers = {**fresh_lake(stack, "nessie"), f"{_PREFIX}DATA_DIR": ".cascade-servers"}
    found = []
    for environment in ({}, servers):
        done = Project(project, home | environment).cascade("run", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        found.append(contents(open_catalog(settings_of(environment, project)), MAIN))
    assert set(found[0]) == {
        "raw.weather_observations",
        "bronze.weather_observations",
        "silver.weather_hourly",
        "gold.weather_daily",
        "marts.weather_monthly",
    }
    assert_same(*found)


PROJECT = dbt_project(
    """\
models: { kinds: { +schema: silver } }
seeds: { kinds: { +schema: raw, typed: { +column_types: { code: varchar, price: "decimal(10,2)", at: timestamp } } } }
""",
    name="kinds",
)
SOURCES = "sources: [{ name: raw, tables: [{ name: events }] }]\n"
_EVENTS = "select id, name, amount, seen from {{ source('raw', 'events') }}"
MODELS = {
    "plain": f"{{{{ config(materialized='table', event_time='seen') }}}} {_EVENTS}",
    "viewed": "{{ config(materialized='view') }} select id, upper(name) as name from {{ ref('plain') }}",
    "merged": f"{{{{ config(materialized='incremental', unique_key=['id', 'seen']) }}}} {_EVENTS}",
    "deleted": "{{ config(materialized='incremental', incremental_strategy='delete+insert', unique_key='id') }}"
    f" {_EVENTS}",
    "appended": "{{ config(materialized='incremental') }} select id from {{ ref('plain') }}"
    "{% if is_incremental() %} where id > (select max(id) from {{ this }}) {% endif %}",
    "daily": "{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='seen',"
    " batch_size='day', begin='@begin@', lookback=1) }} select id, seen, amount from {{ ref('plain') }}",
    "summed": "select name, cast(sum(amount) as decimal(38,2)) as amount, count(*) as n, avg(id) as mean,"
    " cast(min(seen) as date) as first_day, max(seen) as last_seen from {{ ref('plain') }} group by name",
    "labelled": "select p.id, l.label, l.share, l.active, l.since, t.price, t.code, t.at from {{ ref('plain') }} as p"
    " left join {{ ref('labels') }} as l on l.id = p.id left join {{ ref('typed') }} as t on t.id = p.id",
}
SEEDS = {
    "labels": 'id,label,share,active,since\n1,one,0.5,true,2026-01-31\n2,"t,w\'o",,false,\n3,é,1e3,,2026-02-01\n',
    "typed": "id,code,price,at\n1,007,1.10,2026-01-31 12:00:00\n2,,,\n3,x,-3,2026-01-31 12:00:00.123456\n",
}


def run_kinds(settings: Settings) -> Contents:
    """Run a dbt project with models of every kind three times, with changed rows from the second on."""
    begin = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0) - dt.timedelta(days=2)
    texts = {f"models/{name}.sql": sql.replace("@begin@", f"{begin:%Y-%m-%d}") for name, sql in MODELS.items()}
    texts |= {f"seeds/{name}.csv": text for name, text in SEEDS.items()}
    for place, text in (texts | {"dbt_project.yml": PROJECT, "models/sources.yml": SOURCES}).items():
        path = settings.dbt_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    (settings.project_dir / "pyproject.toml").write_text("[tool.cascade]\n")
    lakehouse = Lakehouse(settings, "kinds")
    changed = [(1, 2, "old"), (2, 4, "new"), (5, 5, "new")]
    with dg.DagsterInstance.ephemeral() as instance, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="AssetExecutionContext")  # what dagster-dbt still uses
        for first, last, name in changed:
            rows = [
                {
                    "id": n,
                    "name": name if n % 2 else None,
                    "amount": Decimal(f"{n}.10"),
                    "seen": begin + dt.timedelta(hours=9 * n),
                }
                for n in range(first, last + 1)
            ]
            put(lakehouse.catalog, "kinds", "raw.events", rows, "merge", key=["id"])
            manifest = parse_project(settings)
            assert manifest is not None
            asset = build_dbt_assets(settings, manifest)
            assert asset is not None
            tags = {BRANCH_TAG: "kinds"}
            done = dg.materialize([asset], instance=instance, resources={"lakehouse": lakehouse}, tags=tags)
            assert done.success
    return contents(lakehouse.catalog, "kinds")


def test_models_and_seeds_of_every_kind_give_the_same(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in os.environ if n.startswith((_PREFIX, "DBT_"))]:
        monkeypatch.delenv(name)
    found = []
    for kind, environment in {"embedded": {}, "trino": fresh_lake(stack, "nessie")}.items():
        folder = tmp_path / kind
        folder.mkdir()
        found.append(run_kinds(settings_of(environment, folder)))
    assert set(found[0]) == {"raw.events", *(f"raw.{name}" for name in SEEDS), *(f"silver.{name}" for name in MODELS)}
    assert_same(*found)
