"""What Dagster is told of a load: log lines, metadata, and the checks `contract` and `freshness`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from cascade import names
from cascade.errors import count
from cascade.evidence import shown_columns, shown_rows, snapshot_evidence
from cascade.ingestion.partitions import dimensions_of, of_time, parts_of
from cascade.ingestion.record import loaded_partitions
from cascade.ingestion.text import listed

if TYPE_CHECKING:
    from cascade.ingestion.load import LoadResult
    from cascade.ingestion.plan import LoadPlan
    from cascade.lakehouse import Lakehouse

__all__ = ["materialization", "say"]


def say(log: dg.DagsterLogManager, result: LoadResult, table: str) -> None:
    """Log what happened, what is special about it first."""
    if result.skipped:
        log.info(f"{table}: {result.skipped} partitions are loaded already.")
        if not result.partitions:
            log.info(f"{table}: nothing to ingest.")
            return
    if result.inferred:
        log.warning(f"{table}: no schema is declared; its columns come from the data alone.")
    if result.dropped:
        log.warning(f"{table}: columns left out: {', '.join(sorted(result.dropped))}.")
    if not result.extracted:
        log.info(f"{table}: the source returned no rows.")
    log.info(
        f"{table}: {result.extracted:,} extracted = {result.loaded:,} loaded + {result.quarantined:,} quarantined"
        f" + {result.duplicates:,} duplicates."
    )


def materialization(
    context: dg.AssetExecutionContext, plan: LoadPlan, result: LoadResult, lakehouse: Lakehouse
) -> dg.MaterializeResult[Any]:
    """Return metadata and checks of a load. Those of single partitions are added to the context."""
    evidence = snapshot_evidence(result.snapshot_id, lakehouse.branch)
    metadata = _metadata(result, plan.table)
    if result.snapshot_id is not None:
        table = lakehouse.table(plan.table)
        metadata |= {names.TABLE_URI: table.location(), **shown_columns(table.schema())}
    if plan.definition and result.partitions:
        # What is true of the run is said once, with its last partition, and not once for each of a year.
        for partition in result.partitions:
            if partition in result.per_partition:
                rows = {names.PARTITION_ROW_COUNT: result.per_partition[partition]}
                context.add_asset_metadata(rows, partition_key=partition)
        context.add_asset_metadata(metadata, partition_key=context.partition_keys[-1])
        metadata = {}
    checks = list(_checks(plan, result, lakehouse, evidence))
    return dg.MaterializeResult(metadata={**metadata, **evidence}, check_results=checks)


def _metadata(result: LoadResult, table: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        names.ROW_COUNT: result.total,
        names.TABLE_NAME: table,
        names.EXTRACTED_ROWS: result.extracted,
        names.LOADED_ROWS: result.loaded,
        names.QUARANTINED_ROWS: result.quarantined,
        names.DUPLICATE_ROWS: result.duplicates,
        names.REPLACED_ROWS: result.replaced,
        names.PARTITIONS_LOADED: len(result.partitions),
        names.PARTITIONS_SKIPPED: result.skipped,
        **{f"{step}_seconds": round(seconds, 3) for step, seconds in result.seconds.items()},
    }
    if result.quarantine:
        found[names.QUARANTINE_TABLE] = result.quarantine
    if result.dropped:
        found[names.DROPPED_COLUMNS] = sorted(result.dropped)
    if result.preview is not None:
        found |= shown_rows(result.preview)
    return found


def _checks(
    plan: LoadPlan, result: LoadResult, lakehouse: Lakehouse, evidence: dict[str, str]
) -> Iterator[dg.AssetCheckResult]:
    if plan.options.checked:
        warnings = []
        if result.quarantined:
            of = count(result.extracted, "row")
            warnings.append(f"{result.quarantined:,} of {of} broke it; see {result.quarantine}.")
        if result.absent:
            absent = listed(sorted(result.absent))
            warnings.append(f"No row brought {absent}, which the contract requires; the column is null.")
        yield dg.AssetCheckResult(
            check_name=names.CONTRACT_CHECK,
            passed=not warnings,
            severity=dg.AssetCheckSeverity.WARN if warnings else dg.AssetCheckSeverity.ERROR,
            description=" ".join(warnings) or None,
            metadata={**evidence, names.QUARANTINED_ROWS: result.quarantined},
        )
    if plan.options.freshness_hours and plan.definition and (times := of_time(plan.definition)):
        warn, fail = plan.options.freshness_hours
        # The newest partition counts, not the newest load: filling an old one proves nothing.
        loaded = loaded_partitions(lakehouse.catalog, lakehouse.ref, plan.table, plan.definition)
        place = dimensions_of(plan.definition).index(times)
        ends = [times.time_window_for_partition_key(parts_of(plan.definition, key)[place]).end for key in loaded]
        age = (dt.datetime.now(dt.UTC) - max(ends)).total_seconds() / 3600 if ends else float("inf")
        yield dg.AssetCheckResult(
            check_name=names.FRESHNESS_CHECK,
            passed=age <= warn,
            severity=dg.AssetCheckSeverity.ERROR if age > fail else dg.AssetCheckSeverity.WARN,
            description=f"The newest partition ended {max(age, 0):,.1f} hours ago; "
            f"warn after {warn:g}, fail after {fail:g}.",
            metadata=evidence,
        )
