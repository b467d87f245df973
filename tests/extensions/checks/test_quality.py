"""The promises of `cascade.quality`: what becomes of checks, and of functions that are checks.

Modules: `cascade_checks.decorator`, `cascade.quality`, `cascade_checks.partitions`.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from cascade.config import Settings
from cascade.errors import ServiceError
from cascade.lakehouse import Lakehouse
from cascade.names import BRANCH_METADATA, SNAPSHOT_METADATA
from cascade.quality import (
    Check,
    cascade_quality,
    custom_sql,
    in_range,
    not_null,
    reconciles,
    row_count,
    unique,
)
from support.lakes import settings_in
from support.quality import WEATHER, run_check, run_checks, values_of, write_rows

pytestmark = pytest.mark.on_servers("nessie")


@pytest.fixture
def weather(tmp_path: Path) -> Lakehouse:
    lakehouse = Lakehouse(settings_in(tmp_path), "dev")
    write_rows(lakehouse, "raw.weather", WEATHER)
    return lakehouse


def test_a_result_says_which_snapshot_of_which_branch_was_checked(weather: Lakehouse) -> None:
    """The promotion gate takes it for evidence."""
    for check in (not_null("origin"), not_null("time_hour"), not_null("no_such_column")):
        figures = values_of(run_check(weather, check))
        assert figures[SNAPSHOT_METADATA] == str(weather.head("raw.weather"))
        assert figures[BRANCH_METADATA] == "dev"


def test_a_write_during_a_check_leaves_the_older_snapshot_as_the_evidence(weather: Lakehouse) -> None:
    before = weather.head("raw.weather")

    @cascade_quality(asset="raw/weather")
    def overtaken(lakehouse: Lakehouse) -> bool:
        write_rows(lakehouse, "raw.weather", WEATHER)
        return True

    assert (
        values_of(run_checks(weather, overtaken)["overtaken"])[SNAPSHOT_METADATA]
        == str(before)
        != str(weather.head("raw.weather"))
    )


def _answers() -> Iterator[Any]:
    def no_second_order() -> str:
        return 'select * from raw.weather where "order" = 2'

    def no_negative_days() -> str:
        """No day is negative."""
        return "select * from raw.weather where temp < 0"

    def small(lakehouse: Lakehouse) -> bool:
        return lakehouse.query("select count(*) as n from raw.weather")["n"][0].as_py() < 3

    def numpys() -> Any:
        return np.bool_(True)

    def own(context: Any) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            passed=False, severity=dg.AssetCheckSeverity.WARN, metadata={"run": len(context.run.run_id)}
        )

    def nothing() -> None: ...

    def broken() -> bool:
        raise ValueError("no such\nluck")

    yield from (
        (no_second_order, False, "2 of 4 rows of raw.weather fail `no_second_order` (50 %, allowed 0 %)"),
        (no_negative_days, True, "0 of 4 rows of raw.weather fail `no_negative_days` (0 %, allowed 0 %)"),
        (small, False, "`small` does not hold for raw.weather"),
        (numpys, True, "`numpys` holds for raw.weather"),
        (own, False, None),
        (nothing, False, "returned a value of type NoneType"),
        (broken, False, "`broken` could not run on raw.weather: ValueError: no such luck"),
    )


@pytest.mark.parametrize(
    ("function", "passed", "said"), list(_answers()), ids=lambda value: getattr(value, "__name__", "")
)
def test_a_function_without_checks_is_the_check(
    weather: Lakehouse, function: Callable[..., object], passed: bool, said: str | None
) -> None:
    check = cascade_quality(asset="raw.weather")(function)
    (spec,) = check.check_specs
    assert (spec.name, spec.description, spec.blocking) == (function.__name__, function.__doc__, True)
    evaluation = run_checks(weather, check)[function.__name__]
    assert evaluation.passed is passed
    assert (said or "") in (evaluation.description or "")
    assert values_of(evaluation)[SNAPSHOT_METADATA] == str(weather.head("raw.weather"))


def test_a_server_that_does_not_answer_is_no_verdict_on_the_rows(weather: Lakehouse) -> None:
    """The step fails; nothing is said of the check, which the gate then misses."""

    @cascade_quality(asset="raw.weather")
    def away() -> bool:
        raise ServiceError("Trino does not answer.")

    assert run_checks(weather, away) == {}


def test_with_checks_the_function_is_never_called(weather: Lakehouse) -> None:
    @cascade_quality(asset=dg.AssetKey(["raw", "weather"]), checks=[not_null("day")])
    def group() -> None:
        """The group's documentation."""
        raise AssertionError

    assert group.op.description == "The group's documentation."
    assert run_checks(weather, group)["not_null_day"].passed


def test_each_check_is_an_asset_check_of_its_own() -> None:
    checks = [
        not_null("origin", "time_hour"),
        in_range("wind speed", 0),
        unique("a", name="key"),
        row_count(minimum=1),
    ]

    @cascade_quality(asset="raw/weather", checks=checks)
    def group() -> None: ...

    assert [spec.name for spec in group.check_specs] == [
        "not_null_origin_time_hour", "in_range_wind_speed", "key", "row_count",
    ]  # fmt: skip
    assert {spec.asset_key.to_user_string() for spec in group.check_specs} == {"raw/weather"}


@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("own", [None, True, False])
def test_a_check_blocks_as_it_says_else_as_its_group_says(weather: Lakehouse, group: bool, own: bool | None) -> None:
    @cascade_quality(asset="raw/weather", checks=[not_null("origin", blocking=own)], blocking=group)
    def checks() -> None: ...

    evaluation = run_checks(weather, checks)["not_null_origin"]
    blocking = group if own is None else own
    assert evaluation.blocking is blocking
    assert evaluation.severity == (dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN)


def test_a_failed_blocking_check_keeps_downstream_from_running(weather: Lakehouse) -> None:
    ran = []

    @dg.asset(key=["raw", "weather"])
    def raw() -> None: ...

    @dg.asset(key=["gold", "weather"], deps=[["raw", "weather"]])
    def gold() -> None:
        ran.append("gold")

    for blocking in (True, False):

        @cascade_quality(asset="raw/weather", checks=[not_null("origin"), not_null("temp")], blocking=blocking)
        def checks() -> None: ...

        found = run_checks(weather, checks, assets=[raw, gold])
        assert [found[name].passed for name in ("not_null_origin", "not_null_temp")] == [False, False]
        assert ran == ([] if blocking else ["gold"])


def test_one_check_of_a_group_can_run_alone(weather: Lakehouse) -> None:
    @cascade_quality(asset="raw/weather", checks=[not_null("origin"), not_null("temp")])
    def checks() -> None: ...

    alone = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey(["raw", "weather"]), "not_null_temp"))
    defs = dg.Definitions(
        asset_checks=[checks],
        jobs=[dg.define_asset_job("alone", alone)],
        resources={"lakehouse": dg.ResourceDefinition(lambda _: weather)},
    )
    result = defs.resolve_job_def("alone").execute_in_process(raise_on_error=False)
    assert [evaluation.check_name for evaluation in result.get_asset_check_evaluations()] == ["not_null_temp"]


UNCHECKABLE = {
    "column": (
        not_null("tmp"),
        'could not run on raw.weather: (Binder Error: Referenced column "tmp" not found|COLUMN_NOT_FOUND)',
    ),
    "type": (in_range("origin", 1), "Cannot compare values of type VARCHAR|TYPE_MISMATCH"),
    "other table": (reconciles("bronze.weather"), "the tables of `dev` are raw.weather"),
    "statement": (custom_sql("mine", "delete from raw.weather"), "could not run on raw.weather"),
    "two statements": (custom_sql("mine", "select 1) as x; select (2"), "could not run on raw.weather"),
    "no SQL": (custom_sql("mine", "these are words"), "could not run on raw.weather"),
}


@pytest.mark.parametrize(("check", "said"), UNCHECKABLE.values(), ids=UNCHECKABLE.keys())
def test_what_cannot_be_checked_fails_and_says_why(weather: Lakehouse, check: Check, said: str) -> None:
    """It must neither pass nor take the results of the others with it."""

    @cascade_quality(asset="raw/weather", checks=[check, not_null("origin"), not_null("day")])
    def group() -> None: ...

    found = run_checks(weather, group)
    assert {name: found[name].passed for name in found} == {
        check.name: False,
        "not_null_origin": False,
        "not_null_day": True,
    }
    assert re.search(said, found[check.name].description or "")
    assert "Traceback" not in (found[check.name].description or "")


def test_a_missing_table_fails_its_checks_and_the_tables_are_listed(weather: Lakehouse) -> None:
    evaluation = run_check(weather, not_null("origin"), asset="raw/wether")
    assert not evaluation.passed
    said = "on raw.wether: it does not exist on branch dev, whose tables are raw.weather"
    assert said in (evaluation.description or "")


def test_a_catalog_that_cannot_be_read_fails_the_checks_one_by_one(tmp_path: Path) -> None:
    class Broken(Lakehouse):
        def head(self, name: str) -> int | None:
            raise OSError("disk gone")

    @cascade_quality(asset="raw/weather", checks=[not_null("a"), not_null("b")])
    def group() -> None: ...

    found = run_checks(Broken(Settings(project_dir=tmp_path), "dev"), group)
    assert {name: str(e.description)[-18:] for name, e in found.items()} == dict.fromkeys(
        ("not_null_a", "not_null_b"), "OSError: disk gone"
    )
    assert all(SNAPSHOT_METADATA not in e.metadata for e in found.values())


def test_importing_quality_brings_no_engine() -> None:
    """Definitions load quickly."""
    heavy = "{'duckdb', 'pyarrow', 'pyiceberg', 'pandas'}"
    code = f"import sys, cascade.quality; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
