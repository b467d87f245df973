"""What the tests of `cascade.quality` share: a small table, and checks run as Dagster runs them."""

import datetime as dt
from decimal import Decimal
from typing import Any

import dagster as dg
import pyarrow as pa

from cascade.iceberg.schema import schema_from_arrow
from cascade.iceberg.write import write
from cascade.lakehouse import Lakehouse
from cascade.quality import Check, cascade_quality

WEATHER = pa.table(
    {
        "origin": ["EWR", "EWR", "JFK", None],
        "time_hour": pa.array(
            [
                dt.datetime(2013, 7, 1, 0),
                dt.datetime(2013, 7, 1, 1),
                dt.datetime(2013, 7, 1, 1),
                dt.datetime(2013, 7, 3),
            ],
            pa.timestamp("us", "UTC"),
        ),
        "day": pa.array([dt.date(2013, 7, 1)] * 3 + [dt.date(2013, 7, 3)]),
        "temp": pa.array([70.5, 200.0, None, float("nan")]),
        "amount": pa.array([Decimal("0.10"), Decimal("0.20"), None, Decimal("5.00")], pa.decimal128(10, 2)),
        "order": pa.array([1, 2, 2, None], pa.int64()),
        'what\'s "this"': ["a", "b\n", "it's", "é"],
    }
)


def write_rows(lakehouse: Lakehouse, table: str, rows: pa.Table) -> int:
    """Append rows to a table, and return its snapshot."""
    schema = schema_from_arrow(rows.schema)
    branch = lakehouse.ensure_branch()
    return write(lakehouse.catalog, branch, table, [rows], schema=schema, mode="append").snapshot_id


def run_checks(
    lakehouse: Lakehouse,
    *definitions: dg.AssetChecksDefinition,
    assets: list[Any] | None = None,
    **options: Any,
) -> dict[str, dg.AssetCheckEvaluation]:
    """Run checks as Dagster would and return what they found by name."""
    resources = {"lakehouse": dg.ResourceDefinition(lambda _: lakehouse)}
    defs = dg.Definitions(assets=assets, asset_checks=definitions, resources=resources)
    selection = dg.AssetSelection.all() if assets else dg.AssetSelection.checks(*definitions)
    defs = dg.Definitions.merge(defs, dg.Definitions(jobs=[dg.define_asset_job("all_checks", selection)]))
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_job_def("all_checks")
        result = job.execute_in_process(instance=instance, raise_on_error=False, **options)
        return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def run_check(
    lakehouse: Lakehouse, check: Check, asset: str = "raw/weather", **options: Any
) -> dg.AssetCheckEvaluation:
    """Run one check and return what it found."""

    @cascade_quality(asset=asset, checks=[check])
    def group() -> None: ...

    (evaluation,) = run_checks(lakehouse, group, **options).values()
    return evaluation


def values_of(evaluation: dg.AssetCheckEvaluation) -> dict[str, Any]:
    """Return the metadata as plain values."""
    return {name: value.value for name, value in evaluation.metadata.items() if hasattr(value, "value")}
