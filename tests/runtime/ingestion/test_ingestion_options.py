"""The promises of `@cascade_ingestion` before anything runs: what the options make, and which are refused.

Modules: `cascade.ingestion.options`, `cascade.options`.
"""

import inspect
from collections.abc import Callable
from typing import Any

import dagster as dg
import pandera.pandas as pa_pandas
import pyarrow
import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField, StringType

from cascade.errors import ConfigurationError, DefinitionError
from cascade.ingestion import (
    cascade_ingestion,
    daily,
    hourly,
    load_plan,
    monthly,
    none,
    static,
    weekly,
)
from cascade.names import CRON_METADATA, TABLE_METADATA

SCHEMA = Schema(NestedField(1, "id", LongType()), NestedField(2, "name", StringType()))


class Model(pa_pandas.DataFrameModel):
    """A contract."""

    id: int
    name: str


def one_day(partition_date: str) -> None:
    """Load a day."""


def many_days(partition_dates: list[str]) -> None: ...


def no_day() -> None: ...


def build(fetch: Callable[..., object] = one_day, **options: Any) -> dg.AssetsDefinition:
    asset: dg.AssetsDefinition = cascade_ingestion(**options)(fetch)
    return asset


# --- what the options make --------------------------------------------------------------------------------


def test_without_options_an_asset_is_daily_in_raw_under_the_name_of_its_function() -> None:
    asset = cascade_ingestion(one_day)
    assert asset.key == dg.AssetKey(["raw", "one_day"])
    assert isinstance(asset.partitions_def, dg.DailyPartitionsDefinition)
    assert asset.specs_by_key[asset.key].description == "Load a day."


def test_namespace_and_table_name_are_key_and_table() -> None:
    asset = build(namespace="landing", table_name="days")
    assert asset.key == dg.AssetKey(["landing", "days"])
    assert asset.specs_by_key[asset.key].metadata[TABLE_METADATA] == "landing.days"


def test_group_is_the_group_in_dagster() -> None:
    asset = build(group="weather")
    assert asset.specs_by_key[asset.key].group_name == "weather"


def test_a_backfill_of_a_range_is_one_run() -> None:
    assert build().backfill_policy == dg.BackfillPolicy.single_run()


def test_cron_is_kept_for_the_definitions() -> None:
    asset = build(cron="0 6 * * *")
    assert asset.specs_by_key[asset.key].metadata[CRON_METADATA] == "0 6 * * *"


@pytest.mark.parametrize(("cron", "current"), [(None, 0), ("0 6 * * *", 0), ("0 * * * *", 1)])
def test_a_day_that_has_only_begun_is_a_partition_when_it_is_loaded_within_the_day(
    cron: str | None, current: int
) -> None:
    definition = build(cron=cron).partitions_def
    assert isinstance(definition, dg.TimeWindowPartitionsDefinition)
    assert definition.end_offset == current


@pytest.mark.parametrize(
    ("retries", "delay", "policy"),
    [(5, 7, dg.RetryPolicy(max_retries=5, delay=7)), (0, 30, None)],
)
def test_retries_are_dagster_s(retries: int, delay: float, policy: dg.RetryPolicy | None) -> None:
    asset = build(max_retries=retries, retry_delay_seconds=delay)
    assert asset.op.retry_policy == policy


def test_without_a_word_a_load_is_tried_four_times_half_a_minute_apart_for_five_minutes() -> None:
    assert build().op.retry_policy == dg.RetryPolicy(max_retries=3, delay=30)
    assert inspect.signature(cascade_ingestion).parameters["max_runtime_seconds"].default == 300


def test_freshness_is_a_policy_and_a_check_that_only_tells() -> None:
    asset = build(freshness_hours=(1, 24))
    assert asset.specs_by_key[asset.key].freshness_policy is not None
    (check,) = asset.check_specs
    assert (check.name, check.blocking) == ("freshness", False)


def test_an_asset_without_time_has_a_freshness_policy_alone() -> None:
    asset = build(no_day, partitions="none", freshness_hours=(1, 24))
    assert asset.specs_by_key[asset.key].freshness_policy is not None
    assert list(asset.check_specs) == []


@pytest.mark.parametrize(("validate", "names"), [(True, ["contract"]), (False, [])])
def test_a_contract_is_a_blocking_check_unless_it_is_switched_off(validate: bool, names: list[str]) -> None:
    asset = build(validation_schema=Model, validate=validate)
    assert [check.name for check in asset.check_specs if check.blocking] == names


@pytest.mark.parametrize("api", ["model", "object"])
def test_a_contract_may_be_a_model_or_a_schema_object(api: str) -> None:
    contract = Model if api == "model" else Model.to_schema()
    asset = build(validation_schema=contract)
    schema = load_plan(asset).schema
    assert schema is not None
    assert schema.column_names == ["id", "name"]


def test_declared_columns_win_over_those_of_the_contract() -> None:
    declared = Schema(*SCHEMA.fields, NestedField(3, "more", StringType()))
    plan = load_plan(build(validation_schema=Model, iceberg_schema=declared))
    assert plan.schema == declared


@pytest.mark.parametrize(
    ("options", "mode"),
    [({}, "append"), ({"unique_key": "id"}, "merge"), ({"write": "append", "unique_key": "id"}, "append")],
)
def test_rows_are_merged_when_they_have_a_key(options: dict[str, Any], mode: str) -> None:
    assert load_plan(build(**options)).write == mode


@pytest.mark.parametrize(("strict", "policy"), [(None, "additive"), (True, "strict"), ("filter", "drop_extra")])
def test_the_contract_says_what_becomes_of_new_columns_when_the_option_does_not(strict: Any, policy: str) -> None:
    schema = pa_pandas.DataFrameSchema({"id": pa_pandas.Column(int)}, strict=strict or False)
    plain = load_plan(build(validation_schema=schema)).policy
    said = load_plan(build(validation_schema=schema, schema_policy="additive")).policy
    assert (plain, said) == (policy, "additive")


def test_copies_of_an_asset_keep_its_plan_and_assets_of_one_name_share_nothing() -> None:
    ours, theirs = build(unique_key="id"), build(write="append")
    copy = ours.with_attributes(group_names_by_key={ours.key: "moved"})
    merged = dg.Definitions.merge(dg.Definitions(assets=[copy]), dg.Definitions(resources={"lakehouse": 1}))
    (found,) = merged.resolve_asset_graph().assets_defs
    assert [load_plan(asset).write for asset in (found, theirs)] == ["merge", "append"]


def test_an_asset_of_another_kind_has_no_plan() -> None:
    with pytest.raises(DefinitionError, match="elsewhere is not an asset of @cascade_ingestion"):
        load_plan(dg.AssetsDefinition(specs=[dg.AssetSpec("elsewhere")]))


def test_building_an_asset_says_nothing_and_warns_of_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    build(freshness_hours=(1, 24), cron="0 * * * *", validation_schema=Model)
    assert capfd.readouterr() == ("", "")


# --- partitions -------------------------------------------------------------------------------------------

UNITS: dict[str, tuple[Any, str, list[str]]] = {
    "daily": (daily(start="2013-12-30", end="2014-01-01"), "Daily", ["2013-12-30", "2013-12-31", "2014-01-01"]),
    "hourly": (hourly(start="2013-01-01", end="2013-01-01"), "Hourly", [f"2013-01-01-{h:02}:00" for h in range(24)]),
    "weekly": (weekly(start="2013-01-06", end="2013-01-19"), "Weekly", ["2013-01-06", "2013-01-13"]),
    "monthly": (monthly(start="2013-01-01", end="2013-02-28"), "Monthly", ["2013-01-01", "2013-02-01"]),
    "static": (static(["nl", "be"]), "Static", ["nl", "be"]),
}


@pytest.mark.parametrize(("partitions", "kind", "keys"), UNITS.values(), ids=UNITS.keys())
def test_partitions_run_from_start_to_end_both_included(partitions: Any, kind: str, keys: list[str]) -> None:
    definition = build(many_days, partitions=partitions, partition_column="x").partitions_def
    assert definition is not None
    assert type(definition).__name__ == f"{kind}PartitionsDefinition"
    assert definition.get_partition_keys() == keys


@pytest.mark.parametrize("name", ["hourly", "daily", "weekly", "monthly"])
def test_partitions_are_named_by_a_word_too(name: str) -> None:
    definition = build(partitions=name).partitions_def
    assert type(definition).__name__ == f"{name.title()}PartitionsDefinition"


@pytest.mark.parametrize("partitions", ["none", None, none()])
def test_an_asset_may_have_no_partitions(partitions: Any) -> None:
    assert build(no_day, partitions=partitions).partitions_def is None


def test_start_and_time_zone_come_from_the_settings(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.cascade]\npartitions_start = "2020-02-01"\ntimezone = "Europe/Amsterdam"\n'
    )
    monkeypatch.chdir(tmp_path)
    definition = build().partitions_def
    assert isinstance(definition, dg.TimeWindowPartitionsDefinition)
    assert definition.get_first_partition_key() == "2020-02-01"
    assert definition.timezone == "Europe/Amsterdam"


def test_a_wrong_setting_is_refused_and_not_replaced_by_the_default(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.cascade]\ntimezone = "Mars/Olympus"\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="`timezone`: 'Mars/Olympus' is not a time zone"):
        build()


# --- what is refused --------------------------------------------------------------------------------------

WRONG: dict[str, tuple[Callable[..., object], dict[str, Any], str]] = {
    "misspelt": (
        one_day,
        {"tablename": "x"},
        r"has no option `tablename`(.|\n)*table_name=None, unique_key=None",
    ),
    "all_misspelt": (one_day, {"tablename": "x", "key": "id"}, "`tablename`, `key`"),
    "table": (one_day, {"table_name": "../../x"}, r"'raw\.\.\./\.\./x' is not the name of a table"),
    "namespace": (one_day, {"namespace": "a.b"}, r"is not the name of a table"),
    "quarantine": (one_day, {"namespace": "quarantine"}, "is for rows set aside"),
    "write": (one_day, {"write": "upsert"}, "write='upsert' is not one of merge, replace_partition, append"),
    "policy": (one_day, {"schema_policy": "loose"}, "is not one of strict, additive, drop_extra"),
    "on_invalid": (one_day, {"on_invalid": "skip"}, "is not one of fail, quarantine"),
    "limit": (one_day, {"quarantine_limit": -1}, "quarantine_limit=-1 must be a number, at least 0"),
    "share": (one_day, {"quarantine_fraction": 5}, "quarantine_fraction=5 is a share of the rows: at most 1"),
    "runtime": (one_day, {"max_runtime_seconds": 0}, "max_runtime_seconds=0 must be a number, at least 1"),
    "runtime_text": (one_day, {"max_runtime_seconds": "5m"}, "max_runtime_seconds='5m' must be a number"),
    "retries": (one_day, {"max_retries": -1}, "max_retries=-1 must be"),
    "retries_half": (one_day, {"max_retries": 1.5}, "max_retries=1.5 must be a whole number"),
    "delay": (one_day, {"retry_delay_seconds": -1}, "retry_delay_seconds=-1 must be"),
    "partitions": (one_day, {"partitions": "yearly"}, r"is not one of hourly, daily, weekly, monthly, none, static"),
    "cron": (one_day, {"cron": "every day"}, r"is not a cron expression \(for example '0 6 \* \* \*'"),
    "freshness": (one_day, {"freshness_hours": (24, 1)}, r"must be \(warn, fail\)"),
    "freshness_one": (one_day, {"freshness_hours": 24}, r"must be \(warn, fail\)"),
    "merge": (one_day, {"write": "merge"}, 'write="merge" needs unique_key'),
    "order": (one_day, {"order_by": "at"}, "order_by needs unique_key"),
    "many": (many_days, {}, "a function of partition_dates needs partition_column"),
    "no_day": (no_day, {}, "the function must take partition_date: str, partition_key: str, context, or"),
    "no_partitions": (one_day, {"partitions": None}, "takes partition_date, but the asset has no partitions"),
    "no_key": (one_day, {"write": "merge", "unique_key": []}, 'write="merge" needs unique_key'),
    "key_empty": (one_day, {"unique_key": ""}, "unique_key='' is not the name of a column, or a list"),
    "key_number": (one_day, {"unique_key": 5}, "unique_key=5 is not the name of a column"),
    "key_set": (one_day, {"unique_key": {"id"}}, r"unique_key=\{'id'\} is not the name of a column"),
    "key_numbers": (one_day, {"unique_key": ["id", 5]}, r"unique_key=\['id', 5\] is not the name of a column"),
    "order_list": (one_day, {"unique_key": "id", "order_by": ["at"]}, r"order_by=\['at'\] is not the name of a column"),
    "column_of_none": (
        no_day,
        {"partitions": "none", "partition_column": "at"},
        "partition_column says what belongs to which partition, but the asset has none",
    ),
    "arrow": (one_day, {"iceberg_schema": pyarrow.schema([])}, "is a pyarrow.lib.Schema, not a Schema of PyIceberg"),
    "spec": (one_day, {"partition_spec": "day(at)"}, "is a builtins.str, not a PartitionSpec of PyIceberg"),
    "group": (one_day, {"group": "a b"}, "group='a b' must be letters, digits and underscores"),
    "validate": (one_day, {"validate": "no"}, "validate='no' is neither True nor False"),
    "runtime_nan": (one_day, {"max_runtime_seconds": float("nan")}, "max_runtime_seconds=nan must be a number"),
    "runtime_ever": (one_day, {"max_runtime_seconds": float("inf")}, "max_runtime_seconds=inf must be a number"),
    "cron_seconds": (one_day, {"cron": "0 0 6 * * *"}, "is not a cron expression"),
    "freshness_text": (one_day, {"freshness_hours": ("1", "2")}, r"must be \(warn, fail\)"),
    "quarantine_case": (one_day, {"namespace": "Quarantine"}, "is for rows set aside"),
    "both": (
        lambda partition_date, partition_dates: None,
        {"table_name": "x"},
        "and partition_dates; choose one",
    ),
}


@pytest.mark.parametrize(("fetch", "options", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_option_fails_at_definition_and_names_what_is_valid(
    fetch: Callable[..., object], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(DefinitionError, match=said) as caught:
        build(fetch, **options)
    assert caught.value.fix


def test_all_wrong_options_are_named_together_with_the_function() -> None:
    with pytest.raises(DefinitionError, match=r"write='x'.*max_retries=-1.*cron='y'") as caught:
        build(write="x", max_retries=-1, cron="y")
    assert caught.value.where == "@cascade_ingestion on `one_day`"


def test_a_column_with_a_name_of_ours_is_refused() -> None:
    declared = Schema(NestedField(1, "id", LongType()), NestedField(2, "_cascade_partition", StringType()))
    with pytest.raises(DefinitionError, match="are Cascade's own: `_cascade_partition`"):
        load_plan(build(iceberg_schema=declared))


@pytest.mark.parametrize("option", ["unique_key", "partition_column", "order_by"])
def test_a_column_that_the_schema_lacks_is_named_beside_those_it_has(option: str) -> None:
    asset = build(**{"unique_key": "id", option: "nope"}, iceberg_schema=SCHEMA)
    with pytest.raises(DefinitionError, match="has no column `nope`") as caught:
        load_plan(asset)
    assert caught.value.where == "table raw.one_day, columns id, name"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: daily(start="July"), "start='July' is not a day"),
        (lambda: daily(start="2013-02-01", end="2013-01-01"), "end before they start"),
        (lambda: daily(timezone="Mars/North"), "is not a time zone"),
        (lambda: static([]), "Static partitions need keys"),
        (lambda: static("nl"), "Static partitions need keys"),
        (lambda: static(["nl", "nl"]), "Static partitions need keys"),
    ],
)
def test_partitions_that_make_no_sense_are_refused_with_an_example(make: Callable[[], object], said: str) -> None:
    with pytest.raises(DefinitionError, match=said) as caught:
        make()
    assert caught.value.fix
