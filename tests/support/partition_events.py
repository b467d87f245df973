"""A run over a range of partitions, another one that fails, and what Dagster's storage says of both."""

from collections import Counter
from typing import Any

import dagster as dg

import cascade.framework.storage  # noqa: F401  # it changes what every storage of Dagster is told of

__all__ = ["RUNS", "told"]

RUNS = [f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2)]
DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-06")
RANGE = {"dagster/asset_partition_range_start": "2024-01-02", "dagster/asset_partition_range_end": "2024-01-04"}


def _asset(name: str) -> dg.AssetsDefinition:
    check = dg.AssetCheckSpec("good", asset=name, blocking=True)

    @dg.asset(name=name, partitions_def=DAYS, check_specs=[check])
    def load(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]  # Dagster reads the annotation
        if context.run.tags.get("fails") == name:
            raise dg.Failure("as asked", allow_retries=False)
        return dg.MaterializeResult(
            metadata={"n": 1},
            tags={"kept": name},
            check_results=[dg.AssetCheckResult(check_name="good", passed=True)],
        )

    return load


ASSETS = [_asset("one"), _asset("two")]


def told(instance: dg.DagsterInstance) -> dict[str, Any]:
    """Run a range, then again so that it fails; return what the storage says."""
    events = instance.event_log_storage
    job = dg.Definitions(assets=ASSETS).resolve_implicit_global_asset_job_def()
    for run, tags in zip(RUNS, ({}, {"fails": "two"}), strict=True):
        done = job.execute_in_process(instance=instance, run_id=run, tags={**RANGE, **tags}, raise_on_error=False)
        assert done.success is not bool(tags)
    said: dict[str, Any] = {
        run: Counter(
            (entry.dagster_event.event_type_value, str(entry.dagster_event.asset_key), entry.dagster_event.partition)
            for entry in events.get_logs_for_run(run)
            if entry.dagster_event and entry.dagster_event.asset_key
        )
        for run in RUNS
    }
    for asset in ASSETS:
        key, check = asset.key, dg.AssetCheckKey(asset.key, "good")
        records = events.get_event_records(
            dg.EventRecordsFilter(dg.DagsterEventType.ASSET_MATERIALIZATION, asset_key=key)
        )
        [entry] = events.get_asset_records([key])
        last = entry.asset_entry.last_materialization_record
        assert last is not None
        said[key.to_user_string()] = {
            "partitions": events.get_materialized_partitions(key),
            "not yet": {
                partition: run
                for partition, (run, _) in (
                    events.get_latest_asset_partition_materialization_attempts_without_materializations(key).items()
                )
            },
            "last": (last.run_id, last.partition_key, last.storage_id == records[0].storage_id),
            "numbers": len({record.storage_id for record in records}),
            "tags": [
                events.get_event_tags_for_asset(key, {"kept": key.to_user_string()}),
            ],
            "checks": [
                (record.run_id, record.status, record.partition)
                for record in events.get_asset_check_execution_history(check, limit=20)
            ],
        }
    return said
