"""What Dagster is told of a load: log lines, metadata, and the checks `contract` and `freshness`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from cascade.errors import count
from cascade.evidence import snapshot_evidence
from cascade.names import (
    CONTRACT_CHECK,
    DROPPED_COLUMNS,
    DUPLICATE_ROWS,
    EXTRACTED_ROWS,
    FRESHNESS_CHECK,
    LOADED_ROWS,
    PARTITION_ROW_COUNT,
    PARTITIONS_LOADED,
    PARTITIONS_SKIPPED,
    QUARANTINE_TABLE,
    QUARANTINED_ROWS,
    REPLACED_ROWS,
    ROW_COUNT,
    TABLE_NAME,
)

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
    if plan.definition and result.partitions:
        # What is true of the run is said once, with its last partition, and not once for each of a year.
        for partition in result.partitions:
            if partition in result.per_partition:
                rows = {PARTITION_ROW_COUNT: result.per_partition[partition]}
                context.add_asset_metadata(rows, partition_key=partition)
        context.add_asset_metadata(metadata, partition_key=context.partition_keys[-1])
        metadata = {}
    checks = list(_checks(plan, result, lakehouse, evidence))
    return dg.MaterializeResult(metadata={**metadata, **evidence}, check_results=checks)


def _metadata(result: LoadResult, table: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        ROW_COUNT: result.total,
        TABLE_NAME: table,
        EXTRACTED_ROWS: result.extracted,
        LOADED_ROWS: result.loaded,
        QUARANTINED_ROWS: result.quarantined,
        DUPLICATE_ROWS: result.duplicates,
        REPLACED_ROWS: result.replaced,
        PARTITIONS_LOADED: len(result.partitions),
        PARTITIONS_SKIPPED: result.skipped,
        **{f"{step}_seconds": round(seconds, 3) for step, seconds in result.seconds.items()},
    }
    if result.quarantine:
        found[QUARANTINE_TABLE] = result.quarantine
    if result.dropped:
        found[DROPPED_COLUMNS] = sorted(result.dropped)
    if result.preview is not None:
        names = result.preview.column_names
        lines = [" | ".join(names), " | ".join("---" for _ in names)]
        lines += [" | ".join(str(v)[:60] for v in row.values()) for row in result.preview.to_pylist()]
        found["preview"] = dg.MetadataValue.md("\n".join(f"| {line} |" for line in lines))
    return found


def _checks(
    plan: LoadPlan, result: LoadResult, lakehouse: Lakehouse, evidence: dict[str, str]
) -> Iterator[dg.AssetCheckResult]:
    hours, definition = plan.options.freshness_hours, plan.definition
    if plan.options.checked:
        yield _contract_check(result, evidence)
    if hours and isinstance(definition, dg.TimeWindowPartitionsDefinition):
        yield _freshness_check(*hours, _newest_end(lakehouse, plan.table, definition), evidence)


def _contract_check(result: LoadResult, evidence: dict[str, str]) -> dg.AssetCheckResult:
    """Say that the loaded rows fulfil the contract; rows and columns that the source did not bring are a warning."""
    warnings = []
    if result.quarantined:
        warnings.append(
            f"{result.quarantined:,} of {count(result.extracted, 'row')} broke it; see {result.quarantine}."
        )
    if result.absent:
        names = ", ".join(f"`{name}`" for name in sorted(result.absent))
        warnings.append(f"No row brought {names}, which the contract requires; the column is null.")
    return dg.AssetCheckResult(
        check_name=CONTRACT_CHECK,
        passed=not warnings,
        severity=dg.AssetCheckSeverity.WARN if warnings else dg.AssetCheckSeverity.ERROR,
        description=" ".join(warnings) or None,
        metadata={**evidence, QUARANTINED_ROWS: result.quarantined},
    )


def _newest_end(lakehouse: Lakehouse, table: str, definition: dg.TimeWindowPartitionsDefinition) -> dt.datetime | None:
    """Return when the newest loaded partition ended: filling an old one proves nothing."""
    from cascade.ingestion.record import loaded_partitions

    loaded = loaded_partitions(lakehouse.catalog, lakehouse.ref, table, definition)
    return max((definition.time_window_for_partition_key(key).end for key in loaded), default=None)


def _freshness_check(
    warn: float, fail: float, end: dt.datetime | None, evidence: dict[str, str]
) -> dg.AssetCheckResult:
    age = (dt.datetime.now(dt.UTC) - end).total_seconds() / 3600 if end else float("inf")
    return dg.AssetCheckResult(
        check_name=FRESHNESS_CHECK,
        passed=age <= warn,
        severity=dg.AssetCheckSeverity.ERROR if age > fail else dg.AssetCheckSeverity.WARN,
        description=f"The newest partition ended {max(age, 0):,.1f} hours ago; "
        f"warn after {warn:g}, fail after {fail:g}.",
        metadata=evidence,
    )
