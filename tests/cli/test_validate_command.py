"""`cascade validate` reads the SQL of a project for both engines.

Modules: `cascade_project.commands`.
"""

from __future__ import annotations

import json

import pytest

from support.generated import Project, generate, stranger

_MODEL = """\
-- Written for DuckDB.
select
    station,
    date::varchar as day,
    observations / 24 as share
from {{ ref('weather_daily') }}
"""
_CHECKS = '''\
"""A rule in SQL."""

from cascade.quality import cascade_quality, custom_sql


@cascade_quality(
    asset="raw/weather_observations",
    checks=[custom_sql("no_snow", "select *\\nfrom raw.weather_observations\\nwhere origin ilike 'snow%'")],
)
def rules():
    """Rules in SQL."""
'''


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Project:
    environment = stranger(tmp_path_factory.mktemp("home"))
    return Project(generate(tmp_path_factory.mktemp("generated") / "my-project", environment), environment)


def test_the_example_runs_on_both_engines(example: Project) -> None:
    done = example.cascade("validate", "--all-engines", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["problems"], found["sql"], found["skipped"]) == (0, [], [], [])


@pytest.fixture(scope="module")
def careless(example: Project) -> Project:
    """The example, with a model and a check that only DuckDB understands."""
    (example.root / "transforms/dbt/models/gold/careless.sql").write_text(_MODEL)
    (example.root / "workflows/quality/rules.py").write_text(_CHECKS)
    return example


def test_what_only_the_other_engine_refuses_is_told_and_passes(careless: Project) -> None:
    done = careless.cascade("validate")
    assert done.returncode == 0, done.stderr
    assert "3 places not the same on Trino:" in done.stdout
    assert "models/gold/careless.sql:4:9: Trino has no `::`; write `cast(x as type)`" in done.stdout
    assert (
        "models/gold/careless.sql:5:18: a quotient of integers has a fraction on DuckDB, none on Trino" in done.stdout
    )
    assert "check no_snow of raw/weather_observations:3:14: Trino has no `ILIKE`" in done.stdout
    assert "No problems." in done.stdout


def test_all_engines_makes_it_fail_with_every_part_in_json(careless: Project) -> None:
    done = careless.cascade("validate", "--all-engines", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert found["problems"] == []
    assert found["sql"][0] == {
        "file": "models/gold/careless.sql",
        "line": 4,
        "column": 9,
        "model": "careless",
        "engine": "trino",
        "kind": "breaks",
        "finding": "Trino has no `::`",
        "remedy": "write `cast(x as type)`",
    }


def test_what_the_set_engine_refuses_is_a_problem(careless: Project) -> None:
    (careless.root / "transforms/dbt/models/gold/careless.sql").write_text(
        "select regexp_like(station, 'J') as j from {{ ref('weather_daily') }}\n"
    )
    done = careless.cascade("validate")
    assert done.returncode == 1
    said = "models/gold/careless.sql:1:8: DuckDB has no `regexp_like`; use `cascade_regexp_like`"
    assert said in done.stderr
