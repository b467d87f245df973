"""`cascade dbt -- …`, and what a dbt project has beside models: snapshots, packages, variables; built twice.

On servers dbt runs on Trino.

Modules: `cascade_dbt.commands`, `cascade_dbt.direct`.
"""

import datetime as dt
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cascade.catalog import MAIN
from cascade.config import Settings
from cascade.errors import BranchNotFoundError, TransformError, UsageError
from cascade.lakehouse import Lakehouse
from cascade_dbt.direct import run_dbt
from cascade_dbt.project import DBT, parse_project
from support.dbt import dbt_project
from support.generated import REPOSITORY
from support.lakes import Rows, put, read, settings_in
from support.projects import Command, make_project

pytestmark = pytest.mark.on_servers("nessie", shared=True)

PROJECT = dbt_project("""\
models: { shop: { +schema: silver, +materialized: table }, near: { +schema: silver, +materialized: table } }
snapshots: { shop: { +schema: history } }
vars: { rate: 3 }
""")
PACKAGE = 'name: {name}\nversion: "1.0.0"\nflags: {{ send_anonymous_usage_stats: false }}\n'
MACRO = "{{% macro number() %}}{number}{{% endmacro %}}"
PEOPLE = "select * from {{ source('raw', 'people') }}"


def snapshot(name: str, sql: str = PEOPLE, **config: Any) -> str:
    options = ", ".join(f"{key}={value!r}" for key, value in config.items())
    return f"{{% snapshot {name} %}}{{{{ config({options}) }}}}{sql}{{% endsnapshot %}}"


ALL = {"unique_key": "id", "strategy": "check", "check_cols": "all"}
NAMES = "select id, name from {{ source('raw', 'people') }}"
RENAMED = {"dbt_valid_from": "since", "dbt_valid_to": "until", "dbt_scd_id": "version"}
SNAPSHOTS = {
    "checked": snapshot("checked", NAMES, **ALL),
    "stamped": snapshot("stamped", strategy="timestamp", unique_key="id", updated_at="changed"),
    "ended": snapshot("ended", NAMES, **ALL, hard_deletes="invalidate"),
    "recorded": snapshot("recorded", NAMES, **ALL, hard_deletes="new_record"),
    "spelled": snapshot("spelled", NAMES, **ALL | {"unique_key": ["id", "name"]}, snapshot_meta_column_names=RENAMED),
    "open_ended": snapshot("open_ended", NAMES, **ALL, dbt_valid_to_current="timestamp '9999-12-31 00:00:00+00:00'"),
    "moving": snapshot("moving", **ALL),
}
FILES = {
    "packages/near/dbt_project.yml": PACKAGE.format(name="near"),
    "packages/near/macros/number.sql": MACRO.format(number=1),
    "packages/near/models/of_near.sql": "select {{ number() }} as n",
    "packages/far/dbt_project.yml": PACKAGE.format(name="far"),
    "packages/far/macros/number.sql": MACRO.format(number=2),
    "transforms/dbt/dbt_project.yml": PROJECT,
    "transforms/dbt/models/sources.yml": """\
sources: [{ name: raw, tables: [{ name: people }] }]
models:
  - name: current
    columns:
      - name: id
        data_tests:
          - accepted_values:
              arguments: { values: [1], quote: false }
              config: { severity: warn, store_failures: true, alias: strangers }
""",
    "transforms/dbt/models/packaged.sql": "select {{ near.number() }} as near, {{ far.number() }} as far",
    "transforms/dbt/models/by_variable.sql": "select {{ var('rate') }} as rate",
    "transforms/dbt/models/current.sql": "select id from {{ ref('ended') }} where dbt_valid_to is null",
    **{f"transforms/dbt/snapshots/{name}.sql": sql for name, sql in SNAPSHOTS.items()},
}
DAY = dt.datetime(2026, 1, 1)
NEXT = dt.datetime(2026, 2, 1)


def person(key: int, name: str, changed: dt.datetime = DAY, **more: Any) -> dict[str, Any]:
    return {"id": key, "name": name, "changed": changed, **more}


BEFORE = [person(1, "ann", gone=1), person(2, "bob", gone=2), person(3, "cy", gone=3)]
AFTER = [person(1, "anna", NEXT, new=7), person(2, "bob", new=8), person(4, "dan", NEXT, new=9)]


@dataclass
class Shop:
    """The project after two builds."""

    settings: Settings
    unparsed: str
    codes: list[int]

    def rows(self, table: str) -> Rows:
        return read(Lakehouse(self.settings, "fix").catalog, "fix", table)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    root = make_project(tmp_path_factory.mktemp("shop"), FILES)
    far = root / "packages/far"
    for words in ("init -q -b main", "add .", "-c user.name=n -c user.email=e commit -qm first"):
        subprocess.run(["git", *words.split()], cwd=far, check=True)
    packages = [{"local": "../../packages/near"}, {"git": str(far), "revision": "main", "warn-unpinned": False}]
    (root / "transforms/dbt/packages.yml").write_text(json.dumps({"packages": packages}))
    settings = settings_in(root)
    with pytest.raises(TransformError) as missing:
        parse_project(settings)
    codes = [run_dbt(settings, ["deps", "--quiet"]).code]
    lake = Lakehouse(settings, "fix").catalog
    for rows, more in ((BEFORE, []), (AFTER, ["--vars", "{rate: 4}"])):
        put(lake, "fix", "raw.people", rows, "replace", exact=True)
        codes.append(run_dbt(settings, ["--quiet", "build", *more], branch="fix").code)
    return Shop(settings, str(missing.value), codes)


def test_packages_come_from_a_folder_and_from_git_and_without_them_the_error_says_how(shop: Shop) -> None:
    assert "fix: run `cascade dbt -- deps`." in shop.unparsed
    assert shop.codes[0] == 0
    assert shop.rows("silver.packaged") == [{"near": 1, "far": 2}]
    assert shop.rows("silver.of_near") == [{"n": 1}]


def test_builds_succeed_on_the_branch_that_was_named_and_main_has_nothing(shop: Shop) -> None:
    assert shop.codes == [0, 0, 0]
    assert Lakehouse(shop.settings, "fix").catalog.pointers(MAIN) == {}


def test_a_variable_of_the_project_is_replaced_on_the_command_line(shop: Shop) -> None:
    assert shop.rows("silver.by_variable") == [{"rate": 4}]


CHANGED = [(1, "ann", False), (1, "anna", True), (2, "bob", True), (3, "cy", True), (4, "dan", True)]
ENDED = [(1, "ann", False), (1, "anna", True), (2, "bob", True), (3, "cy", False), (4, "dan", True)]


@pytest.mark.parametrize(
    ("name", "versions"),
    [
        ("checked", CHANGED),
        ("stamped", CHANGED),
        ("ended", ENDED),
        ("recorded", sorted([*ENDED, (3, "cy", True)])),
        ("spelled", [(1, "ann", True), *CHANGED[1:]]),  # another name is another key
        ("open_ended", CHANGED),
        ("moving", sorted([*CHANGED, (2, "bob", False)])),  # a new column changes every row
    ],
)
def test_a_snapshot_keeps_each_version_of_a_row(shop: Shop, name: str, versions: list[tuple[Any, ...]]) -> None:
    rows = shop.rows(f"history.{name}")
    ends = [row["until" if name == "spelled" else "dbt_valid_to"] for row in rows]
    current = [end is None or end.year == 9999 for end in ends]
    assert sorted((row["id"], row["name"], now) for row, now in zip(rows, current, strict=True)) == versions


def test_a_version_ends_when_the_next_one_begins(shop: Shop) -> None:
    old, new = (row for row in sorted(shop.rows("history.stamped"), key=lambda row: row["changed"]) if row["id"] == 1)
    assert (old["dbt_valid_from"], old["dbt_valid_to"]) == (DAY, NEXT)
    assert (new["dbt_valid_from"], new["dbt_valid_to"]) == (NEXT, None)


def test_a_deleted_row_has_a_version_that_says_so(shop: Shop) -> None:
    versions = [row for row in shop.rows("history.recorded") if row["id"] == 3]
    assert sorted((row["dbt_is_deleted"], row["dbt_valid_to"] is None) for row in versions) == [
        ("False", False),
        ("True", True),
    ]


def test_a_column_that_comes_is_added_and_one_that_goes_stays(shop: Shop) -> None:
    rows = shop.rows("history.moving")
    assert sorted((row["id"], row["name"], row["gone"], row["new"]) for row in rows if row["id"] in (1, 4)) == [
        (1, "ann", 1, None),
        (1, "anna", None, 7),
        (4, "dan", None, 9),
    ]


def test_a_snapshot_is_one_commit_and_models_read_it(shop: Shop) -> None:
    assert len(Lakehouse(shop.settings, "fix").table("history.checked").snapshots()) == 2
    assert [row["id"] for row in shop.rows("silver.current")] == [1, 2, 4]


def test_rows_that_fail_a_test_are_kept_in_a_table_that_each_run_replaces(shop: Shop) -> None:
    assert [row["value_field"] for row in shop.rows("dbt_test__audit.strangers")] == [2, 4]
    assert len(Lakehouse(shop.settings, "fix").table("dbt_test__audit.strangers").snapshots()) == 2


def test_a_command_that_reads_sees_the_branch_and_leaves_none_behind(
    shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {branch.name for branch in Lakehouse(shop.settings, "fix").catalog.branches()}
    shown = ["show", "--quiet", "--inline", "select rate + 100 as n from {{ ref('by_variable') }}"]
    assert run_dbt(shop.settings, shown, branch="fix") == (0, None)
    assert "104" in capfd.readouterr().out
    assert run_dbt(shop.settings, ["docs", "generate", "--quiet"], branch="fix") == (0, None)
    catalog = json.loads((shop.settings.dbt_path / "target" / "catalog.json").read_text("utf-8"))
    assert "id" in {name.lower() for name in catalog["nodes"]["snapshot.shop.checked"]["columns"]}
    assert run_dbt(shop.settings, shown).code != 0  # there is no branch dev, and main has no table
    assert {branch.name for branch in Lakehouse(shop.settings, "fix").catalog.branches()} == before


def test_what_dbt_exits_with_is_what_the_command_exits_with(
    shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop.settings.project_dir)
    cascade = Command(capsys)
    broken = shop.settings.dbt_path / "models" / "broken.sql"
    broken.write_text("select nothing")
    said = cascade("dbt", "--branch", "fix", "--", "run", "-s", "broken")
    broken.unlink()
    assert (said.code, "On branch fix; main is unchanged." in said.err) == (1, True)
    assert cascade("dbt", "--", "no-such-command").code == 2


@pytest.mark.parametrize(
    ("arguments", "branch", "error", "says"),
    [
        (["run"], MAIN, UsageError, r"`dbt run` never writes `main`"),
        (
            ["clone", "--state", "x"],
            "fix",
            UsageError,
            r"a branch has all tables of `main`[\s\S]*cascade branch create",
        ),
        (["show", "--inline", "select 1"], "nowhere", BranchNotFoundError, r"no branch `nowhere`"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    shop: Shop, arguments: list[str], branch: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        run_dbt(shop.settings, arguments, branch=branch)


def test_without_a_dbt_project_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no dbt project"):
        run_dbt(Settings(project_dir=tmp_path), ["build"])


def test_plain_dbt_in_a_generated_project_names_the_command_to_use(tmp_path: Path) -> None:
    (tmp_path / "dbt_project.yml").write_text(dbt_project(""))
    (tmp_path / "profiles.yml").write_text((REPOSITORY / "template/transforms/dbt/profiles.yml").read_text("utf-8"))
    done = subprocess.run([*DBT, "build"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "run `cascade dbt -- …` in place of `dbt …`" in done.stdout
